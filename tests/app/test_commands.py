import csv
import json
import math
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from functrain.checkpoint import Checkpointer
from functrain.loop.records import read_records

FILES = ["checkpoints", "config.yaml", "metrics.csv", "metrics.jsonl", "test", "training_curves.png"]


def test_train_writes_everything_and_says_what_it_did(functrain, project):
    code, out, err = functrain("train", "tiny.yaml", "--no-progress")
    assert (code, err) == (0, "")
    run = project / "runs" / "tiny"
    assert sorted(path.name for path in run.iterdir()) == FILES
    for text in (
        "Sequential, 67 parameters",
        "tiny_project:points: 20 train, 20 val, 20 test; batches of 8",
        "adamw, lr 0.01",
        "6 updates, 3 an epoch",
        "cpu, fp32, eager (not compiled)",
        "trained 2 epochs, 6 updates in",
        "best checkpoint: step-",
        "runs/tiny/test/metrics.json",
    ):
        assert text in out
    rows = [line.split()[0] for line in out.splitlines() if " % " in line]
    assert rows == ["train", "val", "test"]
    saved = yaml.safe_load((run / "config.yaml").read_text())
    assert saved["training"]["epochs"] == 2
    assert saved["code"] == str(project)
    metrics = json.loads((run / "test" / "metrics.json").read_text())
    assert metrics["split"] == "test"
    assert metrics["checkpoint"] == "step-00000006"
    assert len(metrics["classes"]) == 3
    with (run / "test" / "metrics.csv").open() as file:
        table = {(row["class"], row["metric"]): float(row["value"]) for row in csv.DictReader(file)}
    assert table["all", "accuracy"] == metrics["accuracy"]
    assert table["0", "support"] + table["1", "support"] == 20


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


def test_a_longer_run_goes_on_and_names_what_changed(functrain, project):
    functrain("train", "tiny.yaml", "--no-progress")
    code, out, err = functrain("train", "tiny.yaml", "training.epochs=3", "--no-progress", "training.keep=2")
    assert (code, err) == (0, "")
    assert "the configuration has changed since this run was last started:" in out
    assert "  training.epochs: 2 -> 3\n  training.keep: 3 -> 2\n" in out
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
    functrain("train", "tiny.yaml", "--no-progress", "training.keep=9")
    code, out, _ = functrain("train", "tiny.yaml", "--no-progress", "--resume", "step-00000003")
    assert code == 0
    assert "resumed from step 3, after epoch 1\n" in out


def test_averaged_parameters_are_tested_beside_the_others(functrain, project):
    _, out, _ = functrain("train", "tiny.yaml", "--no-progress", "training.ema_decay=0.5", "training.accumulate=2")
    rows = [line.split("0.")[0].strip().split("  ")[0] for line in out.splitlines() if " % " in line]
    assert rows == ["train", "val", "val (EMA)", "test", "test (EMA)"]
    metrics = json.loads((project / "runs/tiny/test/metrics.json").read_text())
    assert {"loss", "ema_loss", "accuracy", "ema_accuracy"} <= metrics.keys()
    assert metrics["classes_of"] == "ema"
    code, out, _ = functrain("evaluate", "runs/tiny")
    assert code == 0
    assert "test (EMA)" in out
    assert metrics == json.loads((project / "runs/tiny/test/metrics.json").read_text())


def test_early_stopping_ends_a_run_and_goes_back_to_its_best_state(functrain, project):
    rules = ("training.early_stopping={patience: 1, min_delta: 9.0, restore_best: true}", "training.epochs=9")
    code, _, err = functrain("train", "tiny.yaml", "--no-progress", *rules)
    assert code == 0, err
    records = [json.loads(line) for line in (project / "runs/tiny/metrics.jsonl").read_text().splitlines()]
    epochs = [record for record in records if record["kind"] == "epoch"]
    assert len(epochs) == 2  # nothing improves by 9
    best = min(epochs, key=lambda record: record["eval_loss"])
    tested = json.loads((project / "runs/tiny/test/metrics.json").read_text())
    assert tested["checkpoint"] == f"step-{best['step']:08d}"
    assert "finished (early stopping): step 6" in functrain("show", "runs/tiny")[1]
    code, out, _ = functrain("train", "tiny.yaml", "--no-progress", *rules)
    assert code == 0
    assert "trained" in out


@pytest.mark.parametrize("objective", ["{name: supervised, loss_fn: cross_entropy}", "{name: my, l: 1}"])
def test_an_objective_of_a_named_loss(functrain, project, objective):
    code, _, err = functrain("train", "tiny.yaml", "--no-progress", f"objective={objective}", "training.epochs=1")
    assert (code == 0) == ("supervised" in objective), err
    if code != 0:
        assert "binary_classification" in err
        assert "supervised" in err


