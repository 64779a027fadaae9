"""What `functrain train` writes and says, for each part of a configuration."""

import csv
import json
import math

import pytest
import yaml

from functrain.checkpoint import Checkpointer
from functrain.loop.output.records import read_records

FILES = [
    "README.md",
    "checkpoints",
    "config.yaml",
    "environment.json",
    "lr_schedule.png",
    "metrics.csv",
    "metrics.jsonl",
    "status.json",
    "test",
    "timing.csv",
    "training_curves.png",
]


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
    rows = [line.split()[0] for line in out.splitlines() if line.count(" 0.") == 2]
    assert rows == ["train", "val", "test"]
    saved = yaml.safe_load((run / "config.yaml").read_text())
    assert saved["training"]["epochs"] == 2
    assert saved["code"] == str(project)
    metrics = json.loads((run / "test" / "metrics.json").read_text())
    assert metrics["split"] == "test"
    assert metrics["checkpoint"] == "step-00000006"
    assert len(metrics["classes"]) == 3
    with (run / "test" / "metrics.csv").open() as file:
        table = {(row["class"], row["metric"]): float(row["value"]) for row in csv.DictReader(file) if row["value"]}
    assert table["all", "accuracy"] == metrics["accuracy"]
    assert table["0", "support"] + table["1", "support"] == 20


def test_auto_says_what_it_chose_and_the_run_keeps_it(functrain, project):
    def train(epochs, *overrides):
        return functrain(
            "train", "tiny.yaml", "--no-progress", "--strict-resume", f"training.epochs={epochs}", *overrides
        )

    _, out, _ = train(2, "compile=auto")
    assert "cpu, fp32, eager (not compiled)" in out
    assert "  compile    steps are not compiled: 6 updates are too few to gain by it" in out.splitlines()
    code, out, _ = train(3, "compile=auto")
    assert "  compile    steps are not compiled, as this run began" in out.splitlines()
    assert (code, train(4, "compile=false")[0], train(5, "compile=auto")[0]) == (0, 0, 0)
    code, _, err = train(6, "compile=true", "compile.backend=eager")
    assert code != 0
    assert "compile.backend" in err
    code, _, err = train(6, "compile=true")
    assert code != 0
    assert "compile was eager and is inductor/default" in err


def test_the_checkpoints_of_a_run_carry_its_configuration(functrain, project):
    functrain("train", "tiny.yaml", "--no-progress")
    with Checkpointer(project / "runs/tiny/checkpoints", read_only=True) as checkpointer:
        metadata = checkpointer.infos()[-1].metadata
    assert metadata["config"] == yaml.safe_load((project / "runs/tiny/config.yaml").read_text())


def test_averaged_parameters_are_tested_beside_the_others(functrain, project):
    _, out, _ = functrain("train", "tiny.yaml", "--no-progress", "training.ema_decay=0.5", "training.accumulate=2")
    rows = [
        line.split("0.")[0].strip().split("  ")[0] for line in out.splitlines() if line.count("  ") and "  0." in line
    ]
    assert rows == ["train", "val", "val (EMA)", "test", "test (EMA)"]
    metrics = json.loads((project / "runs/tiny/test/metrics.json").read_text())
    assert {"loss", "ema_loss", "accuracy", "ema_accuracy"} <= metrics.keys()
    assert metrics["report_of"] == "ema"
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
    assert [line.split()[0] for line in out.splitlines() if line.count("  ") and "  0." in line] == ["train"]
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
    schedule = ["optimizer.schedule={name: step, step_size: 2, gamma: 0.5, warmup_steps: 2}", "logging.log_every=1"]
    assert functrain("train", "tiny.yaml", "--no-progress", *schedule, "name=steps")[0] == 0
    rates = [r["lr"] for r in read_records(project / "runs/steps/metrics.jsonl") if r["kind"] == "step"]
    assert rates == pytest.approx([0.0, 0.005, 0.01, 0.01, 0.005, 0.005], rel=1e-12)


def test_the_schedules_length_is_the_runs(functrain, project):
    cosine = ["optimizer.schedule.name=cosine", "logging.log_every=1", "training.accumulate=2", "training.epochs=3"]
    assert functrain("train", "tiny.yaml", "--no-progress", *cosine)[0] == 0
    rates = [r["lr"] for r in read_records(project / "runs/tiny/metrics.jsonl") if r["kind"] == "step"]
    expected = [0.01 * (1 + math.cos(math.pi * step / 6)) / 2 for step in range(6)]
    assert rates == pytest.approx(expected, rel=1e-9)


def test_results_are_printed_although_a_file_cannot_be_written(functrain, project):
    (project / "runs/tiny/training_curves.png").mkdir(parents=True)
    (project / "runs/tiny/test").write_text("in the way")
    code, out, err = functrain("train", "tiny.yaml", "--no-progress")
    assert code == 2
    assert "trained 2 epochs, 6 updates in" in out
    assert [line.split()[0] for line in out.splitlines() if line.count(" 0.") == 2] == ["train", "val", "test"]
    assert "runs/tiny/training_curves.png cannot be written: Is a directory" in err
    assert "test/metrics.json cannot be written" in err
    assert "Training is done and saved: the same command writes what is missing" in err
    (project / "runs/tiny/training_curves.png").rmdir()
    (project / "runs/tiny/test").unlink()
    assert functrain("train", "tiny.yaml", "--no-progress")[0] == 0
    assert sorted(path.name for path in (project / "runs/tiny").iterdir()) == FILES


def test_code_that_changes_the_working_directory_does_not_move_the_run(functrain, project):
    elsewhere = project / "elsewhere"
    elsewhere.mkdir()
    code = f"import os\n\ndef wandering(split):\n    os.chdir({str(elsewhere)!r})\n    return points(split)\n"
    with (project / "tiny_project.py").open("a") as file:
        file.write(code)
    code, out, _ = functrain("train", "tiny.yaml", "--no-progress", "data.name=tiny_project:wandering")
    assert code == 0
    assert sorted(path.name for path in (project / "runs/tiny").iterdir()) == FILES
    assert list(elsewhere.iterdir()) == []
    assert str(project / "runs/tiny/config.yaml") in out  # not relative: that would name no file from here


def test_a_tilde_that_a_shell_leaves_is_the_home_directory(functrain, project, monkeypatch):
    monkeypatch.setenv("HOME", str(project / "home"))
    assert functrain("train", "tiny.yaml", "--no-progress", "--run-dir=~/r")[0] == 0
    assert sorted(path.name for path in (project / "home" / "r").iterdir()) == FILES
    begin = ["init_from.path=~/r/checkpoints/last", "--run-dir", "tuned"]
    assert "begins with the parameters in" in functrain("train", "tiny.yaml", "--no-progress", *begin)[1]
