"""A rank's process: a command of functrain, which ends when its launcher ends.

Its arguments are those of the command: train CONFIG ...
"""

import atexit
import os
import sys
import traceback
from typing import NoReturn

from functrain.app.launching.reports import reported
from functrain.app.lifeline import end_at_once_with_parent


def main() -> NoReturn:
    """Run the command that the arguments are, and end the process."""
    end_at_once_with_parent()
    sys.argv[0] = "functrain"
    from functrain.__main__ import main as command

    try:
        code = command()
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except Exception as error:
        reported("".join(traceback.format_exception(error)), error, is_traceback=True)
        code = 1
    # After the command has ended well, torch's threads may still abort the process while the interpreter is torn down
    # (seen in one of four interrupted runs, "terminate called without an active exception"). So it is not torn down.
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(code)
