"""functrain verify, diff, replay: what they print, and their exit codes."""

import shutil

import pytest

from functrain.checkpoint import RunLock


@pytest.fixture
def run(functrain, project):
    settings = ["checkpoint.save_every=2", "checkpoint.keep=9", "--no-progress"]
    assert functrain("train", "tiny.yaml", *settings)[0] == 0
    return project / "runs" / "tiny"


def _lines(text):
    return [line.rstrip() for line in text.splitlines() if line.strip()]


def test_verify_finds_the_damaged_checkpoint_and_changes_nothing(functrain, run, damage):
    code, out, err = functrain("verify", "runs/tiny")
    assert (code, err) == (0, "")
    assert _lines(out)[-1] == "4 checkpoints, every byte as written"
    damage(run / "checkpoints" / "step-00000006")
    before = sorted(str(path) for path in run.rglob("*"))
    code, out, err = functrain("verify", "runs/tiny")
    assert (code, err) == (1, "")
    assert _lines(out)[-1] == "1 of 4 checkpoints not good; a resumed run goes on from step-00000004"
    assert any(line.split()[:2] == ["step-00000006", "damaged"] for line in _lines(out))
    assert sorted(str(path) for path in run.rglob("*")) == before


def test_verify_takes_a_checkpoint_or_the_folder_of_them_too(functrain, run, damage):
    assert functrain("verify", "runs/tiny/checkpoints")[0] == 0
    code, out, _ = functrain("verify", "runs/tiny/checkpoints/last")
    assert (code, _lines(out)) == (0, ["step-00000006: every byte as written"])
    damage(run / "checkpoints" / "step-00000004")
    code, out, err = functrain("verify", "runs/tiny/checkpoints/step-00000004")
    assert (code, err, out.startswith("damaged: ")) == (1, "", True)


def test_diff_names_leaf_place_and_ulps(functrain, run):
    code, out, _ = functrain("diff", "runs/tiny", "runs/tiny/checkpoints/last")
    assert (code, out.startswith("equal: ")) == (0, True)
    code, out, _ = functrain("diff", "runs/tiny/checkpoints/step-00000004", "runs/tiny")
    assert code == 1
    lines = _lines(out)
    assert lines[0].split() == ["leaf", "first", "at", "ulps", "there", "largest"]
    assert any(line.split()[:5] == ["params/0.weight", "16", "of", "16", "elements"] for line in lines)
    assert any(line.strip().startswith("opt_state/1/exp_avg/0.bias ") for line in lines)
    assert any(line.split() == ["step", "4", "and", "6"] for line in lines)
    assert "leaves differ between runs/tiny/checkpoints/step-00000004 and" in lines[-1]


def test_replay_confirms_a_run_and_finds_a_checkpoint_of_another(functrain, run, project):
    code, out, err = functrain("replay", "runs/tiny/checkpoints/step-00000002", "--steps", "4")
    assert (code, err) == (0, "")
    assert _lines(out)[-1] == "4 steps from step-00000002 trained again: confirmed bit for bit"
    assert sum("the same bits" in line for line in _lines(out)) == 3
    functrain(
        "train", "tiny.yaml", "--no-progress", "checkpoint.save_every=2", "checkpoint.keep=9", "seed=1", "name=other"
    )
    shutil.rmtree(run / "checkpoints" / "step-00000004")
    shutil.copytree(project / "runs/other/checkpoints/step-00000004", run / "checkpoints" / "step-00000004")
    code, out, _ = functrain("replay", "runs/tiny/checkpoints/step-00000002", "--steps", "2")
    assert code == 1
    assert "params/0.weight" in out
    assert _lines(out)[-1] == "2 steps from step-00000002 trained again: NOT confirmed"


