"""`functrain bisect`: find the first update, and the first leaf, in which two runs part."""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from functrain.app.commands.command import FOUND
from functrain.app.runs.diff import print_differences
from functrain.app.runs.digests import Moment, Parting, digests, parting
from functrain.app.runs.past import Past, confirmed, moment_of, nothing_left_behind, past_run
from functrain.app.tables import print_lines
from functrain.diagnostics.time_travel import reached
from functrain.foundation.errors import ConfigError
from functrain.foundation.paths import shown_path
from functrain.foundation.scratch import scratch_folder
from functrain.loop.output.progress_line import counted
from functrain.step import TrainState, diff_states, digest

BEGINNING = Moment(0, False)


def bisect(left: Path, right: Path, trust: bool, progress: bool | None, console: Console) -> int:
    """The command: compare the digests of two logs, and train again where they say too little.

    Args:
        left, right: directories of runs.
        trust: the user vouches for runs that somebody else wrote.
        progress: of `fit`.
        console: what to print on.

    Returns:
        The exit code: 1 if the runs part.

    Raises:
        ConfigError: there is no such run, or one cannot be rebuilt here.
    """
    pasts = [past_run(path, trust, progress)[0] for path in (left, right)]
    found = parting(*(digests(past.run.path) for past in pasts))
    end = min(reached(past.run.path) for past in pasts)
    print_lines(console, [_said(found, end)])
    if found.differs is None and found.equal is not None and found.equal.step == end:
        return 0
    high = end if found.differs is None else found.differs.step
    with scratch_folder() as scratch, nothing_left_behind("the runs are as they were"):
        moment = _first(pasts, found, high, scratch)
        if moment is None:
            print_lines(console, [f"trained again up to step {high}, every update is equal"])
            return 0
        states = [_state(past, moment.step, scratch / f"state-{number}") for number, past in enumerate(pasts)]
    differing = diff_states(*states)
    print_lines(console, [f"the runs part at {moment}: {counted(len(differing), 'leaf', 'leaves')} differ"])
    print_differences(console, differing)
    return FOUND


def _said(found: Parting, end: int) -> str:
    """What the logs say."""
    if found.equal is None and found.differs is None:
        return f"the logs have no digest of one step: both runs are trained again, up to step {end}"
    equal = f"{counted(found.compared, 'digest')} equal, up to {found.equal}" if found.equal else "no digest equal"
    if found.differs is None:
        return f"{equal}; none differs"
    return f"{equal}; the first that differs is at {found.differs}"


def _first(pasts: Sequence[Past], found: Parting, high: int, scratch: Path) -> Moment | None:
    """The first moment at which the runs differ, by a digest of each update; None if there is none.

    Raises:
        ConfigError: trained again, the runs have other digests than in their logs.
    """
    begin = max((past.ancestry.first_step for past in pasts if past.ancestry is not None), default=0)
    low = begin if found.equal is None else max(found.equal.step, begin)
    if found.equal is None:
        states = [_state(past, low, scratch / f"low-{number}") for number, past in enumerate(pasts)]
        if digest(states[0]) != digest(states[1]):
            return moment_of(states[0])
    logs = []
    for number, past in enumerate(pasts):
        folder = scratch / f"run-{number}"
        rebuilt, state = past.rebuilt(high, folder, since=low, digest_every=1)
        confirmed(past, folder, rebuilt.start, moment_of(state), digest(state))
        logs.append({**digests(folder), moment_of(state): digest(state)})
    first = parting(*logs).differs
    if first is None and found.differs is not None:
        raise ConfigError(
            f"trained again, both runs are equal up to step {high}, and by their logs they are not: the runs cannot be "
            f"rebuilt here. 'functrain reproduce {shown_path(pasts[0].run.path)}' says what differs"
        )
    return first


def _state(past: Past, step: int, folder: Path) -> TrainState:
    return past.rebuilt(step, folder)[1]
