"""`functrain predict`: a run's predictions for inputs in files."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.progress import Progress

from functrain.app.config.build import build_state
from functrain.app.runs.directory import position
from functrain.app.runs.from_checkpoint import checkpoint_at, config_of
from functrain.app.tables import print_lines
from functrain.checkpoint import read_checkpoint
from functrain.evaluation.predicting import Prediction, postprocessing, predict_each, read_inputs, write_predictions
from functrain.foundation.errors import ConfigError
from functrain.loop.output.progress_line import counted
from functrain.objectives.tasks import task_of
from functrain.step import TrainState


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


def predict_files(path: Path, inputs: Path, out: Path | None, asked: Asked, trust: bool, console: Console) -> None:
    """The command.

    Args:
        path: a run's or checkpoint's directory.
        inputs: a file, or a folder of images.
        out: the folder for the files; None: `predictions` in the run.
        asked: the options.
        trust: the user vouches for a checkpoint that somebody else wrote.
        console: what to print on.

    Raises:
        ConfigError: if there is no such run or checkpoint, or it keeps no averages.
        DataError: if the inputs cannot be read.
        ValueError: for a threshold, a flip or an operation that does not exist.
    """
    after = postprocessing(asked.after)
    samples = read_inputs(inputs, key=asked.key)
    info, config = config_of(checkpoint_at(path), trust)
    state: TrainState = build_state(config, length=None)
    if asked.ema and state.ema is None:
        raise ConfigError(f"--ema: the run of {info.path} keeps no averages (training.ema_decay is not set)")
    state = read_checkpoint(info.path, state, groups=("params", "buffers", "ema", "step", "epoch")).tree
    folder = out or info.path.parent.parent / "predictions"
    done = 0

    def counted_ones() -> Iterator[Prediction]:
        nonlocal done
        with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
            task = progress.add_task("predicting", total=None)
            for one in predict_each(state, samples, rows=asked.rows, ema=asked.ema, flips=asked.flips):
                done += 1
                progress.update(task, description=f"predicting {one.name}", advance=1)
                yield one

    files = list(
        write_predictions(
            counted_ones(), task_of(state.recipe.objective), folder, threshold=asked.threshold, after=after
        )
    )
    what = files[0] if len(files) == 1 else f"{len(files):,} files in {files[0].parent}" if files else folder
    print_lines(console, [f"{counted(done, 'prediction')} of {info.path} ({position(info)}): {what}"])