MISTAKES = [
    (["verify", "nope"], "nope is no run directory with checkpoints: there is no nope/checkpoints"),
    (["diff", "nope", "runs/tiny"], "nope is neither a run with checkpoints nor a checkpoint: there is no such dir"),
    (
        ["replay", "runs/tiny/checkpoints/step-9"],
        "runs/tiny/checkpoints/step-9 is neither a run with checkpoints nor a checkpoint: there is no such d",
    ),
    (["diff", "runs/tiny/config.yaml", "runs/tiny"], "runs/tiny/config.yaml is neither a run with checkpoints nor a c"),
    (["hunt", "runs/tiny", "--checkpoint", "nope"], ""),
    (["show", "runs"], "runs is neither a run directory nor a checkpoint: it holds neither config.yaml nor functrain"),
    (["replay", "runs/tiny/checkpoints/last"], "no checkpoint follows step-00000006"),
]


def test_mistakes_are_one_message_and_exit_code_2(functrain, run):
    for arguments, message in MISTAKES:
        code, _, err = functrain(*arguments)
        assert (code, err.count("\n")) == (2, 1), err
        assert err.startswith(f"functrain: error: {message}"), err
    listed = "; checkpoints of that run: step-00000002, step-00000003, step-00000004, step-00000006\n"
    for name in ("step-9", "last/x"):
        assert functrain("replay", f"runs/tiny/checkpoints/{name}")[2].endswith(listed if name == "step-9" else "\n")
    assert functrain("show", "runs")[2].endswith("; runs in runs: tiny\n")
    assert "it is a file" in functrain("show", "runs/tiny/config.yaml")[2]


def test_max_time_ends_with_75_and_says_how_to_continue(functrain, project):
    code, _, err = functrain("train", "tiny.yaml", "--no-progress", "--max-time", "0:00.001")
    assert code == 75
    assert "functrain: the time is up at step " in err
    assert "To continue: functrain train tiny.yaml --max-time 0.001\n" in err
    code, _, err = functrain("train", "tiny.yaml", "--max-time", "soon")
    assert code == 2
    assert "'soon' is no time above 0: give seconds, MM:SS or HH:MM:SS" in err


def test_strict_resume_names_what_changed_and_ignores_what_shows_in_no_bit(functrain, project):
    functrain("train", "tiny.yaml", "--no-progress")
    strict = ["train", "tiny.yaml", "--no-progress", "--strict-resume", "training.epochs=3"]
    code, _, err = functrain(*strict, "training.clip_norm=0.5", "checkpoint.keep=2")
    assert code == 2
    assert err == (
        "functrain: error: --strict-resume: the configuration has changed since this run was last started:\n"
        "  training.clip_norm: null -> 0.5\n"
        "Put that back as it was, or go on without --strict-resume\n"
    )
    assert functrain(*strict, "checkpoint.keep=2")[0] == 0


def test_hunt_names_what_is_not_finite_first(functrain, project):
    with (project / "tiny_project.py").open("a") as file:
        file.write("""

class Root(nn.Module):
    def forward(self, inputs):
        return inputs.sqrt()

def rooted(width: int = 4):
    return nn.Sequential(nn.Linear(2, width), Root(), nn.Linear(width, 3))
""")
    code, _, err = functrain("train", "tiny.yaml", "--no-progress", "model={name: tiny_project:rooted}")
    assert (code, "status NONFINITE" in err) == (2, True)
    code, out, err = functrain("hunt", "runs/tiny")
    assert (code, err) == (1, "")
    assert _lines(out)[-1].strip() == "forward at step 1 (epoch 1, batch 1, micro-batch 1), module '1'"
    functrain("train", "tiny.yaml", "--no-progress", "name=good")
    code, out, _ = functrain("hunt", "runs/good", "--steps", "2")
    assert (code, out) == (0, "all is finite in 2 steps from step-00000006\n")


def test_a_run_under_way_is_named_without_advice_that_would_meet_the_same_lock(functrain, run):
    with RunLock(run):
        code, _, err = functrain("train", "tiny.yaml", "training.epochs=9", "--no-progress")
    assert code == 2
    assert "another run is writing to " in err
    assert "this very process" in err
    assert "--resume never" not in err
