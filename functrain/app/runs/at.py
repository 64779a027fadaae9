"""`functrain at`: rebuild the state of a run after any update, and save it."""

from pathlib import Path

from rich.console import Console

from functrain.app.runs.directory import position
from functrain.app.runs.past import confirmed, moment_of, nothing_left_behind, past_run
from functrain.app.tables import print_facts
from functrain.checkpoint import read_info
from functrain.checkpoint.names import Position
from functrain.diagnostics.time_travel import Rebuilt, place
from functrain.foundation.errors import ConfigError
from functrain.foundation.paths import absolute, shown_path
from functrain.foundation.scratch import scratch_folder
from functrain.loop.output.progress_line import counted
from functrain.step import digest

STATES = "states"  # the folder in a run's directory


def at(path: Path, step: int, out: Path | None, trust: bool, progress: bool | None, console: Console) -> None:
    """The command.

    Args:
        path: a run's directory.
        step: the number of updates.
        out: the directory of the checkpoint to write; None: in the folder `states` of the run.
        trust: the user vouches for a run that somebody else wrote.
        progress: of `fit`.
        console: what to print on.

    Raises:
        ConfigError: there is no such run, `out` exists, or the state is not the run's.
        ValueError: the run has not reached the step.
    """
    past, _ = past_run(path, trust, progress)
    past.check(step)
    out = past.run.path / STATES / Position(step).name if out is None else absolute(out)
    if out.exists():
        raise ConfigError(f"{shown_path(out)} exists: give another directory with --out, or remove it")
    with scratch_folder() as scratch, nothing_left_behind("nothing is saved"):
        rebuilt, state = past.rebuilt(step, scratch)
        found, moment = digest(state), moment_of(state)
        last = confirmed(past, scratch, rebuilt.start, moment, found)
        place(rebuilt.path, out)
    print_facts(
        console,
        f"{shown_path(past.run.path)} at {position(read_info(out))}",
        [
            ("trained again", trained_again(rebuilt, step)),
            ("digest", found),
            ("confirmed", f"by the log, up to {last}" if last else "no: the log has no digest on the way"),
            ("saved", shown_path(out)),
        ],
    )


def trained_again(rebuilt: Rebuilt, step: int) -> str:
    """From where to where a state was trained again, in words."""
    start = 0 if rebuilt.start is None else rebuilt.start.step
    where = "the beginning" if rebuilt.start is None else rebuilt.start.name
    return f"{counted(step - start, 'step')} from {where}"
