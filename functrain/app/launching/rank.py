"""A rank's process: a command of functrain, which ends when its launcher ends.

Its arguments are those of the command: train CONFIG ...
"""

import sys
import traceback

from functrain.app.launching.reports import reported
from functrain.app.lifeline import end_at_once_with_parent


def main() -> int:
    """Run the command that the arguments are."""
    end_at_once_with_parent()
    sys.argv[0] = "functrain"
    from functrain.__main__ import main as command

    try:
        return command()
    except Exception as error:
        reported("".join(traceback.format_exception(error)), error, is_traceback=True)
        return 1
