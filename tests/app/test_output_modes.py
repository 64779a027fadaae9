"""`train --json`, `--quiet` and `--dry-run`, and `summary`: what stands where, and what is written."""

import json
import os
from pathlib import Path

import pytest


def tree(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Every file with its content."""
    return {
        str(path.relative_to(folder)): (path.lstat().st_mode, path.read_bytes() if path.is_file() else b"")
        for path in sorted(folder.rglob("*"))
    }


def events_in(out: str) -> list[dict]:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    return [json.loads(line, parse_constant=refuse) for line in out.splitlines()]


def test_json_is_an_object_a_line_and_nothing_else(functrain, project):
    with (project / "tiny_project.py").open("a") as file:
        file.write("\ndef talking(split):\n    print('reading', split)\n    return points(split)\n")
    code, out, err = functrain("train", "tiny.yaml", "--json", "data.name=tiny_project:talking")
    assert (code, err.count("reading")) == (0, 3)  # what the user's own code prints
    found = events_in(out)
    kinds = [event["event"] for event in found]
    assert (kinds[0], kinds[-1]) == ("start", "end")
    assert sorted(kinds) == ["checkpoint", "checkpoint", "end", "epoch", "epoch", "start"]
    start, end = found[0], found[-1]
    assert (start["model"], start["parameters"], start["updates"], start["compiled"]) == ("Sequential", 67, 6, False)
    epochs = [event for event in found if event["event"] == "epoch"]
    assert [(event["epoch"], event["step"]) for event in epochs] == [(1, 3), (2, 6)]
    assert epochs[-1]["eval_loss"] == end["metrics"]["val"]["loss"]
    assert {event["name"] for event in found if event["event"] == "checkpoint"} == {"step-00000003", "step-00000006"}
    assert (end["stopped_by"], end["step"], end["exit_code"], end["checkpoint"]) == ("epochs", 6, 0, "step-00000006")
    assert all(Path(file).exists() for file in end["files"])


def test_json_of_a_run_that_is_finished_interrupted_or_refused(functrain, project):
    code, out, _ = functrain("train", "tiny.yaml", "--json", "--max-time", "0.0001")
    assert (code, events_in(out)[-1]["stopped_by"], events_in(out)[-1]["exit_code"]) == (75, "time", 75)
    assert functrain("train", "tiny.yaml", "--json")[0] == 0
    code, out, _ = functrain("train", "tiny.yaml", "--json")
    assert [event["event"] for event in events_in(out)] == ["start", "message", "end"]
    assert events_in(out)[-1]["stopped_by"] == "finished"
    code, out, err = functrain("train", "tiny.yaml", "--json", "model.width=9")
    assert (code, events_in(out)[-1]["event"]) == (2, "error")
    assert "has another model" in events_in(out)[-1]["message"]
    assert "has another model" in err


def test_numbers_that_json_lacks_are_null(functrain, project):
    with (project / "tiny_project.py").open("a") as file:
        file.write(
            "\ndef endless(model, batch):\n    from functrain import Loss\n    inputs = batch[0]\n"
            "    return Loss(model(inputs).sum(), float(len(inputs)), {'bad': torch.tensor(float('inf'))})\n"
        )
    code, out, _ = functrain("train", "tiny.yaml", "--json", "objective.name=tiny_project:endless")
    assert code == 0
    assert [event["train_bad"] for event in events_in(out) if event["event"] == "epoch"] == [None, None]


def test_quiet_prints_errors_and_warnings_only(functrain, project):
    assert functrain("train", "tiny.yaml", "--quiet") == (0, "", "")
    code, out, err = functrain("train", "tiny.yaml", "--quiet", "training.epochs=3", "training.accumulate=2")
    assert (code, out) == (2, "")
    assert err.startswith("functrain: error: ")


@pytest.mark.parametrize("settings", [[], ["training.accumulate=2", "training.micro_batch=4"], ["logging.wandb=true"]])
def test_a_dry_run_writes_nothing_and_says_what_it_would_do(functrain, project, settings):
    before = tree(project)
    code, out, err = functrain("train", "tiny.yaml", "--dry-run", *settings)
    assert (code, err) == (0, "")
    assert tree(project) == before
    for text in (
        "batch       float32 [8, 2], int64 [8], float32 [8]",
        "update      loss ",
        "evaluation  loss ",
        "begin     start afresh",
        "write to  runs/tiny (new)",
        "dry run: nothing was written",
    ):
        assert text in out
    assert ("Weights & Biases" in out) == ("logging.wandb=true" in settings)


def test_a_dry_run_says_where_a_run_would_go_on(functrain, project):
    functrain("train", "tiny.yaml", "--quiet")
    before = tree(project)
    places = {
        (): "begin     train nothing: it is finished (step 6, after epoch 2)",
        ("training.epochs=3",): "begin     go on from step-00000006 (step 6, after epoch 2)",
        ("--resume", "never"): "begin     start afresh, and move the earlier run to previous-N in its directory",
        ("--resume", "step-00000003"): "begin     go on from step-00000003 (step 3, after epoch 1)",
    }
    for arguments, place in places.items():
        assert place in functrain("train", "tiny.yaml", "--dry-run", *arguments)[1], arguments
    code, _, err = functrain("train", "tiny.yaml", "--dry-run", "model.width=9")
    assert code == 2
    assert "has another model or optimizer" in err
    assert tree(project) == before


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("evaluation.watch=eval_f1", "watch must be one of"),
        ("data.name=tiny_project:bad_labels", "the loss of the first update is nan"),
        ("logging.mlflow.tags={a: 1}", "must be text"),
        ("training.overfit_batches=9", "the loader gives 3"),
    ],
)
def test_a_dry_run_finds_what_would_end_the_run(functrain, project, setting, message):
    code, _, err = functrain("train", "tiny.yaml", "--dry-run", setting)
    assert code == 2
    assert message in err
    assert not (project / "runs").exists()


def test_a_dry_run_for_a_program(functrain, project):
    code, out, _ = functrain("train", "tiny.yaml", "--dry-run", "--json")
    found = events_in(out)
    assert (code, [event["event"] for event in found]) == (0, ["start", "dry_run", "end"])
    assert found[1]["summary"]["parameters"] == 67
    assert found[1]["would"]["begin"] == "start afresh"


def test_the_summary_shows_layers_operations_and_memory(functrain, project):
    before = {name for name in os.listdir(project) if name != "__pycache__"}
    code, out, err = functrain("summary", "tiny.yaml", "training.accumulate=3")
    assert (code, err) == (0, "")
    for text in ("Sequential               [8, 3]          67", "operations  ", "parameters 268 B", "accumulation"):
        assert text in out
    assert {name for name in os.listdir(project) if name != "__pycache__"} == before
    assert functrain("summary", "tiny.yaml", "--depth", "0")[1].count("BatchNorm1d") == 0
    found = json.loads(functrain("summary", "tiny.yaml", "--json")[1])
    assert [layer["kind"] for layer in found["layers"]] == ["Sequential", "Linear", "BatchNorm1d", "Dropout", "Linear"]
    assert found["memory"]["parameters"] == 268


def test_parts_of_the_data_from_a_configuration(functrain, project):
    code, out, _ = functrain("train", "tiny.yaml", "training.limit_batches=2", "--no-progress")
    assert code == 0
    assert "4 updates, 2 an epoch (limit_batches: 2)" in out
    assert functrain("reproduce", "runs/tiny")[0] == 0
    code, out, _ = functrain("train", "tiny.yaml", "training.overfit_batches=1", "name=over", "--no-progress")
    assert code == 0
    assert "2 updates, 1 an epoch, on the same 1 batch (overfit_batches)" in out
    assert functrain("at", "runs/over", "1")[0] == 0


def test_tables_have_a_form_for_programs(functrain, runs):
    def shown(*arguments):
        code, out, err = functrain(*arguments, "--json")
        assert (code, err) == (0, ""), err
        return json.loads(out)

    run = shown("show", "runs/tiny")
    assert (run["name"], run["status"], run["best"]) == ("tiny", "finished", run["last"])
    assert [info["step"] for info in run["checkpoints"]] == [9]
    assert [record["epoch"] for record in run["records"]] == [1, 2, 3]
    checkpoint = shown("show", "runs/tiny/checkpoints/last")
    assert (checkpoint["step"], checkpoint["bytes"]["params"]) == (9, 268)
    assert checkpoint["environment"]["device"] == "cpu"
    compared = shown("compare", "runs/tiny", "runs/all", "--parameters")
    assert compared["runs"] == ["tiny", "all"]
    assert compared["metrics"]["step"] == {"tiny": 9, "all": 9}
    assert compared["configuration"]["checkpoint.keep"] == {"tiny": 1, "all": 99}
    assert compared["parameters"] == [[]]
    evaluated = shown("evaluate", "runs/tiny", "--split", "val")
    assert evaluated == json.loads((runs / "tiny/val/metrics.json").read_text())
    assert shown("list")["optimizers"][:2] == list(shown("list", "optimizers"))[:2]
    adamw = shown("list", "optimizers", "adamw")
    assert adamw["parameters"]["weight_decay"]["default"] == 0.01
