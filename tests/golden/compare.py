"""Show that a refactoring changes no result.   Usage: python tests/golden/compare.py BEFORE [SCENARIO ...]

BEFORE is a commit. Its tree and the working tree run the scenarios of `scenarios.py` on this machine with the same
interpreter, and every difference is printed. Exit code 1 if there is one. Bits depend on the processor, so golden
values from another machine would say nothing.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

TREE = Path(__file__).parents[2]
SCENARIOS = Path(__file__).with_name("scenarios.py")


def differences(before: Any, after: Any, path: str = "") -> Iterator[str]:
    """One line for each value that two JSON trees do not share."""
    if isinstance(before, dict) and isinstance(after, dict):
        for key in sorted(before.keys() | after.keys()):
            yield from differences(before.get(key, "(absent)"), after.get(key, "(absent)"), f"{path}/{key}")
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for number, (left, right) in enumerate(zip(before, after)):
            yield from differences(left, right, f"{path}/{number}")
    elif isinstance(before, str) and isinstance(after, str) and "\n" in before:
        yield from differences(before.splitlines(), after.splitlines(), path)
    elif before != after:
        yield f"{path}\n    before: {before}\n    after:  {after}"


def main() -> int:
    """Run both trees and print what differs."""
    commit, *names = sys.argv[1:]
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "tree"
        subprocess.run(["git", "worktree", "add", "-q", "--detach", str(tree), commit], cwd=TREE, check=True)
        try:
            before = _run(tree, Path(folder) / "before", names)
            after = _run(TREE, Path(folder) / "after", names)
        finally:
            subprocess.run(["git", "worktree", "remove", "--force", str(tree)], cwd=TREE, check=True)
    found = list(differences(before, after))
    print("\n".join(found) or f"{len(after)} scenarios: no difference")
    return 1 if found else 0


def _run(tree: Path, folder: Path, names: list[str]) -> Any:
    out = folder.with_suffix(".json")
    words = [sys.executable, str(SCENARIOS), str(folder), str(out), *names]
    cache = {"FUNCTRAIN_CACHE_DIR": f"{folder}-cache"}  # empty, so that both trees compile
    subprocess.run(words, env={**os.environ, **cache, "PYTHONPATH": str(tree)}, cwd=tree, check=True)
    return json.loads(out.read_text())


if __name__ == "__main__":
    sys.exit(main())
