"""What `functrain evaluate` and `functrain show` tell of a run."""

import json
import re

import pytest

from functrain.foundation.run_lock import RunLock
from functrain.loop.output.records import read_records


def test_evaluate_any_split_and_checkpoint(functrain, project):
    functrain("train", "tiny.yaml", "--no-progress")
    before = (project / "runs/tiny/test/metrics.json").read_bytes()
    code, out, err = functrain("evaluate", "runs/tiny")
    assert (code, err) == (0, "")
    assert before == (project / "runs/tiny/test/metrics.json").read_bytes()
    assert "runs/tiny, checkpoint step-00000006 (step 6, after epoch 2), 20 examples of split test" in out
    table = out.partition("Classes\n")[2].partition("written")[0]
    assert [line.split()[0] for line in table.splitlines() if re.search(r"\d\.\d{4}", line)] == ["0", "1", "2"]
    assert re.search(r"accuracy +0\.\d{4} +0\.\d{4} to \d\.\d{4}\n", out)
    for file in ("report.html", "report.txt", "roc.png", "scores.npz", "predictions/predictions.csv"):
        assert f"written: runs/tiny/test/{file}" in out
        assert (project / "runs/tiny/test" / file).is_file()
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


@pytest.mark.filterwarnings("default::functrain.loop.output.log_files.LogWarning")
def test_a_damaged_log_is_named_and_the_run_is_shown_all_the_same(functrain, project):
    functrain("train", "tiny.yaml", "--no-progress")
    expected = functrain("show", "runs/tiny")[1]
    run = project / "runs" / "tiny"
    for damage in (lambda log: log.replace(b'"kind"', b'"kind', 1), lambda log: b"\xff" + log):
        log = (run / "metrics.jsonl").read_bytes()
        (run / "metrics.jsonl").write_bytes(damage(log))
        code, out, err = functrain("show", "runs/tiny")
        assert (code, out) == (0, expected)
        assert "metrics.jsonl is damaged: line 1 is not JSON; metrics.csv is shown instead" in err.replace(
            "UTF-8", "JSON"
        )
    (run / "metrics.csv").unlink()
    code, out, err = functrain("show", "runs/tiny")
    assert code == 0
    assert "1 line left out" in err


def test_evaluate_each_checkpoint(functrain, project):
    functrain("train", "tiny.yaml", "--no-progress")
    code, out, err = functrain("evaluate", "runs/tiny", "--all-checkpoints", "--split", "val")
    assert (code, err) == (0, "")
    lines = (project / "runs/tiny/val/checkpoints.csv").read_text().splitlines()
    assert lines[0] == "checkpoint,step,loss,accuracy"
    epochs = [r for r in read_records(project / "runs/tiny/metrics.jsonl") if r["kind"] == "epoch"]
    assert [line.split(",")[1] for line in lines[1:]] == [str(record["step"]) for record in epochs]
    for line, record in zip(lines[1:], epochs):
        assert float(line.split(",")[2]) == pytest.approx(record["eval_loss"], rel=1e-6)
    assert "step-00000003" in out


@pytest.mark.parametrize(("options", "prefixes"), [((), ("", "ema_")), (("--ema",), ("ema_",)), (("--no-ema",), ("",))])
def test_each_checkpoint_as_json_has_the_metrics_of_its_own_evaluation(functrain, project, options, prefixes):
    functrain("train", "tiny.yaml", "--no-progress", "training.ema_decay=0.5")
    code, out, err = functrain("evaluate", "runs/tiny", "--all-checkpoints", "--json", "--split", "val", *options)
    assert (code, err) == (0, "")
    rows = json.loads(out)
    assert [row["checkpoint"] for row in rows] == ["step-00000003", "step-00000006"]
    assert [row["step"] for row in rows] == [3, 6]
    for row in rows:
        code, out, _ = functrain(
            "evaluate", "runs/tiny", "--checkpoint", row["checkpoint"], "--json", "--split", "val", *options
        )
        alone = json.loads(out)
        assert (code, alone["checkpoint"], alone["split"]) == (0, row["checkpoint"], "val")
        assert row.keys() == {"checkpoint", "step", *(f"{p}{name}" for p in prefixes for name in ("loss", "accuracy"))}
        assert all(row[name] == alone[name] for name in row if name not in ("checkpoint", "step"))
        assert alone["report_of"] == ("parameters" if options == ("--no-ema",) else "ema")


def test_a_checkpoint_that_cannot_be_read_does_not_hide_the_others(functrain, project):
    functrain("train", "tiny.yaml", "--no-progress")
    for file in (project / "runs/tiny/checkpoints/step-00000003/params").rglob("*"):
        if file.is_file():
            file.write_bytes(b"")
    code, out, err = functrain("evaluate", "runs/tiny", "--all-checkpoints")
    assert code == 2
    assert "step-00000003" in err
    assert "step-00000006" in out
    assert len((project / "runs/tiny/test/checkpoints.csv").read_text().splitlines()) == 2


def test_options_of_evaluate_that_exclude_each_other_are_refused(functrain, project):
    functrain("train", "tiny.yaml", "--no-progress")
    code, _, err = functrain("evaluate", "runs/tiny", "--all-checkpoints", "--checkpoint", "best")
    assert (code, "leave --checkpoint out" in err) == (2, True)
    code, _, err = functrain("evaluate", "runs/tiny", "--all-checkpoints", "--ema")
    assert (code, "keeps no averaged parameters" in err) == (2, True)


def test_two_evaluations_of_a_split_at_once_are_refused(functrain, project):
    functrain("train", "tiny.yaml", "--no-progress")
    with RunLock(project / "runs/tiny/test"):
        code, _, err = functrain("evaluate", "runs/tiny")
    assert (code, "another run is writing to" in err) == (2, True)
    assert functrain("evaluate", "runs/tiny")[0] == 0
    assert not [path for path in (project / "runs/tiny/test").iterdir() if path.name.startswith(".")]


def test_a_report_of_averages_needs_averages(functrain, project):
    functrain("train", "tiny.yaml", "--no-progress")
    code, _, err = functrain("evaluate", "runs/tiny", "--ema")
    assert (code, "keeps no averaged parameters" in err) == (2, True)


def test_the_report_may_be_of_either_parameters(functrain, project):
    functrain("train", "tiny.yaml", "--no-progress", "training.ema_decay=0.5")
    found = {}
    for option in ("--ema", "--no-ema"):
        assert functrain("evaluate", "runs/tiny", option)[0] == 0
        found[option] = json.loads((project / "runs/tiny/test/metrics.json").read_text())
    assert [found[option]["report_of"] for option in found] == ["ema", "parameters"]
    for option, prefix in (("--ema", "ema_"), ("--no-ema", "")):
        accuracy = found[option][f"{prefix}accuracy"]
        assert found[option]["numbers"]["accuracy"] == pytest.approx(accuracy, rel=1e-6)
