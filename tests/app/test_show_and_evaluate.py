"""What `functrain evaluate` and `functrain show` tell of a run."""

import json
import re

import pytest

from functrain.loop.output.records import read_records


def test_evaluate_any_split_and_checkpoint(functrain, project):
    functrain("train", "tiny.yaml", "--no-progress")
    before = (project / "runs/tiny/test/metrics.json").read_bytes()
    code, out, err = functrain("evaluate", "runs/tiny")
    assert (code, err) == (0, "")
    assert before == (project / "runs/tiny/test/metrics.json").read_bytes()
    assert "runs/tiny, checkpoint step-00000006 (step 6, after epoch 2), 20 examples of split test" in out
    classes = [line.split()[0] for line in out.splitlines() if len(re.findall(r" \d\.\d{4}\b", line)) == 3]
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
