"""`functrain predict`: a run's predictions for inputs in files."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.progress import Progress
from torch import Tensor

from functrain.app.members.configs import build_states
from functrain.app.runs.directory import position
from functrain.app.runs.from_checkpoint import checkpoint_at, config_of
from functrain.app.tables import print_lines
from functrain.checkpoint import read_checkpoint
from functrain.checkpoint.foreign.archive import is_archive
from functrain.data.fitted import preprocessor_from
from functrain.data.preprocessing import Preprocessor
from functrain.evaluation import ArchivedModel, load_archive
from functrain.evaluation.predicting import (
    Prediction,
    postprocessing,
    predict_each,
    predict_each_of_members,
    read_inputs,
    write_predictions,
)
from functrain.evaluation.predicting.sources import Sample
from functrain.foundation.errors import ConfigError
from functrain.loop.output.progress_line import counted
from functrain.loop.resume.metadata import metadata_of
from functrain.objectives.tasks import task_of
from functrain.step import TrainState, unstack


class Asked(NamedTuple):
    """The options.

    Attributes:
        ema: use the averaged parameters.
        key: the array or the columns of a file.
        threshold: of probabilities of yes or no.
        after: operations on masks.
        flips: to average over.
        rows: of the model's batches.
    """

    ema: bool
    key: str | None
    threshold: float
    after: tuple[str, ...]
    flips: tuple[str, ...]
    rows: int


class Model(NamedTuple):
    """What predicts.

    Attributes:
        state: a state, or a model out of an archive; of an ensemble, the states of its members.
        task: of `functrain.objectives.tasks`; None: not known.
        name: for people.
        folder: where predictions go by default.
        preprocessor: what the model was trained with; None: its inputs came as they are.
    """

    state: TrainState | ArchivedModel | list[TrainState]
    task: str | None
    name: str
    folder: Path
    preprocessor: Preprocessor | None


def _trained(path: Path, ema: bool, trust: bool) -> Model:
    info, config = config_of(checkpoint_at(path), trust, members=True)
    state: TrainState = build_states(config, length=None)
    if ema and state.ema is None:
        raise ConfigError(f"--ema: the run of {info.path} keeps no averages (training.ema_decay is not set)")
    state = read_checkpoint(info.path, state, groups=("params", "buffers", "ema", "step", "epoch")).tree
    folder, preprocessor = info.path.parent.parent / "predictions", preprocessor_from(metadata_of(info).preprocessor)
    states = state if state.members is None else unstack(state)
    return Model(states, task_of(state.recipe.objective), f"{info.path} ({position(info)})", folder, preprocessor)


def _archived(path: Path, trust: bool) -> Model:
    model = load_archive(path, trust=trust)
    preprocessor = preprocessor_from(model.about.get("preprocessor") or {})
    return Model(model, model.task, f"{path} (step {model.about.get('step')})", Path("predictions"), preprocessor)


def predict_files(path: Path, inputs: Path, out: Path | None, asked: Asked, trust: bool, console: Console) -> None:
    """The command.

    Args:
        path: a run's or checkpoint's directory, or an archive.
        inputs: a file, or a folder of images.
        out: the folder for the files; None: `predictions` in the run, or for an archive in the current directory.
        asked: the options.
        trust: the user vouches for a checkpoint that somebody else wrote.
        console: what to print on.

    Raises:
        ConfigError: if there is no such run or checkpoint, or it keeps no averages.
        DataError: if the inputs cannot be read.
        ValueError: for a threshold, a flip or an operation that does not exist.
    """
    after = postprocessing(asked.after)
    model = _archived(path, trust) if is_archive(path) else _trained(path, asked.ema, trust)
    fitted = model.preprocessor
    samples = read_inputs(inputs, key=asked.key, preprocessor=fitted)
    folder = out or model.folder
    done = 0

    def counted_ones() -> Iterator[Prediction]:
        nonlocal done
        with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
            task = progress.add_task("predicting", total=None)
            for one in _predictions(model, samples, asked):
                done += 1
                progress.update(task, description=f"predicting {one.name}", advance=1)
                yield one

    written, what = 0, folder  # the files are not listed: there may be a million
    classes = () if fitted is None else fitted.classes
    for file in write_predictions(
        counted_ones(), model.task, folder, threshold=asked.threshold, after=after, classes=classes
    ):
        written, what = written + 1, file
    where = f"{written:,} files in {what.parent}" if written > 1 else what
    print_lines(console, [f"{counted(done, 'prediction')} of {model.name}: {where}"])


def _predictions(model: Model, samples: Iterable[Sample], asked: Asked) -> Iterator[Prediction]:
    """The predictions, in the unit that the targets had in their files."""
    fitted = model.preprocessor

    def in_own_unit(scores: Tensor) -> Tensor:
        return scores if fitted is None else fitted.in_own_unit(scores)

    if isinstance(model.state, list):
        yield from predict_each_of_members(
            model.state, samples, rows=asked.rows, ema=asked.ema, flips=asked.flips, in_own_unit=in_own_unit
        )
        return
    for one in predict_each(model.state, samples, rows=asked.rows, ema=asked.ema, flips=asked.flips):
        yield one._replace(scores=in_own_unit(one.scores))
