"""`functrain config --from-deepspeed`: every key of a DeepSpeed configuration is mapped or named."""

import json

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from functrain.app.config.loading import load_config
from functrain.app.deepspeed.document import lines, translate
from functrain.app.deepspeed.translation import leaves

# The keys that DeepSpeed's documentation and its code name, each with values; of those that are mapped none is what
# DeepSpeed or functrain would take by default.
SWITCH = st.sampled_from([True, False, "auto"])
SIZE = st.sampled_from([2e8, 500000, "auto"])
OFFLOAD = st.fixed_dictionaries(
    {"device": st.sampled_from(["none", "cpu", "nvme"])},
    optional={"pin_memory": SWITCH, "nvme_path": st.just("/nvme"), "buffer_count": st.just(4), "ratio": st.just(0.5)},
)


def section(**keys):
    return st.fixed_dictionaries({}, optional=keys)


def words(text, values):
    return dict.fromkeys(text.split(), values)


ADAM = section(
    lr=st.sampled_from([3e-4, 0.0, "auto"]),
    betas=st.sampled_from([[0.8, 0.99], "auto"]),
    eps=st.sampled_from([1e-6, "auto"]),
    weight_decay=st.sampled_from([0.05, "auto"]),
    torch_adam=SWITCH,
    adam_w_mode=SWITCH,
    bias_correction=SWITCH,
    amsgrad=st.just(True),
    fused=SWITCH,
    freeze_step=st.just(4),
    max_grad_norm=st.just(1.0),
)
WARMUP = section(
    warmup_min_lr=st.sampled_from([1e-5, "auto"]),
    warmup_max_lr=st.sampled_from([2e-3, "auto"]),
    warmup_num_steps=st.sampled_from([3, "auto", 0]),
    total_num_steps=st.sampled_from([50, "auto"]),
    warmup_type=st.sampled_from(["linear", "auto", "cubic"]),
    warmup_min_ratio=st.just(0.1),
    cos_min_ratio=st.just(0.2),
    last_batch_iteration=st.just(-1),
)
ZERO = section(
    stage=st.sampled_from([0, 1, 2, 3, "auto", 4]),
    offload_optimizer=OFFLOAD,
    offload_param=OFFLOAD,
    **words(
        "allgather_partitions overlap_comm reduce_scatter contiguous_gradients load_from_fp32_weights grad_hooks "
        "round_robin_gradients elastic_checkpoint ignore_unused_parameters legacy_stage1 memory_efficient_linear "
        "stage3_gather_16bit_weights_on_model_save stage3_gather_fp16_weights_on_model_save log_trace_cache_warnings "
        "pipeline_loading_checkpoint override_module_apply enable_sanity_checks zero_quantized_weights cpu_offload "
        "zero_quantized_gradients zero_quantized_nontrainable_weights mics_hierarchical_params_gather "
        "save_muon_momentum_buffer_in_memory stage3_use_all_reduce_for_fetch_params stage3_allgather_sequential "
        "use_multi_rank_bucket_allreduce cpu_offload_param cpu_offload_use_pin_memory",
        SWITCH,
    ),
    **words(
        "allgather_bucket_size reduce_bucket_size stage3_max_live_parameters stage3_max_reuse_distance "
        "stage3_prefetch_bucket_size stage3_param_persistence_threshold stage3_model_persistence_threshold "
        "sub_group_size stage3_module_granularity_threshold",
        SIZE,
    ),
    **words("zero_hpz_partition_size mics_shard_size", st.sampled_from([1, -1, 8])),
)
DOCUMENT = section(
    train_batch_size=st.sampled_from([32, 30, "auto", 0]),
    train_micro_batch_size_per_gpu=st.sampled_from([4, "auto"]),
    gradient_accumulation_steps=st.sampled_from([2, "auto", "two"]),
    gradient_clipping=st.sampled_from([0.5, 0, "auto", -1]),
    optimizer=st.fixed_dictionaries(
        {"type": st.sampled_from(["Adam", "AdamW", "SGD", "Lion", "OneBitAdam", "Lamb", "Muon", "Adagrad", "auto"])},
        optional={"params": ADAM, "legacy_fusion": SWITCH},
    ),
    scheduler=st.fixed_dictionaries(
        {"type": st.sampled_from(["WarmupLR", "WarmupDecayLR", "WarmupCosineLR", "OneCycle", "auto"])},
        optional={"params": WARMUP},
    ),
    fp16=section(
        loss_scale=st.sampled_from([0, 128.0, "auto"]),
        initial_scale_power=st.sampled_from([8, 200]),
        loss_scale_window=st.sampled_from([500, "auto"]),
        **words("hysteresis min_loss_scale", st.just(2)),
        **words("enabled auto_cast consecutive_hysteresis fp16_master_weights_and_grads", SWITCH),
    ),
    bf16=section(
        **words("enabled immediate_grad_update check_grad_overflow bf16_master_weights_and_grads", SWITCH),
        bf16_optimizer_states=SWITCH,
    ),
    torch_autocast=section(enabled=SWITCH, dtype=st.sampled_from(["bfloat16", "float16"])),
    zero_optimization=ZERO,
    **words(
        "prescale_gradients sparse_gradients wall_clock_breakdown dump_state zero_allow_untested_optimizer "
        "zero_force_ds_cpu_optimizer memory_breakdown disable_allgather graph_harvesting dataloader_drop_last "
        "managed_gradient_accumulation use_data_before_expert_parallelism",
        SWITCH,
    ),
    **words(
        "amp autotuning flops_profiler tensorboard wandb comet csv_monitor comms_logger eigenvalue elasticity "
        "progressive_layer_drop curriculum_learning data_efficiency hybrid_engine expert_parallel "
        "quantize_training",
        st.fixed_dictionaries({"enabled": SWITCH}, optional={"start": st.just(1)}),
    ),
    steps_per_print=st.sampled_from([10, "auto"]),
    communication_data_type=st.sampled_from(["fp16", "fp32", None]),
    seq_parallel_communication_data_type=st.sampled_from(["fp16", "fp32"]),
    gradient_predivide_factor=st.sampled_from([1.0, 2.0]),
    gradient_allreduce_op=st.sampled_from(["mean", "sum"]),
    activation_checkpointing=section(**words("partition_activations cpu_checkpointing profile", SWITCH)),
    sparse_attention=st.just({"mode": "fixed", "block": 16}),
    tensor_parallel=section(autotp_size=st.sampled_from([0, 4])),
    compression_training=st.just({"layer_reduction": {"enabled": True}}),
    compile=section(deepcompile=SWITCH),
    checkpoint=section(tag_validation=st.just("Warn")),
    data_types=section(grad_accum_dtype=st.just("bf16")),
    aio=st.just({"queue_depth": 8}),
)
# What a key may not be: the message would say that DeepSpeed does not have it.
UNKNOWN = "no such key that functrain knows"


