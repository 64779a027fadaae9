"""functrain at and branch: earlier states of a run, and runs that begin with them."""

import json
import shutil
import signal

import pytest

from functrain.checkpoint import read_info
from functrain.loop.output.log_files import read_records


@pytest.fixture
def run(runs):
    return runs / "tiny"


def test_at_rebuilds_states_and_saves_them(functrain, run, project):
    for step in (3, 5, 9):
        code, out, err = functrain("at", "runs/tiny", str(step), "--no-progress")
        assert (code, err) == (0, "")
        assert functrain("diff", f"runs/tiny/states/step-{step:08d}", f"runs/all/checkpoints/step-{step:08d}")[0] == 0
    assert "runs/tiny at step 9, after epoch 3\n" in out
    assert "by the log, up to step 9, at the end of the epoch\n" in out
    code, out, _ = functrain("at", "runs/all", "0", "--out", "first", "--no-progress")
    assert (code, read_info(project / "first").step) == (0, 0)
    assert "no: the log has no digest on the way\n" in out


def test_a_state_that_is_not_the_runs_is_not_saved(functrain, run):
    log = run / "metrics.jsonl"
    first = next(record for record in read_records(log) if "digest" in record)["digest"]
    log.write_text(log.read_text().replace(first, "0" * 32))
    (run / "metrics.csv").unlink()
    code, _, err = functrain("at", "runs/tiny", "4", "--no-progress")
    assert (code, err.count("\n")) == (2, 1)
    assert "runs/tiny cannot be rebuilt here: at step 3, at the end of the epoch the log has the digest 0000" in err
    assert not (run / "states").exists()


def test_a_branch_without_changes_ends_with_the_same_bits(functrain, run, project):
    code, out, err = functrain("branch", "runs/tiny@4", "--no-progress")
    assert (code, err) == (0, "")
    assert "branches off runs/tiny at step 4 (4 steps from the beginning)\n" in out
    new = project / "runs" / "tiny-at-4"
    assert functrain("diff", new, run)[0] == 0
    assert (new / "metrics.jsonl").read_bytes() == (run / "metrics.jsonl").read_bytes()
    assert (new / "metrics.csv").read_bytes() == (run / "metrics.csv").read_bytes()
    assert "branched off  runs/tiny at step 4\n" in functrain("show", new)[1]
    assert read_info(new / "checkpoints" / "last").metadata["ancestry"]["step"] == 4
    # It is a run as any other: it can be gone on with, and looked back on, to where it began.
    assert functrain("train", new / "config.yaml", "training.epochs=4", "--run-dir", new, "--no-progress")[0] == 0
    assert read_info(new / "checkpoints" / "last").metadata["ancestry"]["run"] == "runs/tiny"
    code, out, _ = functrain("at", new, "5", "--no-progress")
    assert (code, "1 step from step-00000004" in out) == (0, True)
    code, _, err = functrain("at", new, "3", "--no-progress")
    assert (code, err) == (
        2,
        "functrain: error: runs/tiny-at-4 begins at step 4 of runs/tiny: give that run for step 3\n",
    )


def test_a_branch_with_changes_records_them(functrain, run, project):
    code, _, err = functrain("branch", "runs/tiny@9", "optimizer.lr=1e-3", "training.epochs=4", "name=slow")
    assert (code, "warning" in err) == (0, False)
    ancestry = json.loads((project / "runs/slow/ancestry.json").read_text())
    assert ancestry["changes"] == ["optimizer.lr=1e-3", "training.epochs=4", "name=slow"]
    assert [record["step"] for record in read_records(project / "runs/slow/metrics.jsonl")][-1] == 12


def test_a_branch_that_was_killed_before_its_first_checkpoint_begins_at_its_start(functrain, run, project):
    assert functrain("branch", "runs/tiny@4", "--no-progress")[0] == 0
    new = project / "runs" / "tiny-at-4"
    shutil.rmtree(new / "checkpoints")
    again = ["train", new / "config.yaml", "--run-dir", new, "--no-progress"]
    assert functrain(*again)[0] == 0
    assert functrain("diff", new, run)[0] == 0
    assert (new / "metrics.jsonl").read_bytes() == (run / "metrics.jsonl").read_bytes()
    code, _, err = functrain(*again, "--resume", "never")
    assert (code, "begins with a state of runs/tiny, so it cannot begin afresh" in err) == (2, True)


def test_an_interruption_leaves_nothing_half_written(functrain, run, project, monkeypatch):
    from functrain.app.runs import running

    usual = running.fit

    def fit(state, loader, **options):
        from functrain import on

        @on("after_step")
        def interrupt(event):
            if event.state.step == 2:
                signal.raise_signal(signal.SIGTERM)

        return usual(state, loader, **{**options, "callbacks": [*options["callbacks"], interrupt]})

    monkeypatch.setattr(running, "fit", fit)
    other = shutil.copytree(run, project / "runs" / "other", symlinks=True)
    records = read_records(other / "metrics.jsonl")
    (other / "metrics.jsonl").write_text("".join(json.dumps(each | {"digest": "0" * 32}) + "\n" for each in records))
    before = sorted(project.rglob("*"))
    code, _, err = functrain("at", "runs/tiny", "5", "--no-progress")
    assert (code, err) == (143, "functrain: interrupted; nothing is saved\n")
    code, _, err = functrain("branch", "runs/tiny@5", "--no-progress")
    assert (code, err) == (143, "functrain: interrupted; no run is begun\n")
    code, _, err = functrain("reproduce", "runs/tiny", "--no-progress")
    assert (code, err) == (143, "functrain: interrupted; the run is as it was\n")
    code, _, err = functrain("bisect", "runs/tiny", "runs/other", "--no-progress")
    assert (code, err) == (143, "functrain: interrupted; the runs are as they were\n")
    assert sorted(project.rglob("*")) == before


MISTAKES = [
    (["at", "runs/nope", "3"], "there is no run directory runs/nope; runs in runs: all, interrupted, tiny"),
    (["at", "runs/tiny", "10"], "step must be a whole number from 0 to 9, which "),
    (["at", "runs/tiny", "3", "--out", "tiny.yaml"], "tiny.yaml exists: give another directory with --out"),
    (["at", "empty", "0"], ""),
    (["branch", "runs/tiny"], "give a run and the number of its updates as RUN@STEP, such as runs/digits@40; got 'r"),
    (["branch", "runs/tiny@last"], "give a run and the number of its updates as RUN@STEP"),
    (["branch", "runs/tiny@3", "name=all"], "runs/all exists: give another directory with --run-dir, or another nam"),
    (["branch", "runs/tiny@3", "optimizer.rl=1"], "override 'optimizer.rl=1': unknown key 'rl' in optimizer"),
    (["branch", "runs/tiny@30"], "step must be a whole number from 0 to 9"),
]


def test_mistakes_are_one_message_and_exit_code_2(functrain, run, project):
    (project / "empty").mkdir()
    (project / "empty" / "config.yaml").write_bytes((run / "config.yaml").read_bytes())
    before = sorted(project.rglob("*"))
    for arguments, message in MISTAKES:
        code, _, err = functrain(*arguments)
        assert (code, err.count("\n")) == (2, 1), (arguments, err)
        assert err.startswith(f"functrain: error: {message}"), err
    assert sorted(project.rglob("*")) == before
