"""Whether a person is at work in this process, and keeps what it holds: the interactive interpreter, a notebook."""

import signal
import sys


def is_interactive() -> bool:
    """Whether Python has a prompt: `python`, `python -i`, IPython, a notebook's kernel. All of them set `sys.ps1`."""
    return hasattr(sys, "ps1") or bool(sys.flags.interactive)


def returns_result(on_signal: str, stopped_by: str, number: int | None) -> bool:
    """Whether a run that was told to stop returns what it has, instead of ending the process.

    Args:
        on_signal: of `fit`.
        stopped_by: why the run ended.
        number: the signal that came, if one did.

    Example:
        >>> returns_result("exit", "epochs", None), returns_result("exit", "signal", signal.SIGINT)
        (True, False)
    """
    if stopped_by not in ("signal", "time") or on_signal == "return":
        return True
    return on_signal == "auto" and is_interactive() and (stopped_by == "time" or number == signal.SIGINT)
