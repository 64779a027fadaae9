"""The examples, each run as a reader would run it: alone, from a folder of its own."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "examples"

# example: its arguments, what it must say, the least test accuracy (of 97 to 98 %, but CPUs round differently)
EXAMPLES = {
    "01_fit.py": (["run"], "stopped by epochs", 95.0),
    "02_pure_step.py": ([], "twice the same bits", 95.0),
    "03_multi_task.py": ([], "even_weight", 94.0),
}


@pytest.mark.parametrize("name", sorted(path.name for path in FOLDER.glob("*.py")))
def test_an_example_runs_and_learns(name: str, tmp_path: Path) -> None:
    arguments, expected, least = EXAMPLES[name]
    environment = {**os.environ, "PYTHONPATH": str(FOLDER.parent)}
    done = subprocess.run(
        [sys.executable, str(FOLDER / name), *arguments],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr
    assert expected in done.stdout
    accuracy = re.search(r"test accuracy ([\d.]+)%", done.stdout)
    assert accuracy is not None
    assert float(accuracy[1]) >= least
    if "run" in arguments:
        assert (tmp_path / "run" / "checkpoints" / "last").exists()


def test_examples_are_short() -> None:
    for path in FOLDER.glob("*.py"):
        assert len(path.read_text().splitlines()) <= 40, path.name