def all_named(found, document):
    """Keys that are neither mapped nor named, themselves or by a section that they are in."""
    named = found.notes.keys() | found.problems.keys()
    return [
        leaf
        for leaf in leaves(document)
        if leaf not in found.used and not any(leaf == each or leaf.startswith(f"{each}.") for each in named)
    ]


@given(document=DOCUMENT, world=st.sampled_from([None, 1, 4]))
def test_every_key_is_mapped_or_named(document, world):
    found = translate(document, world)
    assert all_named(found, document) == []
    assert not [key for key, text in found.problems.items() if UNKNOWN in text]


@given(document=DOCUMENT, place=st.sampled_from(["", "fp16", "zero_optimization", "optimizer", "scheduler", "bf16"]))
def test_a_key_that_nobody_knows_is_a_problem_anywhere(document, place):
    inside = document.setdefault(place, {"type": "Adam", "stage": 1, "enabled": True}) if place else document
    if place in ("fp16", "bf16"):
        inside["enabled"] = True
    inside["of_nobody"] = 3
    found = translate(document, 1)
    assert UNKNOWN in found.problems[f"{place}.of_nobody" if place else "of_nobody"]


def without(document, leaf):
    *sections, key = leaf.split(".")
    copy = json.loads(json.dumps(document))
    inside = copy
    for name in sections:
        inside = inside[name]
    del inside[key]
    return copy


@given(document=DOCUMENT, world=st.sampled_from([None, 4]))
def test_every_key_that_is_mapped_has_an_effect(document, world):
    found = translate(document, world)
    for leaf in found.used if not found.problems else ():
        other = translate(without(document, leaf), world)
        assert other.problems or (other.values, other.origins) != (found.values, found.origins), leaf


BASE = {
    "model": {"name": "mlp", "inputs": 2, "outputs": 3},
    "data": {"name": "digits"},
    "objective": {"name": "classification"},
    "optimizer": {"name": "adamw", "lr": 1e-3},
    "training": {"epochs": 2},
}


