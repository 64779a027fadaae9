"""The command `functrain`, and `python -m functrain`. A signal that comes while it loads ends it in one line."""

import os
import signal
import sys
from types import FrameType

# `python -m` puts the current directory first, where a file of somebody's run could take the place of a library.
if __name__ == "__main__" and not sys.flags.safe_path:
    del sys.path[0]


def main() -> int:
    """Run the command; what it returns is the exit code."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # a shell's background job ignores it
        signal.signal(signal.SIGINT, _end)
    if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, _end)
    from functrain.app.cli import main as run

    return run()


def _end(number: int, _frame: FrameType | None) -> None:
    is_first = os.environ.get("RANK", "0") == "0" or os.environ.get("WORLD_SIZE", "1") == "1"
    os.write(2, b"\nfunctrain: interrupted\n" if is_first else b"")
    os._exit(128 + number)


if __name__ == "__main__":
    sys.exit(main())