def test_without_validation_and_test_splits(functrain, project):
    code, out, _ = functrain("train", "tiny.yaml", "--no-progress", "data.name=tiny_project:train_only")
    assert code == 0
    assert [line.split()[0] for line in out.splitlines() if " % " in line] == ["train"]
    assert not (project / "runs/tiny/test").exists()
    assert functrain("evaluate", "runs/tiny")[::2] == (
        2,
        "functrain: error: the data set of this run (tiny_project:train_only) has no split 'test'\n",
    )


def test_own_objectives_optimizers_and_every_schedule_can_be_named(functrain, project):
    own = ["objective.name=tiny_project:my_objective", "objective.scale=2", "optimizer.name=tiny_project:my_optimizer"]
    assert functrain("train", "tiny.yaml", "--no-progress", *own, "name=own")[0] == 0
    assert "accuracy" not in read_records(project / "runs/own/metrics.jsonl")[-1]
    code, out, _ = functrain("show", "runs/own")
    assert (code, "finished" in out) == (0, True)
    schedule = ["optimizer.schedule={name: step, step_size: 2, gamma: 0.5, warmup_steps: 2}", "training.log_every=1"]
    assert functrain("train", "tiny.yaml", "--no-progress", *schedule, "name=steps")[0] == 0
    rates = [r["lr"] for r in read_records(project / "runs/steps/metrics.jsonl") if r["kind"] == "step"]
    assert rates == pytest.approx([0.0, 0.005, 0.01, 0.01, 0.005, 0.005], rel=1e-12)


def test_the_schedules_length_is_the_runs(functrain, project):
    cosine = ["optimizer.schedule.name=cosine", "training.log_every=1", "training.accumulate=2", "training.epochs=3"]
    assert functrain("train", "tiny.yaml", "--no-progress", *cosine)[0] == 0
    rates = [r["lr"] for r in read_records(project / "runs/tiny/metrics.jsonl") if r["kind"] == "step"]
    expected = [0.01 * (1 + math.cos(math.pi * step / 6)) / 2 for step in range(6)]
    assert rates == pytest.approx(expected, rel=1e-9)


def test_evaluate_any_split_and_checkpoint(functrain, project):
    functrain("train", "tiny.yaml", "--no-progress")
    before = (project / "runs/tiny/test/metrics.json").read_bytes()
    code, out, err = functrain("evaluate", "runs/tiny")
    assert (code, err) == (0, "")
    assert before == (project / "runs/tiny/test/metrics.json").read_bytes()
    assert "runs/tiny, checkpoint step-00000006 (step 6, after epoch 2), 20 examples of split test" in out
    classes = [line.split()[0] for line in out.splitlines() if line.count(" % ") == 3]
    assert classes == ["0", "1", "2", "mean"]
    code, out, _ = functrain("evaluate", "runs/tiny", "--split", "val", "--checkpoint", "step-00000003")
    assert (code, "checkpoint step-00000003 (step 3, after epoch 1)" in out) == (0, True)
    first = next(r for r in read_records(project / "runs/tiny/metrics.jsonl") if r["kind"] == "epoch")
    found = json.loads((project / "runs/tiny/val/metrics.json").read_text())
    assert found["loss"] == pytest.approx(first["eval_loss"], rel=1e-6)
    code, _, err = functrain("evaluate", "runs/tiny", "--checkpoint", "nope")
    assert code == 2
    assert "there is no checkpoint 'nope'" in err


def test_show_lists_checkpoints_and_records(functrain, project):
    functrain("train", "tiny.yaml", "--no-progress")
    code, out, _ = functrain("show", "runs/tiny")
    assert code == 0
    assert "finished: step 6, after epoch 2" in out
    listed = [line.split() for line in out.splitlines() if line.strip().startswith("step-")]
    assert [line[0] for line in listed] == ["step-00000003", "step-00000006"]
    assert any("best" in word for line in listed for word in line)
    assert "last" in listed[-1]
    assert "eval loss" in out
    for path in ("runs/tiny/checkpoints/best", "runs/tiny/checkpoints/step-00000006"):
        code, out, _ = functrain("show", path)
        assert code == 0
        for text in ("status", "COMPLETE", "params", "opt_state", "environment", "torch", "eager"):
            assert text in out


def test_a_loss_that_is_not_finite_names_the_step_and_the_run_can_be_saved(functrain, project):
    code, _, err = functrain("train", "tiny.yaml", "--no-progress", "optimizer.lr=1e30", "optimizer.name=sgd")
    assert code == 2
    assert err.startswith("functrain: error: the ")
    assert "at step 2 (epoch 1, batch 2)" in err
    assert "Try a smaller learning rate" in err
    assert err.endswith(
        "or a warm-up. The last good state was saved (status NONFINITE)\n"
        "To find the module it comes from: functrain hunt runs/tiny\n"
    ), err
    assert "stopped (not finite): step 1" in functrain("show", "runs/tiny")[1]


