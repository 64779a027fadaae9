"""functrain sweep as a command. Most members here are fakes that write a log, so that no process imports torch."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import asdict

import psutil
import pytest
import torch
from fake_members import plan_here, rows, starts, table

from functrain.app.lifeline import python
from functrain.app.sweeps import driver, workers
from functrain.app.sweeps.planning import Asked
from functrain.checkpoint import RunLock


def test_a_sweep_trains_each_member_once_and_tells_the_best(functrain, fakes):
    code, out, err = functrain("sweep", "tiny.yaml", "model.width=8,4,0x8", "seed=1,2", "--jobs", "2")
    assert (code, err) == (0, "")
    assert "sweep in runs/tiny-sweep: 4 members, 2 at once, 1 thread each unless" in out
    assert "6 combinations were asked for; equal ones are trained once" in out
    text = table(fakes)
    assert text.startswith("member,model.width,seed,status,metric,best,best_epoch,last,epochs\n")
    assert [[row[key] for key in ("model.width", "seed", "status", "best", "best_epoch")] for row in rows(fakes)] == [
        ["8", "1", "finished", "2.0", "4"],
        ["8", "2", "finished", "2.0", "4"],
        ["4", "1", "finished", "1.0", "4"],
        ["4", "2", "finished", "1.0", "4"],
    ]
    assert "best: model.width=4 seed=1 (eval_loss 1.0000 at epoch 4)" in out
    assert (fakes / "sweep.png").stat().st_size > 5000
    before = {path: path.stat().st_mtime_ns for path in fakes.glob("*=*/*")}
    code, out, _ = functrain("sweep", "tiny.yaml", "model.width=8,4", "seed=1,2", "--jobs", "2")
    assert code == 0
    assert "4 members, 4 of them finished" in out
    assert {path: path.stat().st_mtime_ns for path in fakes.glob("*=*/*")} == before
    assert table(fakes) == text
    assert functrain("sweep", "tiny.yaml", "model.width=2", "seed=1,2")[0] == 0
    assert table(fakes).startswith(text)  # the others stay in the table
    assert len(rows(fakes)) == 6


def test_a_failure_is_shown_at_once_and_harms_no_other_member(functrain, fakes):
    code, out, _ = functrain("sweep", "tiny.yaml", "model.width=99,4", "seed=1,2")
    assert code == 1
    lines = out.splitlines()
    failed = next(number for number, line in enumerate(lines) if line.startswith("failed "))
    assert lines[failed].endswith("model.width=99 seed=1: failed with exit code 2. The end of its log:")
    assert lines[failed + 1].strip() == "functrain: error: it does not work"
    assert sum(line.startswith("finished ") for line in lines[failed:]) == 3
    assert [row["status"] for row in rows(fakes)] == ["failed", "finished", "finished", "finished"]
    code, out, _ = functrain("sweep", "tiny.yaml", "model.width=99,4", "seed=1,2")  # tries that one again
    assert code == 1
    assert [line.split()[0] for line in out.splitlines() if line.startswith(("started", "failed", "finished"))] == [
        "started",
        "failed",
    ]


def test_fail_fast_ends_the_sweep(functrain, fakes):
    assert functrain("sweep", "tiny.yaml", "model.width=99,4", "seed=1,2", "--fail-fast")[0] == 1
    assert [row["status"] for row in rows(fakes)] == ["failed", "waiting", "waiting", "waiting"]


def test_successive_halving_trains_the_best_for_longer(functrain, fakes):
    command = ["sweep", "tiny.yaml", "model.width=6,5,4,3,2,1", "training.epochs=4", "--asha", "--factor", "2"]
    code, _, _ = functrain(*command, "--jobs", "3")
    assert code == 0
    expected = {6: "0-1 ", 5: "0-1 ", 4: "0-1 ", 3: "0-1 1-2 ", 2: "0-1 1-2 ", 1: "0-1 1-2 2-4 "}
    assert starts(fakes) == expected
    text = table(fakes)
    assert [row["status"] for row in rows(fakes)] == ["pruned"] * 5 + ["finished"]
    assert functrain(*command)[0] == 0
    assert (starts(fakes), table(fakes)) == (expected, text)


def test_a_run_that_pauses_after_an_epoch_ends_with_the_bits_of_one_that_does_not(functrain, project):
    code, out, _ = functrain("train", "tiny.yaml", "--no-progress", "--run-dir", "a", "--until-epoch", "1")
    assert code == 0
    assert out.splitlines()[-1] == "paused after epoch 1; the same command without --until-epoch continues"
    before = (project / "a" / "metrics.jsonl").read_text()
    assert before.count('"kind": "epoch"') == 1
    code, out, _ = functrain("train", "tiny.yaml", "--no-progress", "--run-dir", "a", "--until-epoch", "1")
    assert (code, "paused after epoch 1" in out, (project / "a" / "metrics.jsonl").read_text()) == (0, True, before)
    assert functrain("train", "tiny.yaml", "--no-progress", "--run-dir", "a")[0] == 0
    assert functrain("train", "tiny.yaml", "--no-progress", "--run-dir", "b", "--until-epoch", "5")[0] == 0
    logs = [(project / run / "metrics.jsonl").read_text() for run in "ab"]
    assert logs[0] == logs[1]  # each epoch has a digest of the state


def test_optuna_suggests_members_and_goes_on_as_it_would_have(functrain, fakes):
    pytest.importorskip("optuna")
    command = ["sweep", "tiny.yaml", "model.width=int(1, 1000)", "--jobs", "2", "--optuna"]
    assert functrain(*command, "4")[0] == 0
    whole = table(fakes)
    assert len(whole.splitlines()) == 5
    fakes.rename(fakes.with_name("whole"))
    assert functrain(*command, "2")[0] == 0
    assert functrain(*command, "4", "--jobs", "1")[0] == 0  # more members, and another number of jobs
    assert table(fakes) == whole
    code, _, err = functrain("sweep", "tiny.yaml", "model.width=int(1, 10)", "--optuna", "6")
    assert code == 2
    assert "searches something else (model.width=int(1, 1000) with --search-seed 0)" in err


def test_a_sweep_without_optuna_says_how_to_get_it(functrain, fakes, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    code, _, err = functrain("sweep", "tiny.yaml", "model.width=1,2", "--optuna", "3")
    assert code == 2
    assert "--optuna needs the package optuna, which is not installed: pip install 'functrain[optuna]'" in err
    assert not fakes.exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["tiny.yaml"], "nothing is searched: give a key several values"),
        (["no.yaml", "a=1,2"], "there is no configuration file no.yaml"),
        (["tiny.yaml", "sed=1,2"], "unknown key 'sed' at the top level; did you mean 'seed'?"),
        (["tiny.yaml", "seed=1,2", "--random", "2", "--optuna", "2"], "--random and --optuna are different searches"),
        (["tiny.yaml", "seed=1,2", "--asha", "--optuna", "2"], "--optuna and --asha cannot be combined"),
        (["tiny.yaml", "seed=1,2", "--factor", "2"], "--min-epochs and --factor are of --asha"),
        (["tiny.yaml", "seed=1,2", "--asha", "--factor", "1"], "--factor must be 2 or more"),
        (["tiny.yaml", "training.epochs=1,2", "--asha"], "give all of them the same training.epochs"),
        (["tiny.yaml", "seed=uniform(1,2)"], "is a range, which a grid cannot go through"),
        (["tiny.yaml", "--list", "no.txt"], "no.txt cannot be read: No such file"),
    ],
)
def test_what_is_wrong_is_one_message_and_leaves_nothing_behind(functrain, fakes, arguments, said):
    code, _, err = functrain("sweep", *arguments)
    assert (code, said in err, "Traceback" in err) == (2, True, False), err
    assert not fakes.parent.exists() or "--asha" in arguments


def test_a_second_driver_is_refused(functrain, fakes):
    with RunLock(fakes):
        code, _, err = functrain("sweep", "tiny.yaml", "seed=1,2")
    assert code == 2
    assert err.startswith(
        f"functrain: error: another sweep is at work in runs/tiny-sweep: process {os.getpid()} on host"
    )


def test_a_sweep_is_no_run(functrain, fakes, runs):
    code, _, err = functrain("sweep", "tiny.yaml", "seed=1,2", "--sweep-dir", "runs/tiny")
    assert (code, "runs/tiny is the directory of a run" in err) == (2, True)


def test_changed_code_stops_the_sweep_before_the_next_member(functrain, fakes, monkeypatch, project):
    begin = workers.Workers._start

    def start(self, task):
        begin(self, task)
        (project / "tiny_project.py").write_text((project / "tiny_project.py").read_text() + "\n# changed\n")

    monkeypatch.setattr(workers.Workers, "_start", start)
    command = ["sweep", "tiny.yaml", "model.width=1,2,3"]
    code, out, err = functrain(*command)
    assert code == 2
    assert "tiny_project.py has changed since the sweep was started, so no further members are begun" in err
    assert out.count("finished ") == 1
    monkeypatch.setattr(workers.Workers, "_start", begin)
    sys.modules.pop("tiny_project")
    code, _, err = functrain(*command)
    assert code == 2
    assert "(model.width=1): the code changed: " in err
    assert functrain(*command, "--changed", "keep")[0] == 0
    assert starts(fakes) == {1: "0-4 ", 2: "0-4 ", 3: "0-4 "}
    assert functrain(*command)[0] == 0


def test_ctrl_c_lets_the_members_save_and_says_how_to_go_on(functrain, fakes, monkeypatch, capsys):
    fakes.mkdir(parents=True)
    (fakes / "slow").touch()
    monkeypatch.setattr(sys, "argv", ["functrain", "sweep", "tiny.yaml", "model.width=1,2"])

    def interrupt():
        while not list(fakes.glob("*/starts")):
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    code, _, err = functrain("sweep", "tiny.yaml", "model.width=1,2")
    thread.join()
    assert code == 130
    assert "functrain: interrupted; the members have saved their state in runs/tiny-sweep" in err
    assert "To continue: functrain sweep tiny.yaml model.width=1,2" in err
    assert [row["status"] for row in rows(fakes)] == ["interrupted", "waiting"]
    (fakes / "slow").unlink()
    assert functrain("sweep", "tiny.yaml", "model.width=1,2")[0] == 0
    assert starts(fakes)[1].startswith("0-4 ")


def test_runs_lists_the_members(functrain, fakes):
    functrain("sweep", "tiny.yaml", "model.width=1,2")
    code, out, _ = functrain("runs", "--json")
    assert code == 0
    assert sorted(run["name"].rpartition("-")[0] for run in json.loads(out)) == [
        "tiny-sweep/width=1",
        "tiny-sweep/width=2",
    ]


CHILD = """
import subprocess, sys, time
child = subprocess.Popen(sys.argv[1:], stdin=subprocess.PIPE)
print(child.pid, flush=True)
time.sleep(600)
"""

LIVES = """
import signal, sys, time
from functrain.app.lifeline import end_with_parent

