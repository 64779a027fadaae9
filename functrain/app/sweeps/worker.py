"""A member's process: `functrain train`, which ends when the sweep's driver ends.

Its arguments are those of the command: train CONFIG ...
"""

import sys

from functrain.app.lifeline import end_with_parent


def main() -> int:
    """Run the command that the arguments are."""
    end_with_parent()
    sys.argv[0] = "functrain"
    from functrain.__main__ import main as command

    return command()
