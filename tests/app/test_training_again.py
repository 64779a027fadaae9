"""The same command a second time: a run is shown, goes on, starts afresh or is refused."""

import os
import warnings

import pytest
import yaml


def test_a_finished_run_is_shown_and_not_trained_again(functrain, project):
    functrain("train", "tiny.yaml", "--no-progress")
    log = (project / "runs/tiny/metrics.jsonl").read_bytes()
    checkpoints = sorted(path.name for path in (project / "runs/tiny/checkpoints").iterdir())
    code, out, _ = functrain("train", "tiny.yaml", "--no-progress")
    assert code == 0
    assert "already finished (step 6, after epoch 2): nothing to train. --resume never starts afresh" in out
    assert "test" in out
    assert log == (project / "runs/tiny/metrics.jsonl").read_bytes()
    assert checkpoints == sorted(path.name for path in (project / "runs/tiny/checkpoints").iterdir())


def test_a_finished_run_whose_last_save_was_killed_is_put_in_order(functrain, project):
    functrain("train", "tiny.yaml", "--no-progress")
    checkpoints = project / "runs/tiny/checkpoints"
    (checkpoints / "last").unlink()
    (checkpoints / "last").symlink_to("step-00000003")
    (checkpoints / ".trash-step-00000001-00000000").mkdir()
    assert functrain("train", "tiny.yaml", "--no-progress")[0] == 0
    assert os.readlink(checkpoints / "last") == "step-00000006"
    assert not list(checkpoints.glob(".*"))


def test_a_longer_run_goes_on_and_names_what_changed(functrain, project):
    functrain("train", "tiny.yaml", "--no-progress")
    code, out, err = functrain("train", "tiny.yaml", "training.epochs=3", "--no-progress", "checkpoint.keep=2")
    assert (code, err) == (0, "")
    assert "the configuration has changed since this run was last started:" in out
    assert "  training.epochs: 2 -> 3\n  checkpoint.keep: 3 -> 2\n" in out
    assert "resumed from step 6, after epoch 2\n" in out
    assert "trained 3 epochs, 9 updates, the last 3 of them in " in out
    assert yaml.safe_load((project / "runs/tiny/config.yaml").read_text())["training"]["epochs"] == 3


def test_a_resumed_run_ends_where_an_uninterrupted_one_does(functrain, project):
    functrain("train", "tiny.yaml", "--no-progress", "training.epochs=1", "--run-dir", "a")
    functrain("train", "tiny.yaml", "--no-progress", "training.epochs=2", "--run-dir", "a")
    functrain("train", "tiny.yaml", "--no-progress", "training.epochs=2", "--run-dir", "b")
    assert (project / "a/metrics.jsonl").read_bytes() == (project / "b/metrics.jsonl").read_bytes()
    assert (project / "a/test/metrics.json").read_bytes() == (project / "b/test/metrics.json").read_bytes()


def test_resume_never_starts_afresh_and_keeps_the_earlier_run(functrain, project):
    functrain("train", "tiny.yaml", "--no-progress")
    code, out, _ = functrain("train", "tiny.yaml", "--no-progress", "--resume", "never", "training.epochs=1")
    assert code == 0
    assert "resumed" not in out
    assert "changed" not in out
    assert (project / "runs/tiny/previous-1/metrics.csv").exists()


def test_resume_from_a_named_checkpoint(functrain, project):
    functrain("train", "tiny.yaml", "--no-progress", "checkpoint.keep=9")
    code, out, _ = functrain("train", "tiny.yaml", "--no-progress", "--resume", "step-00000003")
    assert code == 0
    assert "resumed from step 3, after epoch 1\n" in out


@pytest.mark.parametrize("change", ["model.width=9", "optimizer.name=sgd", "training.ema_decay=0.9"])
def test_a_run_directory_of_another_model_is_left_as_it_is(functrain, project, change):
    functrain("train", "tiny.yaml", "--no-progress")
    before = (project / "runs/tiny/config.yaml").read_bytes()
    for epochs in (2, 3):  # a finished run, and one that would go on
        code, out, err = functrain("train", "tiny.yaml", "--no-progress", change, f"training.epochs={epochs}")
        assert code == 2
        assert "the configuration has changed since this run was last started:" in out
        assert "has another model or optimizer than the configuration" in err
        assert "choose another run directory (--run-dir, or name=...)" in err
        assert before == (project / "runs/tiny/config.yaml").read_bytes()


def test_a_damaged_newest_checkpoint_is_passed_over_with_a_warning(functrain, project, damage):
    functrain("train", "tiny.yaml", "--no-progress")
    damage(project / "runs/tiny/checkpoints/step-00000006")
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        code, out, err = functrain("train", "tiny.yaml", "--no-progress")
    assert code == 0
    assert "functrain: warning: " in err
    assert "step-00000006" in err
    assert "trained 2 epochs, 6 updates, the last 3 of them in" in out
