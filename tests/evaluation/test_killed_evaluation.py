"""`functrain evaluate` in processes that are killed: no file is half written; the last one gives the same files."""

import json
import subprocess
import sys
from pathlib import Path


def test_a_killed_evaluation_goes_on_and_gives_identical_files(tmp_path):
    script = Path(__file__).with_name("killed_evaluations.py")
    done = subprocess.run([sys.executable, script, tmp_path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    told = {**json.loads(done.stdout.splitlines()[0]), **json.loads(done.stdout.splitlines()[1])}
    assert told["codes"] == [0, 0, 0], done.stderr
    assert [kill["code"] for kill in told["kills"]] == [-9] * 5
    assert all(kill["strange"] == [] and kill["left"] for kill in told["kills"])
    assert told["equal"]
    assert told["hidden"] == []
    assert told["files"] > 10
    # The examples of the report and of the threshold were computed; their first batches were compared.
    assert told["again"] <= told["reads"] - 2 * 40 + 2 * 4
