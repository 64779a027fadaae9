"""Why ranks have failed: the one cause among what they report and how they ended."""

import signal
from collections.abc import Sequence
from dataclasses import dataclass

from functrain.app.launching.processes import Rank
from functrain.app.launching.reports import Report

TIME_IS_UP = 75  # as in functrain.loop.process.signals
_INTERRUPTED = tuple(
    128 + int(getattr(signal, name)) for name in ("SIGINT", "SIGTERM", "SIGUSR1", "SIGHUP") if hasattr(signal, name)
)
_GOOD = (0, TIME_IS_UP, *_INTERRUPTED)
_CONTINUE = "the same command continues the run from its last checkpoint"


@dataclass(frozen=True)
class Failure:
    """What to tell.

    Attributes:
        code: the exit code of the launcher.
        lines: for standard error.
    """

    code: int
    lines: Sequence[str] = ()


def failed(code: int | None, told: int | None) -> bool:
    """Whether a rank's exit code is one of a failure.

    Args:
        code: of the rank; None while it runs.
        told: the signal that was handed on to all ranks.

    Example:
        >>> failed(1, None), failed(143, None), failed(-9, None), failed(-15, 15), failed(None, None)
        (True, False, True, False, False)
    """
    if code is None or code in _GOOD:
        return False
    return told is None or code not in (-told, -signal.SIGKILL)


def failure_of(ranks: Sequence[Rank], told: int | None) -> Failure:
    """The cause of a failure, once the ranks have had time to end.

    A rank's own error comes first, then a signal that killed one, then one that a rank ended with in good order, then a
    rank that does not answer. Last comes a collective that failed on all ranks.
    """
    reports = [each.report for each in ranks]
    own = [each for each in reports if each is not None and not each.of_peers]
    if own:
        alike = len(own) == len(ranks) and len({each.text for each in own}) == 1
        return _of_report(own[0], ranks, alike or len(ranks) == 1)
    by_signal = [each for each in ranks if each.code is not None and each.code < 0 and each.code != -(told or 0)]
    if by_signal:
        return _of_signal(by_signal[0])
    interrupted = next((each.code for each in ranks if each.code in _INTERRUPTED), None)
    if interrupted is not None:
        return Failure(interrupted, ["functrain: interrupted"])
    silent = [each for each in ranks if each.code is None]
    of_peers = [each for each in reports if each is not None]
    if silent and of_peers:
        return Failure(1, _of_silence(silent))
    if of_peers:
        return _of_report(of_peers[0], ranks, False)
    rank = next(each for each in ranks if failed(each.code, told))
    assert rank.code is not None
    return Failure(rank.code, [f"functrain: error: rank {rank.number} ended with exit code {rank.code}"])


def _of_report(report: Report, ranks: Sequence[Rank], alike: bool) -> Failure:
    who = "" if alike else f" (rank {report.rank})"
    code = ranks[report.rank].code or 1
    if not report.is_traceback:
        return Failure(code, [f"functrain{who}: error: {report.text}"])
    return Failure(code, [f"functrain{who}: error:", *report.text.rstrip("\n").splitlines()])


def _of_signal(rank: Rank) -> Failure:
    assert rank.code is not None
    number = -rank.code
    name = signal.Signals(number).name if number in list(signal.Signals) else f"signal {number}"
    hint = "; the system sends it where memory is short" if number == signal.SIGKILL else ""
    return Failure(
        128 + number,
        [
            f"functrain: error: rank {rank.number} was ended by {name}{hint}. The other ranks were ended with it; "
            f"{_CONTINUE}"
        ],
    )


def _of_silence(silent: Sequence[Rank]) -> list[str]:
    """Of ranks that do not answer, those that are stopped are the cause, if there are any."""
    silent = [each for each in silent if each.is_stopped()] or silent
    return [
        f"functrain: error: rank {each.number} did not answer within distributed.timeout_s"
        f"{' (it is stopped, as by SIGSTOP)' if each.is_stopped() else ''}; all ranks were ended. {_capital(_CONTINUE)}"
        for each in silent
    ]


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]
