"""`functrain export RUN OUT.zip`: a trained model and what belongs to it in one file."""

from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import torch

from functrain.app.config.build import build_loader
from functrain.app.config.schema import Config
from functrain.app.config.yaml_text import dump
from functrain.checkpoint import CheckpointInfo, save_safetensors, write_archive
from functrain.checkpoint.foreign.archive import WEIGHTS, is_member_name
from functrain.checkpoint.foreign.safetensors_format import read_safetensors, write_safetensors
from functrain.evaluation.archived import OTHER_TENSORS, PROGRAM
from functrain.evaluation.archiving import traced_program
from functrain.evaluation.prediction import inputs_of
from functrain.evaluation.program import Untraceable
from functrain.foundation.scratch import scratch_folder
from functrain.loop.resume.metadata import metadata_of
from functrain.objectives.tasks import task_of
from functrain.step import TrainState
from functrain.step.to_module import to_evaluate

# Of the run's directory, where they exist; and the results on the split "test".
FILES = ("README.md", "metrics.csv", "metrics.jsonl", "training_curves.png")
RESULTS = "test"


class Written(NamedTuple):
    """What an archive holds.

    Attributes:
        members: names.
        program: what to say about the traced program.
    """

    members: list[str]
    program: str


def write_run_archive(info: CheckpointInfo, config: Config, state: TrainState, out: Path, *, ema: bool) -> Written:
    """Write the archive of a checkpoint.

    Args:
        info: the checkpoint.
        config: it was trained with, on the CPU.
        state: it holds.
        out: the file.
        ema: of the averaged parameters.

    Raises:
        CheckpointError: the file cannot be written.
    """
    with scratch_folder() as scratch:
        save_safetensors(state, scratch / WEIGHTS, ema=ema)
        members: dict[str, bytes | Path] = {
            WEIGHTS: scratch / WEIGHTS,
            "config.yaml": _config(info),
            **dict(_files(info)),
        }
        program, words = _program(config, to_evaluate(state, ema=ema), scratch, members)
        metadata, objective = metadata_of(info), state.recipe.objective
        about = {
            "name": config.name,
            "checkpoint": info.name,
            "step": info.step,
            "epoch": metadata.epoch,
            "parameters": "averaged" if ema else "trained",
            "key": state.key,
            "task": task_of(objective),
            **({"preprocessor": metadata.preprocessor} if metadata.preprocessor else {}),
            "output": output if isinstance(output := getattr(objective, "output", None), str | int) else None,
            "versions": {"functrain": version("functrain"), "torch": torch.__version__},
            "program": program,
        }
        write_archive(out, members, about)
    return Written(list(members), words)


def _config(info: CheckpointInfo) -> bytes:
    """The configuration that made this checkpoint; the run's may have changed since."""
    return dump(metadata_of(info).config).encode()


def _files(info: CheckpointInfo) -> Iterator[tuple[str, bytes]]:
    run = info.path.resolve().parent.parent
    if not (run / "config.yaml").is_file():
        return
    for path in [*(run / name for name in FILES), *sorted((run / RESULTS).rglob("*"))]:
        name = path.relative_to(run).as_posix()
        if is_member_name(name) and path.is_file() and path.resolve() == path:
            yield name, path.read_bytes()


def _program(
    config: Config, state: TrainState, scratch: Path, members: dict[str, bytes | Path]
) -> tuple[dict[str, Any], str]:
    """What the manifest and the screen say about the program; adds its files to the members."""
    try:
        traced = traced_program(state, _example(config))
    except Untraceable as error:
        return {"missing": str(error)}, f"none: {error}. The archive holds the weights; to predict takes the source"
    program = traced.program
    members[PROGRAM] = program.content
    present = read_safetensors(scratch / WEIGHTS).keys()
    others = {name: traced.tensors[name] for name in program.tensors if name not in present}
    if others:  # buffers that the model does not save
        write_safetensors(others, scratch / OTHER_TENSORS)
        members[OTHER_TENSORS] = scratch / OTHER_TENSORS
    rows = "any number of examples" if program.rows is None else f"{program.rows} examples at a time"
    same = f"differs from the model by {traced.difference:.1e}" if traced.difference else "the model's bits"
    return {**program.to_json(), "difference": traced.difference}, f"traced for {rows}; {same}"


def _example(config: Config) -> Any:
    """The inputs of a batch, to trace the model with.

    Raises:
        Untraceable: the run's data are not here.
    """
    data = config.data.model_copy(update={"num_workers": 0, "prefetch_factor": None, "persistent_workers": False})
    config = config.model_copy(update={"data": data})
    try:
        loaders = (build_loader(config, split) for split in ("val", "test", "train"))
        loader = next(each for each in loaders if each is not None)
        return inputs_of(next(iter(loader)))
    except Exception as error:  # of the user's data set
        reason = str(error) or type(error).__name__
        raise Untraceable(
            f"the model is traced with examples of the run's data, which cannot be read ({reason})"
        ) from error