MISTAKES = [
    (["train", "nope.yaml"], "there is no configuration file nope.yaml"),
    (["train", "tiny.yaml", "training.epochs"], "override 'training.epochs': write key.path=value"),
    (
        ["train", "tiny.yaml", "optimizer.name=adamx"],
        "override 'optimizer.name=adamx': unknown optimizer 'adamx'; did you",
    ),
    (["train", "tiny.yaml", "optimizer.betas=[0.9, 1.5]"], "optimizer (adamw): betas[1] must be in [0, 1), got 1.5"),
    (["train", "tiny.yaml", "model={name: digits_cnn, channels: 0}"], "model (digits_cnn): channels must"),
    (["train", "tiny.yaml", "model={name: tiny_project:no_module}"], "model must be a torch.nn.Module, got str"),
    (["train", "tiny.yaml", "data.name=tiny_project:empty"], "the data set is empty"),
    (
        ["train", "tiny.yaml", "data.name=tiny_project:val_only"],
        "data (tiny_project:val_only): the data set has no split",
    ),
    (
        ["train", "tiny.yaml", "data.drop_last=true", "data.count=4"],
        "the data set (Arrays) has 4 examples, which make no batch",
    ),
    (
        ["train", "tiny.yaml", "data.prefetch_factor=2"],
        "data (tiny_project:points, split 'train'): persistent_workers and",
    ),
    (
        ["train", "tiny.yaml", "data.name=tiny_project:bad_labels"],
        "the loss is nan at step 1 (epoch 1, batch 1). Label 7 at",
    ),
    (["train", "tiny.yaml", "training.device=cuda:9"], "training.device: 'cuda:9' is not there: torch sees "),
    (["train", "tiny.yaml", "training.device=toaster"], "training.device: 'toaster' cannot be used: "),
    (["train", "tiny.yaml", "training.watch=eval_f1"], "watch must be one of train_loss, "),
    (["train", "tiny.yaml", "training.compile=true", "training.backend=x"], "backend must be one of "),
    (
        ["train", "tiny.yaml", "--run-dir", "tiny.yaml"],
        "the run directory tiny.yaml cannot be written to: tiny.yaml is a file; choose another one with --run-dir\n",
    ),
    (
        ["train", "tiny.yaml", "--run-dir", "tiny.yaml/x"],
        "the run directory tiny.yaml/x cannot be written to: tiny.yaml is a file; choose another",
    ),
    (["train", "tiny.yaml", "--resume", "nope"], "there is no checkpoint 'nope'"),
    (
        ["train", "tiny.yaml", "optimizer.schedule={name: cosine, warmup_steps: 6}"],
        "optimizer.schedule.warmup_steps: 6 updates of warm-up do not fit into a run of 6; give fewer",
    ),
    (
        ["train", "tiny.yaml", "optimizer.schedule={name: step, step_size: 2, warmup_steps: 7}"],
        "optimizer.schedule.warmup_steps: 7 updates of warm-up do not fit into a run of 6; give fewer",
    ),
    (["evaluate", "nope"], "there is no run directory nope"),
    (["evaluate", "."], ". is no run directory: there is no config.yaml in it"),
    (["show", "nope"], "nope is neither a run directory nor a checkpoint: there is no such directory"),
    (["show", "."], ". is neither a run directory nor a checkpoint: it holds neither config.yaml nor functrain.json"),
]


@pytest.mark.parametrize(("arguments", "message"), MISTAKES, ids=[" ".join(a) for a, _ in MISTAKES])
def test_a_mistake_of_the_users_is_one_message_and_exit_code_2(functrain, arguments, message):
    if arguments[0] == "train":
        arguments = [*arguments, "--no-progress"]
    code, _, err = functrain(*arguments)
    assert code == 2
    assert err.startswith(f"functrain: error: {message}")
    assert "Traceback" not in err
    assert "previous-N" not in err  # advice for a directory that holds another run


@pytest.mark.parametrize("change", ["model.width=9", "optimizer.name=sgd", "training.ema_decay=0.9"])
def test_a_run_directory_of_another_model_is_left_as_it_is(functrain, project, change):
    functrain("train", "tiny.yaml", "--no-progress")
    before = (project / "runs/tiny/config.yaml").read_bytes()
    for epochs in (2, 3):  # a finished run, and one that would go on
        code, out, err = functrain("train", "tiny.yaml", "--no-progress", change, f"training.epochs={epochs}")
        assert code == 2
        assert "the configuration has changed since this run was last started:" in out
        assert "does not fit the state" in err
        assert "choose another run directory (--run-dir, or name=...)" in err
        assert before == (project / "runs/tiny/config.yaml").read_bytes()


