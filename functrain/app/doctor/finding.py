"""What a check found, and checks that end in a given time."""

import threading
from collections.abc import Callable, Iterator
from typing import Literal, NamedTuple

Status = Literal["ok", "warning", "broken"]
SECONDS = 60.0  # for each check; importing torch from a slow disk takes some twenty


class Finding(NamedTuple):
    """What a check found.

    Attributes:
        check: its name.
        status: "broken": something that functrain needs does not work. "warning": it works, but worse than it could.
        found: in words.
        fix: what to do; empty if nothing.
    """

    check: str
    status: Status
    found: str
    fix: str = ""


class Check(NamedTuple):
    """A check: its name, and the function that makes it."""

    name: str
    run: Callable[[], Iterator[Finding]]


def findings(check: Check, seconds: float = SECONDS) -> list[Finding]:
    """What a check finds. One that fails, or takes too long, is a finding as well.

    Args:
        check: is run in a thread of its own, which is left alone where it hangs (a dead network disk, a GPU's driver).
        seconds: after which nobody waits for it.
    """
    found: list[Finding] = []

    def run() -> None:
        try:
            found.extend(check.run())
        except Exception as error:  # whatever is wrong with this machine
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
            found.append(Finding(check.name, "broken", f"the check failed: {reason}"))

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        slow = Finding(
            check.name, "broken", f"no answer in {seconds:.0f} s", "look at what this part of the machine does"
        )
        return [*found, slow]
    return found
