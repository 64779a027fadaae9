"""functrain runs, compare and clean."""

import json
import shutil
import subprocess
import sys

import pytest

from functrain.checkpoint import RunLock


def _statuses(functrain, *arguments):
    code, out, err = functrain("runs", "--json", *arguments)
    assert (code, err) == (0, "")
    return {run["name"]: run for run in json.loads(out)}


def test_runs_are_listed_with_their_status(functrain, runs, damage):
    found = _statuses(functrain)
    assert {name: run["status"] for name, run in found.items()} == {
        "tiny": "finished",
        "all": "finished",
        "interrupted": "interrupted",
    }
    assert (found["tiny"]["step"], found["tiny"]["epoch"], found["tiny"]["watch"]) == (9, 3, "eval_loss")
    assert found["tiny"]["best"] == found["all"]["best"] > 0
    for name in ("killed", "script", "damaged", "folder/inner"):
        shutil.copytree(runs / "tiny", runs / name, symlinks=True)
    (runs / "script" / "status.json").unlink()
    (runs / "killed" / "status.json").write_text('{"status": "running", "watch": null, "detail": ""}')
    (runs / "damaged" / "metrics.jsonl").write_text("no record\n")
    (runs / "empty").mkdir()
    with RunLock(runs / "all"):
        found = _statuses(functrain)
    expected = {"killed": "interrupted", "script": "ended", "damaged": "unreadable", "all": "running"}
    assert {name: found[name]["status"] for name in expected} == expected
    assert (found["folder/inner"]["status"], "empty" in found) == ("finished", False)
    assert list(_statuses(functrain, "runs/tiny")) == ["tiny"]


def test_a_run_that_failed_says_so(functrain, project):
    with (project / "tiny_project.py").open("a") as file:
        file.write("\ndef rooted(width: int = 4):\n    return nn.Sequential(nn.Linear(2, 3), Root())\n")
        file.write("\nclass Root(nn.Module):\n    def forward(self, inputs):\n        return inputs.sqrt()\n")
    assert functrain("train", "tiny.yaml", "--no-progress", "model={name: tiny_project:rooted}")[0] == 2
    found = _statuses(functrain)["tiny"]
    assert (found["status"], found["detail"].startswith("NonFiniteError: ")) == ("failed", True)


def test_runs_are_sorted_and_shown_as_a_table(functrain, runs):
    (runs / "interrupted" / "checkpoints" / "best").unlink()
    code, out, _ = functrain("runs", "--sort", "best", "--reverse")
    lines = out.splitlines()
    assert (code, lines[0].split()) == (0, ["name", "status", "step", "epoch", "best", "metric", "age"])
    assert [line.split()[0] for line in lines[1:]] == ["all", "tiny", "interrupted"]  # without a value at the end
    assert functrain("runs", "nowhere")[::2] == (
        2,
        "functrain: error: there is no directory nowhere: give the one that holds the runs, as in 'functrain runs "
        "DIR'\n",
    )


def test_a_thousand_runs_are_listed(functrain, runs):
    for name in ("all", "interrupted"):
        shutil.rmtree(runs / name)
    index = (runs / "tiny/checkpoints/last/functrain.json").read_bytes()
    for number in range(1000):
        run = runs / f"run-{number}"
        (run / "checkpoints" / "last").mkdir(parents=True)
        (run / "checkpoints" / "last" / "functrain.json").write_bytes(index)
        for name in ("metrics.jsonl", "config.yaml", "status.json"):
            (run / name).write_bytes((runs / "tiny" / name).read_bytes())
    assert len(_statuses(functrain)) == 1001


@pytest.mark.parametrize("arguments", [["runs"], ["compare", "runs/tiny", "runs/all", "--csv", "c.csv"]])
def test_torch_is_not_imported(runs, arguments):
    run = f"from functrain.app.cli import main; code = main({arguments})"
    program = f"import sys; {run}; sys.exit('torch' in sys.modules or code)"
    assert subprocess.run([sys.executable, "-c", program], check=False, capture_output=True).returncode == 0


def test_compare_prints_metrics_and_what_differs_in_the_configurations(functrain, runs, project):
    code, out, err = functrain("compare", "runs/tiny", "runs/all", "--csv", "c.csv", "--figure", "c.png")
    assert (code, err) == (0, "")
    lines = [line.split() for line in out.splitlines()]
    assert lines[0] == ["tiny", "all"]
    assert ["step", "9", "9"] in lines
    assert ["checkpoint.keep", "1", "99"] in lines
    assert ["checkpoint.save_every", "null", "1"] in lines or ["checkpoint.save_every", "1"] in lines
    rows = (project / "c.csv").read_text().splitlines()
    assert rows[0] == ",tiny,all"
    assert "checkpoint.keep,1,99" in rows
    assert (project / "c.png").stat().st_size > 5000
    code, out, _ = functrain("compare", "runs/tiny", "runs/all", "runs/interrupted", "--parameters")
    assert code == 0
    assert "parameters of all, compared with tiny: equal, every bit\n" in out
    assert any(line.split()[:1] == ["0.weight"] for line in out.splitlines())


def test_clean_keeps_the_best_and_the_last_and_asks(functrain, runs, monkeypatch, damage):
    checkpoints = runs / "all" / "checkpoints"
    best, last = ((checkpoints / link).resolve().name for link in ("best", "last"))
    (checkpoints / "step-00000001").rename(checkpoints / "step-00000001.damaged")
    before = sorted(checkpoints.iterdir())
    code, out, _ = functrain("clean", "--dry-run")
    assert (code, "would remove " in out, sorted(checkpoints.iterdir())) == (0, True, before)
    code, _, err = functrain("clean", "runs/all")
    assert (code, "give --yes" in err, sorted(checkpoints.iterdir())) == (2, True, before)
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", lambda question: "n")
    assert functrain("clean", "runs/all")[1].endswith("nothing removed\n")
    with RunLock(runs / "all"):
        code, out, _ = functrain("clean", "runs", "--yes")
    assert (code, "runs/all is running: it is left alone\n" in out, sorted(checkpoints.iterdir())) == (0, True, before)
    assert functrain("clean", "runs/all", "--yes")[0] == 0
    assert {path.name for path in checkpoints.iterdir()} == {"best", "last", best, last}
    assert functrain("verify", "runs/all")[0] == 0
    assert functrain("clean", "runs/all", "--yes")[1].startswith("nothing to remove")


MISTAKES = [
    (["compare", "runs/tiny"], "give the directories of two or more runs"),
    (["compare", "runs/tiny", "runs/nope"], "runs/nope is no run directory: it does not exist"),
    (["compare", "runs/tiny", "runs/all", "--figure", "c.txt"], "a figure's name must end in .png, .pdf or .svg"),
    (["compare", "runs/tiny", "runs/all", "--csv", "no/c.csv"], "no/c.csv cannot be written: No such file"),
    (["clean", "nowhere"], "there is no directory nowhere: give a run, or the directory that holds runs"),
]


def test_mistakes_are_one_message_and_exit_code_2(functrain, runs):
    for arguments, message in MISTAKES:
        code, _, err = functrain(*arguments)
        assert (code, err.count("\n"), err.startswith(f"functrain: error: {message}")) == (2, 1, True), err