def test_a_bug_keeps_its_traceback_and_debug_shows_every_one(project):
    from functrain.app.cli import main

    with pytest.raises(KeyError, match="no such key"):
        main(["train", "tiny.yaml", "data.name=tiny_project:buggy"])
    with pytest.raises(Exception, match="there is no configuration file"):
        main(["train", "nope.yaml", "--debug"])


@pytest.mark.parametrize("moment", ["load_config", "build_state", "conclude"])
def test_ctrl_c_before_and_after_training_ends_with_130_and_no_traceback(functrain, monkeypatch, moment):
    def interrupted(*arguments, **keywords):
        raise KeyboardInterrupt

    monkeypatch.setattr(f"functrain.app.train.{moment}", interrupted)
    code, _, err = functrain("train", "tiny.yaml", "--no-progress")
    assert code == 130
    assert err.strip() == "functrain: interrupted"


@pytest.mark.parametrize(("number", "expected"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_while_training_saves_and_says_how_to_continue(functrain, project, monkeypatch, number, expected):
    from functrain.app import train

    usual = train.fit

    def fit(state, loader, **options):
        from functrain import on

        @on("after_step")
        def interrupt(event):
            if event.state.step == 2:
                signal.raise_signal(number)

        return usual(state, loader, **{**options, "callbacks": [*options["callbacks"], interrupt]})

    monkeypatch.setattr(train, "fit", fit)
    code, _, err = functrain("train", "tiny.yaml", "--no-progress", "training.epochs=3", "--run-dir", "r")
    assert code == expected
    assert err == (
        "functrain: interrupted at step 2 (epoch 1); everything is saved in r\nTo continue: "
        "functrain train tiny.yaml training.epochs=3 --run-dir r\n"
    )
    monkeypatch.setattr(train, "fit", usual)
    assert "interrupted: step 2, in epoch 1 after batch 2" in functrain("show", "r")[1]
    code, out, _ = functrain("train", "tiny.yaml", "--no-progress", "training.epochs=3", "--run-dir", "r")
    assert code == 0
    assert "resumed from step 2, in epoch 1 after batch 2, where it was interrupted\n" in out


def test_without_a_compiler_the_message_says_what_to_do(functrain, monkeypatch):
    monkeypatch.setattr("functrain.compiler.runner.backends.build", _no_compiler)
    code, _, err = functrain("train", "tiny.yaml", "--no-progress", "training.compile=true")
    assert code == 2
    assert "needs a C++ compiler" in err


def _no_compiler(*arguments, **keywords):
    from functrain.foundation.errors import FunctrainError

    raise FunctrainError("compiling a step needs a C++ compiler, and none was found")


def test_a_damaged_newest_checkpoint_is_passed_over_with_a_warning(functrain, project, recwarn):
    import warnings

    functrain("train", "tiny.yaml", "--no-progress")
    newest = project / "runs/tiny/checkpoints/step-00000006"
    victim = max((p for p in newest.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
    victim.write_bytes(b"\x00" * victim.stat().st_size)
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        code, out, err = functrain("train", "tiny.yaml", "--no-progress")
    assert code == 0
    assert "functrain: warning: " in err
    assert "step-00000006" in err
    assert "trained 2 epochs, 6 updates, the last 3 of them in" in out


def test_the_checkpoints_of_a_run_carry_its_configuration(functrain, project):
    functrain("train", "tiny.yaml", "--no-progress")
    with Checkpointer(project / "runs/tiny/checkpoints", read_only=True) as checkpointer:
        metadata = checkpointer.infos()[-1].metadata
    assert metadata["config"] == yaml.safe_load((project / "runs/tiny/config.yaml").read_text())


def test_help_and_version_do_not_wait_for_torch():
    code = """
import sys, types
package = types.ModuleType("functrain")  # in place of functrain/__init__.py, which loads torch
package.__path__ = [sys.argv[1]]
sys.modules["functrain"] = package
from functrain.app.cli import main
for arguments in (["--help"], ["train", "--help"], ["--version"]):
    try:
        main(arguments)
    except SystemExit as stop:
        assert not stop.code
heavy = [m for m in ("torch", "numpy", "pydantic", "rich", "yaml") if m in sys.modules]
assert not heavy, heavy
"""
    package = Path(__file__).parents[2] / "functrain"
    out = subprocess.run([sys.executable, "-c", code, package], capture_output=True, text=True, check=True).stdout
    assert "functrain train configs/digits.yaml" in out
    assert out.splitlines()[-1].startswith("functrain 0.")
    assert max(map(len, out.splitlines())) <= 120


def test_a_broken_command_line_shows_the_usage(functrain):
    for arguments in ([], ["fly"], ["train"], ["train", "tiny.yaml", "--bogus"], ["show", "a", "b"]):
        code, _, err = functrain(*arguments)
        assert code == 2
        assert err.startswith("usage: functrain")