@pytest.fixture(scope="module")
def merged(tmp_path_factory):
    """The configuration that a translated document and a base make."""
    folder = tmp_path_factory.mktemp("deepspeed")

    def load(found):
        part: dict = {}
        for line in lines(found):
            inside = part
            for name in line.path[:-1]:
                inside = inside[name]
            inside[line.path[-1]] = {} if line.is_section else line.value
        (folder / "part.yaml").write_text(yaml.safe_dump(part))
        (folder / "base.yaml").write_text(yaml.safe_dump(BASE))
        (folder / "c.yaml").write_text("extends: [base.yaml, part.yaml]\n")
        return load_config(folder / "c.yaml")

    return load


@given(document=DOCUMENT, world=st.sampled_from([1, 4]))
def test_what_is_mapped_is_a_configuration(merged, document, world):
    found = translate(document, world)
    if found.problems:  # take these keys away
        for key in found.problems:
            document.pop(key.split(".")[0], None)
        found = translate(document, world)
    if not found.problems:
        config = merged(found)
        assert config.training.accumulate == found.values.get(("training", "accumulate"), 1)


@pytest.mark.parametrize(
    "section", [{"offload_optimizer": {"device": "cpu", "pin_memory": True}}, {"cpu_offload": True}]
)
def test_offloading_to_the_cpu_is_a_key_of_distributed(merged, section):
    config = merged(translate({"zero_optimization": {"stage": 2, **section}}, None))
    assert (config.distributed.strategy, config.distributed.offload_optimizer) == ("zero2", "cpu")


SIZES = "train_batch_size", "train_micro_batch_size_per_gpu", "gradient_accumulation_steps"


@pytest.mark.parametrize(
    ("sizes", "world", "expected"),
    [
        ((32, 4, 2), None, (16, 2)),
        ((32, 4, 2), 4, (16, 2)),
        ((32, None, 2), None, (16, 2)),
        ((32, None, None), None, (32, 1)),
        ((None, 4, 2), 8, (32, 2)),
        ((None, 4, None), 8, (32, None)),
        ((32, 4, None), 2, (8, 4)),
        ((32, 4, "auto"), 2, (8, 4)),
        ((None, None, 2), None, (None, 2)),
        (("auto", "auto", "auto"), None, (None, None)),
    ],
)
def test_batch_sizes_are_those_of_all_processes_together(sizes, world, expected):
    document = {key: size for key, size in zip(SIZES, sizes) if size is not None}
    found = translate(document, world)
    assert found.problems == {}
    keys = ("data", "batch_size"), ("training", "accumulate")
    assert tuple(found.values.get(key) for key in keys) == expected


@pytest.mark.parametrize(
    ("sizes", "world", "message"),
    [
        ((32, 4, 2), 2, "and 32 is not 4 x 2 x 2 = 16: change one of them, or --world"),
        ((33, 4, 2), None, "and 33 is not 4 x 2 x 4 = 32: change one of them"),
        ((33, None, 2), None, "33 examples cannot be cut into gradient_accumulation_steps=2 equal micro-batches"),
        ((None, 4, 2), None, "data.batch_size is 4 times their number: say it with --world N"),
        ((32, 4, None), None, "say it with --world N, or set gradient_accumulation_steps"),
        ((0, 4, 2), None, "it must be a whole number from 1, got 0"),
        ((32.5, 4, 2), None, "it must be a whole number from 1, got 32.5"),
    ],
)
def test_batch_sizes_that_do_not_fit_are_explained(sizes, world, message):
    document = {key: size for key, size in zip(SIZES, sizes) if size is not None}
    [text] = translate(document, world).problems.values()
    assert message in text


HUGGING_FACE = {
    "fp16": {"enabled": False},
    "optimizer": {"type": "AdamW", "params": {"lr": "auto", "weight_decay": "auto"}},
    "scheduler": {"type": "WarmupLR", "params": {"warmup_min_lr": 0, "warmup_max_lr": "auto", "warmup_num_steps": 3}},
    "zero_optimization": {"stage": 3, "overlap_comm": True, "reduce_bucket_size": "auto"},
    "train_batch_size": "auto",
    "gradient_clipping": "auto",
}
OWN = {
    "bf16": {"enabled": True},
    "train_batch_size": 8,
    "gradient_accumulation_steps": 2,
    "optimizer": {"type": "Adam", "params": {"lr": 1e-2, "adam_w_mode": False, "weight_decay": 1e-3}},
    "scheduler": {"type": "WarmupCosineLR", "params": {"total_num_steps": 20, "warmup_num_steps": 2}},
    "zero_optimization": {"stage": 1},
    "gradient_clipping": 1.0,
}


