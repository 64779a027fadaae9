"""The model card: every number in it comes out again from the run."""

import json
import re

import torch
import yaml

from functrain.app.config.build import build_loader, build_state
from functrain.app.runs.directory import trusted_run
from functrain.data.contents import content_digest
from functrain.loop.output.log_files import read_records
from functrain.loop.output.progress_line import exact


def _table(text, title):
    """The rows below a title, by their first cell."""
    part = text.partition(f"## {title}\n")[2].partition("\n## ")[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in part.splitlines() if line[:1] == "|"]
    return {row[0]: dict(zip(rows[0][1:], row[1:])) for row in rows[2:]}


def test_every_number_of_the_card_is_the_runs(functrain, runs):
    text = (runs / "tiny" / "README.md").read_text()
    run, config = trusted_run(runs / "tiny", trust=False)
    state = build_state(config, None)
    assert f"with {sum(p.numel() for p in state.params.values())} parameters." in text
    data = _table(text, "Data")
    for split, name in (("train", "training"), ("val", "validation"), ("test", "test")):
        dataset = build_loader(config, split, training=split == "train").dataset
        assert data[name] == {"examples": f"{len(dataset):,}", "digest of the contents": content_digest(dataset)}
    shown = yaml.safe_load(text.partition("```yaml\n")[2].partition("```")[0])
    recorded = yaml.safe_load(run.config_file.read_text())
    assert shown == {name: recorded[name] for name in ("model", "data", "objective", "optimizer", "training")}
    metrics = _table(text, "Metrics")
    last = [record for record in read_records(run.path / "metrics.jsonl") if record["kind"] == "epoch"][-1]
    for row, prefix in (("train", "train_"), ("val", "eval_"), ("val (EMA)", "ema_")):
        expected = {key.removeprefix(prefix): exact(last[key]) for key in last if key.startswith(prefix)}
        assert metrics[row] == expected
    assert functrain("evaluate", "runs/tiny")[0] == 0
    again = json.loads((run.path / "test" / "metrics.json").read_text())
    assert metrics["test"] == {name: exact(again[name]) for name in ("loss", "accuracy")}
    assert metrics["test (EMA)"] == {name: exact(again[f"ema_{name}"]) for name in ("loss", "accuracy")}
    assert f"After {last['epoch']} epochs and {last['step']} updates; checkpoint `{again['checkpoint']}`." in text
    assert f"The metrics are of {data['test']['examples']} examples" in text
    assert f"torch {torch.__version__} on cpu" in text
    assert f"Seed {config.seed}." in text


def test_the_card_says_how_to_load_the_run(functrain, runs):
    text = (runs / "tiny" / "README.md").read_text()
    commands = re.findall(r"^functrain (.*)$", text, re.MULTILINE)
    assert [command.split()[0] for command in commands] == ["evaluate", "export", "export", "reproduce"]
    for command in commands[:3]:
        assert functrain(*command.split())[0] == 0
    names = {"loader": iter([torch.zeros(4, 2)])}
    exec(text.partition("```python\n")[2].partition("```")[0], names)
    assert names["outputs"].shape == (4, 3)


def test_a_card_that_somebody_has_edited_stays(functrain, runs):
    card = runs / "tiny" / "README.md"
    card.write_text("my own words\n")
    code, out, _ = functrain("train", "runs/tiny/config.yaml", "--run-dir", "runs/tiny", "--no-progress")
    assert (code, "README.md" in out, card.read_text()) == (0, False, "my own words\n")
    card.unlink()
    code, out, _ = functrain("train", "runs/tiny/config.yaml", "--run-dir", "runs/tiny", "--no-progress")
    assert (code, "README.md" in out, card.read_text().startswith("<!-- functrain")) == (0, True, True)
