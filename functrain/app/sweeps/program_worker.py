"""The process of a sweep's program: it trains the members together, and writes each as a run of its own.

Its arguments are the sweep's directory, the names of the members, and perhaps --trust.
"""

import sys
from pathlib import Path

from functrain.app.interruption import Interruption
from functrain.app.lifeline import end_with_parent

USER_ERROR = 2


def main() -> int:
    """Train them; the exit code is 2 after an error that the user can mend."""
    end_with_parent()
    words = sys.argv[1:]
    trust = words[-1] == "--trust"
    folder, *names = words[:-1] if trust else words
    return Interruption(is_the_process=True, quiet=False).run(lambda: _train(Path(folder), names, trust))


def _train(folder: Path, names: list[str], trust: bool) -> int:
    from functrain.app.sweeps.program import train_program
    from functrain.foundation.errors import FunctrainError

    try:
        train_program(folder, names, trust)
    except (FunctrainError, OSError) as error:
        print(f"functrain: error: {error}", file=sys.stderr)
        return USER_ERROR
    return 0