@pytest.mark.parametrize("document", [HUGGING_FACE, OWN])
def test_what_is_printed_trains_where_a_configuration_extends_it(functrain, project, document):
    (project / "ds.json").write_text(json.dumps(document))
    code, out, err = functrain("config", "--from-deepspeed", "ds.json")
    assert (code, err) == (0, "")
    (project / "ds.yaml").write_text(out)
    (project / "mine.yaml").write_text("extends: [tiny.yaml, ds.yaml]\n")
    code, _, err = functrain("train", "mine.yaml", "--no-progress", "--run-dir", "runs/mine")
    assert (code, err) == (0, "")
    config = load_config("runs/mine/config.yaml")
    assert config.distributed.strategy == f"zero{document['zero_optimization']['stage']}"
    if document is OWN:
        assert (config.data.batch_size, config.training.accumulate, config.optimizer.name) == (4, 2, "adam")
    else:
        assert 'optimizer.params.lr: "auto" (an argument of Hugging Face\'s Trainer): set optimizer.lr' in out


def test_json_has_the_values_and_the_keys_that_became_none(functrain, project):
    (project / "ds.json").write_text(json.dumps(OWN | {"steps_per_print": 10}))
    code, out, _ = functrain("config", "--from-deepspeed", "ds.json", "--json")
    found = json.loads(out)
    assert code == 0
    assert found["config"]["optimizer"]["schedule"]["decay"] == "cosine"
    assert found["origins"]["training.clip_norm"] == "gradient_clipping"
    assert found["left_out"] == {"steps_per_print": "it is of DeepSpeed's own log"}


def test_one_message_names_all_keys_without_a_counterpart(functrain, project):
    wrong = {"type": "OneBitAdam"}, {"stage": 3, "offload_param": {"device": "nvme"}}, {"enabled": True}
    document = dict(zip(("optimizer", "zero_optimization", "autotuning"), wrong)) | {"of_nobody": 1}
    (project / "ds.json").write_text(json.dumps(document))
    code, out, err = functrain("config", "--from-deepspeed", "ds.json")
    assert (code, out) == (2, "")
    assert err == (
        "functrain: error: ds.json: 4 keys have no counterpart as they are:\n"
        "  optimizer.type: it compresses what is sent, which is not there; the nearest is Adam\n"
        "  zero_optimization.offload_param: parameters stay where they compute; the nearest is offload_optimizer with "
        "device cpu\n"
        "  autotuning: the command 'functrain find-batch-size' finds the largest batch, and 'functrain sweep' "
        "searches\n"
        "  of_nobody: DeepSpeed has no such key that functrain knows\n"
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a": 1, "a": 2}', "ds.json: the key 'a' is there twice: leave one out"),
        ('{"a": 1,\n b}', "ds.json:2:2: this is no JSON: Expecting property name enclosed in double quotes"),
        ("[1]", "ds.json: a DeepSpeed configuration is an object {...}, got [1]"),
        ('{"fp16": true}', "ds.json: fp16: it must be an object {...}, got true"),
        ('{"zero_optimization": true}', 'ds.json: zero_optimization: true is its old form: write {"stage": 1}'),
        ('{"fp16": {"enabled": true}, "bf16": {"enabled": true}}', "ds.json: bf16: fp16 and bf16 are both enabled"),
    ],
)
def test_a_file_that_is_none_is_one_message(functrain, project, text, message):
    (project / "ds.json").write_text(text)
    code, _, err = functrain("config", "--from-deepspeed", "ds.json")
    assert code == 2
    assert err.startswith(f"functrain: error: {message}")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--from-deepspeed", "none.json"], "none.json: No such file or directory"),
        (["tiny.yaml", "--from-deepspeed", "ds.json"], "--from-deepspeed takes the place of CONFIG"),
        (["tiny.yaml", "--world", "2"], "--world goes with --from-deepspeed"),
        ([], "the following arguments are required: CONFIG"),
    ],
)
def test_arguments_that_do_not_go_together(functrain, project, arguments, message):
    code, _, err = functrain("config", *arguments)
    assert code == 2
    assert message in err
