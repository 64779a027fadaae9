"""19_multimodal.py: it runs, and its claim, more than 95 % of the spectra right by cross-validation."""

import importlib.util
import re
import runpy
from pathlib import Path

import pytest
import torch

import functrain as ft

EXAMPLE = Path(__file__).parents[2] / "examples" / "19_multimodal.py"
pytestmark = pytest.mark.skipif(importlib.util.find_spec("chemotools") is None, reason="needs chemotools")


def test_a_fold_trains_and_goes_on_in_its_folder(tmp_path):
    train = runpy.run_path(str(EXAMPLE), run_name="example")["train"]
    train.__globals__.update(EPOCHS=8, BANDS=40)
    state, held_out = train(0, tmp_path)
    again, _ = train(0, tmp_path)
    assert not ft.diff_states(state, again)
    outputs = ft.predict(state, held_out)
    assert outputs["logits"].shape == (12, 3)
    assert {"bands", "scans", "spec_to_tab", "tab_to_spec"} == set(outputs["attention_weights"])
    assert outputs["gates"]["features"].shape == (12, 4)
    assert torch.equal(held_out.dataset.inputs["mask"].sum(1), torch.ones(12, dtype=torch.int64))


@pytest.mark.slow
def test_more_than_95_percent_of_the_spectra_are_right(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["19_multimodal.py", str(tmp_path)])
    runpy.run_path(str(EXAMPLE), run_name="__main__")
    found = re.search(r"test accuracy ([\d.]+)%", capsys.readouterr().out)
    assert found is not None
    assert float(found[1]) > 95.0
    for name in (
        "report.html",
        "attention_analysis.png",
        "gate_analysis.png",
        "pca_analysis.png",
        "feature_importance.png",
    ):
        assert (tmp_path / name).stat().st_size > 0