def main():
    end_with_parent()
    print("up", flush=True)
    time.sleep(600)
"""


def test_a_process_ends_with_its_parent_however_that_ends(tmp_path):
    (tmp_path / "lives.py").write_text(LIVES)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])}
    parent = subprocess.Popen(
        [sys.executable, "-c", CHILD, *python("lives")], stdout=subprocess.PIPE, text=True, env=environment
    )
    with parent:
        child = psutil.Process(int(parent.stdout.readline()))
        assert parent.stdout.readline() == "up\n"
        parent.kill()
    child.wait(timeout=60)


def test_the_driver_imports_no_torch():
    code = "import sys, functrain.app.sweeps.sweep; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


PLANNED = """
import json, sys
from functrain.app.cli import main
from functrain.app.sweeps import driver
from functrain.app.sweeps.identity import Parts
from functrain.app.sweeps.plan import Request

found = json.load(open("answer.json"))
requests = [Request(tuple(each["point"]), each["config"], Parts(**each["parts"])) for each in found]
driver.requested = lambda *_: requests
sys.exit(main())
"""


def test_a_sweep_whose_driver_and_members_were_killed_ends_as_if_they_were_not(functrain, project, monkeypatch):
    plan_here(monkeypatch)
    asked = Asked(project / "tiny.yaml", ["training.epochs=4"], driver._threads(2), trust=False)
    requests = driver.requested(asked, [("model.width=4",), ("model.width=8",)])
    (project / "answer.json").write_text(json.dumps([asdict(each) for each in requests]))
    command = ["sweep", "tiny.yaml", "model.width=4,8", "training.epochs=4", "--jobs", "2"]
    folder = project / "runs" / "tiny-sweep"
    with subprocess.Popen(
        [sys.executable, "-c", PLANNED, *command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        while not list(folder.glob("*=*/checkpoints/*")) and process.poll() is None:
            time.sleep(0.01)
        members = psutil.Process(process.pid).children()
        members[0].kill()
        process.kill()
    assert len(members) == 2
    assert psutil.wait_procs(members, timeout=300)[1] == []
    assert functrain(*command)[0] == 0
    assert [row["status"] for row in rows(folder)] == ["finished", "finished"]
    threads = torch.get_num_threads()
    for row in rows(folder):  # beside it the same runs, without a kill
        config = folder / "configs" / f"{row['member']}.yaml"
        assert functrain("train", config, "--run-dir", row["member"], "--no-progress")[0] == 0
        logs = [(each / row["member"] / "metrics.jsonl").read_text() for each in (folder, project)]
        assert logs[0] == logs[1]  # each epoch has a digest of the state
    torch.set_num_threads(threads)
    assert len(list(folder.glob("*=*"))) == 2
