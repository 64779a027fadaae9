"""`functrain explain` and `functrain curves`: from a run to files."""

import json
import shutil
from contextlib import nullcontext

import numpy as np
import pytest
import torch

FILES = ["attributions.npz", "explanation.json", "feature_importance.png", "figures", "pca_analysis.png"]


def test_explain_writes_attributions_and_embeddings(functrain, runs):
    code, out, err = functrain(
        "explain", "runs/tiny", "--examples", "7", "--gradients", "20000", "--features", "x,y", "--labels", "a,b,c"
    )
    assert (code, err) == (0, "")
    folder = runs / "tiny" / "explain"
    assert sorted(path.name for path in folder.iterdir()) == FILES
    assert "integrated_gradients of 7 examples of split test, runs/tiny, checkpoint step-" in out
    assert "completeness: attributions add up to the difference of the scores within" in out
    content = json.loads((folder / "explanation.json").read_text())
    assert len(content["examples"]) == 7
    assert content["largest_completeness"] < 1e-6
    assert content["examples"][0]["label"] in ("a", "b", "c")
    bars = json.loads((folder / "figures" / "feature_importance.json").read_text())["data"]
    assert sorted(bars["names"]) == ["x", "y"]
    first = (folder / "attributions.npz").read_bytes()
    assert functrain("explain", "runs/tiny", "--examples", "7", "--gradients", "20000", "--out", "runs/again")[0] == 0
    assert (runs / "again" / "attributions.npz").read_bytes() == first


def test_integrals_that_end_early_are_said(functrain, runs, monkeypatch):
    assert "ended before" not in functrain("explain", "runs/tiny", "--out", "runs/enough")[1]
    monkeypatch.setattr("functrain.app.runs.explain.TOLERANCES", {torch.float64: -1.0})
    _, out, _ = functrain("explain", "runs/tiny", "--out", "runs/few")
    assert "the integral of 8 of 8 examples ended before it was exact, with an estimated error of up to" in out
    assert "more --gradients make it smaller" in out


def test_what_is_being_explained_is_said_for_each_example(functrain, runs, monkeypatch):
    said = []
    monkeypatch.setattr("functrain.app.runs.explain.busy", lambda *_: nullcontext(said.append))
    assert functrain("explain", "runs/tiny", "--examples", "3", "--out", "runs/said")[0] == 0
    assert said == [f"integrated_gradients of split test: {number} of 3 examples" for number in range(3)]


@pytest.mark.parametrize("method", ["saliency", "smooth_grad", "gradient_shap"])
def test_other_methods(functrain, runs, method):
    more = [] if method == "saliency" else ["--samples", "3", "--seed", "1"]
    code, out, err = functrain(
        "explain", "runs/tiny", "--method", method, "--target", "1", "--ema", "--out", "e", "--format", "svg", *more
    )
    assert (code, err) == (0, "")
    with np.load(runs.parent / "e" / "attributions.npz") as stored:
        assert stored["attributions/input"].shape == (8, 2)
        assert set(stored["target"].tolist()) == {1}
    assert (runs.parent / "e" / "feature_importance.svg").is_file()
    assert ("completeness" in out) == (method == "gradient_shap")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["runs/nope"], "there is no run directory runs/nope"),
        (["runs/tiny", "--target", "9"], "the model has the outputs 0 to 2; target=9 is none of them"),
        (["runs/tiny", "--samples", "9"], "integrated_gradients takes no samples"),
        (["runs/tiny", "--features", "a"], "there are 2 features, but 1 names: a"),
        (["runs/tiny", "--layout", "image"], "are no image"),
        (["runs/tiny", "--layer", "nope"], "the model has no layer 'nope'; it has"),
        (["runs/tiny", "--checkpoint", "nope"], "nope"),
        (["runs/tiny", "--out", "tiny.yaml/x"], "tiny.yaml is a file; choose another one with --out"),
        (["runs/tiny", "--examples", "0"], "must be a whole number, 1 or more"),
    ],
)
def test_wrong_input_is_one_message(functrain, runs, arguments, message):
    code, _, err = functrain("explain", *arguments)
    assert code == 2
    assert message in err
    assert "Traceback" not in err


def test_curves_are_drawn_from_the_log_alone(functrain, runs):
    for kind in ("png", "svg"):
        code, out, err = functrain("curves", "runs/all", "--out", "figures", "--format", kind)
        assert (code, err) == (0, "")
        for name in ("training_curves", "lr_schedule"):
            assert f"written: figures/{name}.{kind}" in out
            assert (runs.parent / "figures" / f"{name}.{kind}").stat().st_size > 1000
    assert "layer_statistics" not in out
    shutil.rmtree(runs / "all" / "checkpoints")  # as of a script's run, or of one that has saved nothing yet
    assert functrain("curves", "runs/all", "--format", "png", "svg")[0] == 0
    assert (runs / "all" / "training_curves.svg").is_file()


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("runs/nope", "runs/nope is no run with a log: there is no such directory"),
        ("runs", "runs is no run with a log: it holds no metrics.jsonl"),
        ("tiny.yaml", "tiny.yaml is no run with a log: it is a file"),
    ],
)
def test_curves_of_no_run(functrain, runs, path, message):
    code, _, err = functrain("curves", path)
    assert (code, err) == (2, f"functrain: error: {message}\n")


def test_a_run_that_logs_statistics_gets_their_heat_maps(functrain, project):
    settings = ["training.statistics=module", "training.activations=true", "training.epochs=1"]
    code, out, _ = functrain("train", "tiny.yaml", "--no-progress", *settings)
    assert code == 0
    assert (project / "runs" / "tiny" / "layer_statistics.png").is_file()
    assert "layer_statistics.png" in out
