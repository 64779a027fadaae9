"""The curves of a run: the figures that `functrain train` and `functrain curves` draw."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console

from functrain.app.runs.directory import RunDirectory
from functrain.app.runs.from_checkpoint import what_is_there
from functrain.app.tables import print_lines
from functrain.evaluation import figures, layer_statistics
from functrain.foundation.errors import ConfigError
from functrain.foundation.paths import shown_path
from functrain.loop.output.records import Record
from functrain.loop.output.timing import read_timings

LOG = "metrics.jsonl"


class Drawn(NamedTuple):
    """What became of the figures.

    Attributes:
        files: that were written.
        missing: lines that say why one is not there, for people.
        problems: what could not be written.
    """

    files: list[Path]
    missing: list[str]
    problems: list[str]


def draw_curves(run: RunDirectory, folder: Path, *, records: Sequence[Record], ending: str = ".png") -> Drawn:
    """Draw `training_curves`, `lr_schedule`, and `layer_statistics` where the log has some.

    Args:
        run: the run.
        folder: where to.
        records: of its log.
        ending: of the files: ".png", ".svg" or ".pdf".
    """
    title, drawn = run.path.resolve().name, Drawn([], [], [])

    def curves(path: Path) -> None:
        timings = read_timings(run.path)
        figures.training_curves(records, path, title=title, best=_best_step(run), timings=timings)

    def schedule(path: Path) -> None:
        figures.learning_rate_schedule(records, path, title=title)

    def layers(path: Path) -> None:
        layer_statistics(records, path, title=title)

    _draw(drawn, folder / f"training_curves{ending}", curves, missing="no training curves")
    _draw(drawn, folder / f"lr_schedule{ending}", schedule)
    _draw(drawn, folder / f"layer_statistics{ending}", layers)
    return drawn


def _draw(drawn: Drawn, path: Path, draw: Callable[[Path], Any], missing: str = "") -> None:
    """Draw a figure; if there is nothing to draw, say so only under a name that is given."""
    try:
        draw(path)
        drawn.files.append(path)
    except (ModuleNotFoundError, ValueError) as error:  # no library to draw with, or a log without such values
        drawn.missing.extend([f"{missing}: {error}"] if missing else [])
    except OSError as error:
        drawn.problems.append(f"{shown_path(path)} cannot be written: {error.strerror}")


def _best_step(run: RunDirectory) -> int | None:
    """Of the best checkpoint, if a metric chose it."""
    name = run.name_of("best")
    return next((info.step for info in run.checkpoints() if info.name == name and info.metric is not None), None)


def curves_of_run(path: Path, out: Path | None, endings: Sequence[str], console: Console) -> None:
    """The command.

    Args:
        path: the run's directory, of the command line or of a script; the run may be running.
        out: the folder for the figures; None: the run's.
        endings: of the files.
        console: what to print on.

    Raises:
        ConfigError: there is no log, or nothing in it to draw; a figure cannot be written.
    """
    if not (path / LOG).is_file():
        raise ConfigError(f"{shown_path(path)} is no run with a log: {what_is_there(path, LOG)}")
    run, folder = RunDirectory(path), path if out is None else out
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{shown_path(folder)} cannot be made: {error.strerror}") from error
    records = run.records()
    for ending in endings:
        drawn = draw_curves(run, folder, records=records, ending=f".{ending}")
        if drawn.problems or drawn.missing:
            raise ConfigError("; ".join([*drawn.problems, *drawn.missing]))
        print_lines(console, [f"written: {file}" for file in drawn.files])
