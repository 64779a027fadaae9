"""A DeepSpeed configuration file, all of its keys, and the lines of a configuration here."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from functrain.app.config.showing import Line, as_yaml
from functrain.app.config.wording import shown
from functrain.app.deepspeed.batches import batches
from functrain.app.deepspeed.optimizers import optimizer
from functrain.app.deepspeed.precision import precision
from functrain.app.deepspeed.scheduler import scheduler
from functrain.app.deepspeed.translation import AUTO, Translation
from functrain.app.deepspeed.zero import zero
from functrain.foundation.errors import ConfigError

_LOG = "it is of DeepSpeed's own log"
_CHECKS = "it is of DeepSpeed's own checks"
_DISK = "nothing is kept on NVMe here"
# Keys at the top that change no result, and why each is left out.
NOTES: Mapping[str, str] = {
    **dict.fromkeys(("steps_per_print", "dump_state"), _LOG),
    "wall_clock_breakdown": "the command 'functrain profile' says where the time goes",
    "memory_breakdown": "the command 'functrain plan' says what memory a run takes",
    "comms_logger": "the command 'functrain plan' says what is sent",
    **dict.fromkeys(("zero_allow_untested_optimizer", "zero_force_ds_cpu_optimizer"), _CHECKS),
    **dict.fromkeys(("aio", "nvme"), _DISK),
    "disable_allgather": "functrain chooses its messages itself",
    "graph_harvesting": "the key compile chooses whether steps are compiled",
    "managed_gradient_accumulation": "an update is made at the end of each window of micro-batches",
    "checkpoint": "checkpoints here hold whole leaves and open on any number of processes",
    "dataloader_drop_last": "it is of DeepSpeed's own loader; the nearest is data.drop_last",
    "timers": _LOG,
}
# Keys at the top that ask for what there is not, the values that do not, and what there is.
REFUSED: Mapping[str, tuple[tuple[Any, ...], str]] = {
    "communication_data_type": ((None, "fp32"), "gradients are sent as they are, in float32"),
    "seq_parallel_communication_data_type": ((None, "fp32"), "sequences are not shared out among processes"),
    "prescale_gradients": ((False,), "gradients are summed first, and divided by the weights of all processes"),
    "gradient_predivide_factor": ((1, 1.0), "gradients are summed first, and divided by the weights of all processes"),
    "gradient_allreduce_op": (("mean",), "gradients are averaged; raise optimizer.lr for a sum"),
    "sparse_gradients": ((False,), "gradients are dense"),
    "use_data_before_expert_parallelism": ((False,), "experts are not shared out among processes"),
    "pipeline": (({},), "layers are not shared out among processes"),
    "data_types": (({},), "gradients are added in float32, and parameters are float32"),
}
# Sections that do nothing unless they are enabled, and what there is in their place.
OFF_UNLESS_ENABLED: Mapping[str, str] = {
    "autotuning": "the command 'functrain find-batch-size' finds the largest batch, and 'functrain sweep' searches",
    "flops_profiler": "the commands 'functrain summary' and 'functrain profile' count and time operations",
    "tensorboard": "set logging.tensorboard: true",
    "wandb": "set logging.wandb: true",
    "comet": "it is not there; the nearest are logging.wandb and logging.mlflow",
    "csv_monitor": "every run writes metrics.csv",
    "eigenvalue": "it is of quantization while training, which is not there",
    "progressive_layer_drop": "layers are not dropped: write it in the model",
    "curriculum_learning": "the order of the data is random; write another in the data set",
    "data_efficiency": "the order of the data is random; write another in the data set",
    "elasticity": "a run goes on with any number of processes, without a key",
    "hybrid_engine": "there is no inference while training",
    "expert_parallel": "experts are not shared out among processes",
    "zenflow": "updates are never late here",
    "sparse_attention": "attention is the model's own",
    "activation_checkpointing": "name the modules in training.activation_checkpointing",
    "tensor_parallel": "name the layers in distributed.tensor_parallel, and their processes in distributed.mesh.tp",
    "sequence_parallel_size": "sequences are not shared out among processes",
    "compression_training": "quantization and pruning while training are not there",
    "quantize_training": "quantization while training is not there",
    "compile": "the key compile of a configuration chooses whether steps are compiled",
    "weight_quantization": "quantization is not there",
}
_ALWAYS_ON = ("sparse_attention", "activation_checkpointing", "tensor_parallel", "compile", "compression_training")


def read(path: Path) -> dict[str, Any]:
    """The values of a file.

    Raises:
        ConfigError: it cannot be read, it is no JSON, a key is in it twice, or it holds no object.
    """

    def once(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            keys = [key for key, _ in pairs]
            twice = next(key for key in keys if keys.count(key) > 1)
            raise ConfigError(f"{path}: the key {twice!r} is there twice: leave one out")
        return found

    try:
        values = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=once)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error
    except json.JSONDecodeError as error:
        raise ConfigError(f"{path}:{error.lineno}:{error.colno}: this is no JSON: {error.msg}") from error
    except (UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(f"{path}: this is no JSON: {error}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: a DeepSpeed configuration is an object {{...}}, got {shown(values)}")
    return values


def translate(values: Mapping[str, Any], world: int | None) -> Translation:
    """What the keys of a file become.

    Args:
        values: of the file.
        world: the number of processes that it was written for; None: nobody has said it.
    """
    found = Translation()
    at = found.at()
    batches(values, world, found)
    precision(values, found)
    clip = at.number(values, "gradient_clipping", "training.clip_norm")
    if clip:
        found.put("training.clip_norm", float(clip), "gradient_clipping")
    elif clip == 0:
        at.note("gradient_clipping", "0 does not clip")
    optimizer(values, found)
    scheduler(values, found)
    zero(values, found)
    for key, (neutral, text) in REFUSED.items():
        if key in values:
            is_neutral = values[key] == AUTO or values[key] in neutral
            (at.note if is_neutral else at.refuse)(key, text)
    for key, text in OFF_UNLESS_ENABLED.items():
        if key in values:
            if _is_off(key, values[key]):
                at.note(key, "it is not enabled")
            else:
                at.refuse(key, text)
    at.rest(values, NOTES, "DeepSpeed has no such key that functrain knows")
    return found


def _is_off(key: str, value: Any) -> bool:
    """Whether a section asks for nothing."""
    if isinstance(value, Mapping):
        if key in _ALWAYS_ON:
            return not any(_asks(each) for each in value.values())
        return value.get("enabled", False) in (False, None)
    return value is not True and value in (False, None, 1, AUTO)


def _asks(value: Any) -> bool:
    """Whether a value of a section turns something on."""
    if isinstance(value, Mapping):
        return value.get("enabled") is not False and any(map(_asks, value.values()))
    return value is True or value not in (False, None, 0, 1, AUTO)


def translated(path: Path, world: int | None = None) -> Translation:
    """What a file becomes.

    Raises:
        ConfigError: it cannot be read, or a key asks for what there is not; one message names all of them.
    """
    found = translate(read(path), world)
    if found.problems:
        problems = [f"{key}: {text}" for key, text in found.problems.items()]
        if len(problems) == 1:
            raise ConfigError(f"{path}: {problems[0]}")
        raise ConfigError("\n  ".join([f"{path}: {len(problems)} keys have no counterpart as they are:", *problems]))
    return found


def lines(found: Translation) -> list[Line]:
    """The keys of the configuration, of which each section's stand below it."""
    rows: list[Line] = []
    shown_sections: set[tuple[str, ...]] = set()
    order = list(dict.fromkeys(key[0] for key in sorted(found.values)))
    for first in order:
        for key in sorted((each for each in found.values if each[0] == first), key=len):
            for depth in range(1, len(key)):
                if key[:depth] not in shown_sections:
                    shown_sections.add(key[:depth])
                    rows.append(Line(key[:depth], None, "", is_section=True))
            rows.append(Line(key, found.values[key], found.origins[key]))
    return rows


def yaml_text(path: Path, found: Translation) -> Iterator[str]:
    """A part of a configuration as YAML, with the key that each value comes of, and those that became none."""
    yield f"# What {path.name} of DeepSpeed is here. A configuration takes it in with extends: and this file's name."
    yield from as_yaml(lines(found))
    if found.notes:
        yield "# Keys that became nothing here, and why:"
        yield from (f"#   {key}: {text}" for key, text in found.notes.items())


def json_text(found: Translation) -> str:
    """Likewise as JSON: the values, their origins, and the keys that became none."""
    values: dict[Any, Any] = {}
    for line in lines(found):
        holder = values
        for name in line.path[:-1]:
            holder = holder[name]
        holder[line.path[-1]] = {} if line.is_section else line.value
    origins = {".".join(key): origin for key, origin in found.origins.items()}
    return json.dumps({"config": values, "origins": origins, "left_out": found.notes}, indent=2, ensure_ascii=False)
