"""`functrain predict` in processes that are stopped: no file is half written; the last one gives the same files."""

import json
import subprocess
import sys
from pathlib import Path


def test_a_stopped_prediction_leaves_no_half_file_and_a_second_one_gives_the_same_files(tmp_path):
    script = Path(__file__).with_name("killed_predictions.py")
    done = subprocess.run([sys.executable, script, tmp_path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    told = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(each["task"], each["signal"]) for each in told] == [
        (task, number) for task in ("classification", "segmentation", "regression") for number in (9, 2)
    ]
    for each in told:
        assert each["codes"] == [0, 0], done.stderr
        assert len(each["expected"]) == each["files"]
        for kill in each["kills"]:
            assert kill["code"] == (-9 if each["signal"] == 9 else 130), done.stderr
            assert kill["shown"].items() <= each["expected"].items()
            assert len(kill["shown"]) < each["files"]
            assert each["signal"] == 9 or kill["hidden"] == []  # an interruption has time to clean up
        assert each["code"] == 0, done.stderr
        assert each["shown"] == each["expected"]
        assert each["hidden"] == []
