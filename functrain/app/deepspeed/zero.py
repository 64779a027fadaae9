"""The section `zero_optimization`."""

from collections.abc import Mapping
from typing import Any

from functrain.app.config.wording import shown
from functrain.app.deepspeed.translation import AUTO, Translation

STRATEGIES = ("ddp", "zero1", "zero2", "zero3")
OFFLOAD = "distributed.offload_optimizer"
GROUP = "distributed.mesh.dp_shard"
_MESSAGES = "it says how messages are cut and when they are sent, and functrain chooses itself"
_MEMORY = "it says when memory is taken and freed, and functrain chooses itself"
_LOADING = "checkpoints here hold whole leaves"
NOTES: Mapping[str, str] = {
    **dict.fromkeys(
        (
            "allgather_partitions",
            "allgather_bucket_size",
            "overlap_comm",
            "reduce_scatter",
            "reduce_bucket_size",
            "use_multi_rank_bucket_allreduce",
            "mics_hierarchical_params_gather",
            "grad_hooks",
            "round_robin_gradients",
            "stage3_prefetch_bucket_size",
            "stage3_use_all_reduce_for_fetch_params",
            "stage3_allgather_sequential",
        ),
        _MESSAGES,
    ),
    **dict.fromkeys(
        (
            "contiguous_gradients",
            "sub_group_size",
            "stage3_max_live_parameters",
            "stage3_max_reuse_distance",
            "stage3_param_persistence_threshold",
            "stage3_model_persistence_threshold",
            "stage3_module_granularity_threshold",
            "memory_efficient_linear",
            "cpu_offload_use_pin_memory",
        ),
        _MEMORY,
    ),
    **dict.fromkeys(
        (
            "load_from_fp32_weights",
            "elastic_checkpoint",
            "pipeline_loading_checkpoint",
            "stage3_gather_16bit_weights_on_model_save",
            "stage3_gather_fp16_weights_on_model_save",
        ),
        _LOADING,
    ),
    "ignore_unused_parameters": "a parameter that is not used has a gradient of zero here",
    "legacy_stage1": "there is one way",
    "override_module_apply": "modules are built whole here",
    "log_trace_cache_warnings": "it is of DeepSpeed's own log",
    "enable_sanity_checks": "it is of DeepSpeed's own checks",
    "save_muon_momentum_buffer_in_memory": "nothing is kept on NVMe here",
}
# What changes the numbers or where they are, and the values that ask for none of it.
REFUSED: Mapping[str, tuple[str, tuple[Any, ...]]] = {
    "zero_hpz_partition_size": ("shards within a node are not there", (1,)),
    "zero_quantized_weights": ("parameters are sent as they are", (False,)),
    "zero_quantized_nontrainable_weights": ("parameters are sent as they are", (False,)),
    "zero_quantized_gradients": ("gradients are sent as they are", (False,)),
    "zeropp_loco_param": ("gradients are sent as they are", (None,)),
    "zenflow": ("updates are never late here", (None,)),
    "cpu_offload_param": ("parameters are not offloaded; the nearest is offload_optimizer", (False, None)),
    "leaf_module": ("parameters are gathered in a way that needs no list of modules: leave it out", (None, {})),
}


def zero(values: Mapping[str, Any], found: Translation) -> None:
    """Read it."""
    at, of = found.at(), found.at("zero_optimization")
    old = values.get("zero_optimization")
    if isinstance(old, bool):
        at.refuse("zero_optimization", f'{shown(old)} is its old form: write {{"stage": {int(old)}}}')
        return
    section = at.section(values, "zero_optimization")
    if section is None:
        return
    stage = of.number(section, "stage", "distributed.strategy", integer=True)
    if stage is not None and stage > 3:
        of.refuse("stage", f"it must be 0, 1, 2 or 3, got {stage}")
    elif stage is not None:
        found.put("distributed.strategy", STRATEGIES[int(stage)], of.path("stage"))
    _offload(section, found)
    _groups(section, stage, found)
    for key, (text, neutral) in REFUSED.items():
        if key in section:
            value = section[key]
            if value == AUTO or any(
                value == each and isinstance(value, bool) == isinstance(each, bool) for each in neutral
            ):
                of.note(key, text)
            else:
                of.refuse(key, text)
    of.rest(section, NOTES, "DeepSpeed's section zero_optimization has no such key that functrain knows")


def _groups(section: Mapping[str, Any], stage: int | float | None, found: Translation) -> None:
    """MiCS: the shards of a state within groups of processes."""
    of, key = found.at("zero_optimization"), "mics_shard_size"
    if section.get(key) in (-1, 0) and not isinstance(section[key], bool):
        of.note(key, "all processes share one state")
        return
    size = of.number(section, key, GROUP, integer=True, above=1)
    if size is not None and stage != 3:
        of.refuse(key, "it needs stage 3")
    elif size is not None:
        found.put(GROUP, int(size), of.path(key))


def _offload(section: Mapping[str, Any], found: Translation) -> None:
    of = found.at("zero_optimization")
    for name in ("offload_param", "offload_optimizer"):
        inside = of.section(section, name)
        if inside is None:
            continue
        device, place = inside.get("device", "none"), f"zero_optimization.{name}"
        if device == "none" or device is None:
            of.note(name, "its device is none")
        elif name == "offload_param":
            of.refuse(name, "parameters stay where they compute; the nearest is offload_optimizer with device cpu")
        elif device == AUTO:
            of.auto(name, OFFLOAD)
        elif device != "cpu":
            of.refuse(name, f"the optimizer's state may be on the device cpu, not {shown(device)}")
        else:
            found.put(OFFLOAD, "cpu", f"{place}.device")
            _rest_of_offload(inside, found)
    if "cpu_offload" in section:
        if of.switch(section, "cpu_offload", OFFLOAD):
            found.put(OFFLOAD, "cpu", of.path("cpu_offload"))
        elif section["cpu_offload"] is False:
            of.note("cpu_offload", "it is not enabled")


def _rest_of_offload(inside: Mapping[str, Any], found: Translation) -> None:
    of = found.at("zero_optimization", "offload_optimizer")
    if inside.get("ratio", 1) != 1:
        of.refuse("ratio", "all of the optimizer's state is on one device: leave it out")
    if inside.get("super_offload", False) is not False:
        of.refuse("super_offload", "updates are never late here: leave it out")
    known = dict.fromkeys(
        ("pin_memory", "buffer_count", "fast_init", "pipeline_read", "pipeline_write", "cpuadam_cores_perc"), _MEMORY
    )
    known |= {"nvme_path": "the device is cpu", "ratio": "it is all", "super_offload": "it is not enabled"}
    of.rest(inside, known, "DeepSpeed's section offload_optimizer has no such key that functrain knows")
