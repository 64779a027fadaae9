"""The files of explanations: figures are drawn from their JSON, and can be drawn again."""

import json

import numpy as np
import pytest
import torch

import functrain as ft
from functrain.evaluation import panels
from functrain.evaluation.explaining import Explanation, Observed
from functrain.evaluation.explaining.writing import layout_of


def explanation(values):
    """An explanation of made-up values `[N, ...]`, or of several inputs."""
    one = values if isinstance(values, torch.Tensor) else next(iter(values.values()))
    ones = torch.ones(len(one))
    return Explanation(
        "integrated_gradients", values, values, ones.long(), ones, ones * 0, ones * 1e-9, ones * 1e-9, ones.long()
    )


def normal(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("values", "drawn"),
    [
        (normal(7, 5), ["feature_importance"]),
        (normal(7, 90), ["band_importance"]),
        (normal(7, 4, 30), ["band_importance"]),
        (normal(7, 3, 9, 9), ["pixel_importance", "examples"]),
        (normal(1, 1, 200, 120), ["pixel_importance", "examples"]),
        (
            {"spectra": normal(7, 2, 20), "tab": normal(7, 3)},
            ["band_importance_spectra", "feature_importance_tab", "input_shares"],
        ),
    ],
)
def test_what_is_drawn_depends_on_the_inputs(tmp_path, values, drawn):
    files = ft.write_explanation(explanation(values), tmp_path, title="a run")
    assert [path.name for path in files] == [
        "explanation.json",
        "attributions.npz",
        "feature_importance.png",
        *(f"{name}.json" for name in drawn),
    ]
    content = json.loads((tmp_path / "explanation.json").read_text())
    assert content["method"] == "integrated_gradients"
    assert content["examples"][0]["completeness"] == pytest.approx(1e-9)
    read = [panels.read_panel(tmp_path / "figures" / f"{name}.json") for name in drawn]
    again = panels.draw_sheet(read, tmp_path / "again.png", "a run")
    assert again.read_bytes() == (tmp_path / "feature_importance.png").read_bytes()
    for panel in read:
        assert "<svg" in panels.draw(panel, tmp_path / "one.svg").read_text()


def test_the_arrays_are_those_of_the_explanation(tmp_path):
    values = {"spectra": normal(7, 2, 20), "tab": normal(7, 3)}
    ft.write_explanation(explanation(values), tmp_path)
    with np.load(tmp_path / "attributions.npz") as stored:
        assert sorted(stored) == [
            "attributions/spectra",
            "attributions/tab",
            "inputs/spectra",
            "inputs/tab",
            "score",
            "target",
        ]
        assert np.array_equal(stored["attributions/tab"], values["tab"].numpy())


def test_features_are_named_and_ordered(tmp_path):
    values = torch.tensor([[1.0, -3.0, 2.0], [1.0, 3.0, 2.0]])
    ft.write_explanation(explanation(values), tmp_path, names=["age", "height", "weight"], labels=["ill", "well"])
    data = json.loads((tmp_path / "figures" / "feature_importance.json").read_text())["data"]
    assert (data["names"], data["values"]) == (["height", "weight", "age"], [3.0, 2.0, 1.0])
    assert json.loads((tmp_path / "explanation.json").read_text())["examples"][0]["label"] == "well"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"names": ["a"]}, "there are 3 features, but 1 names: a"),
        ({"labels": ["a"]}, "there are 1 labels"),
        ({"layout": "image"}, r"inputs of shape \[7, 3\] are no image"),
        ({"layout": "sound"}, "layout must be one of table, spectrum, image"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_written(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        ft.write_explanation(explanation(normal(7, 3)), tmp_path / "new", **options)
    assert not (tmp_path / "new" / "explanation.json").exists()


def test_layouts_can_be_said():
    assert layout_of((9, 28, 28), None) == "spectrum"
    assert layout_of((9, 28, 28), "image") == "image"
    assert layout_of((9, 30), "spectrum") == "spectrum"


@pytest.mark.parametrize(
    ("attention", "maps"),
    [
        ({"attention_weights": normal(6, 9).softmax(-1)}, ["attention_profile"]),
        ({"attention_weights": normal(6, 4, 9).softmax(-1)}, ["attention_map"]),
        ({"attention_weights": normal(6, 2, 4, 9).softmax(-1)}, ["attention_map"] * 2),
        ({f"layer {i}": normal(6, 3, 4, 300).softmax(-1) for i in range(4)}, ["attention_map"] * 8),
    ],
)
def test_attention_is_drawn_by_head(tmp_path, attention, maps):
    files = ft.write_observed(Observed(None, "", None, attention), tmp_path)
    assert files[0].name == "attention_analysis.png"
    assert [panels.read_panel(path).kind for path in files[1:]] == [*maps, "attention_entropy"]
    data = panels.read_panel(files[-1]).data
    assert len(data["names"]) == len(set(data["names"]))
    assert all(0 < mean < 1 for mean in data["mean"])


def test_gates_are_drawn_by_feature_the_most_open_one_first(tmp_path):
    gates = {"gates features": torch.tensor([[0.1, 0.9], [0.3, 0.7]]), "gates fusion": normal(2, 30).sigmoid()}
    observed = Observed(None, "", None, {}, gates)
    files = ft.write_observed(observed, tmp_path, names=["age", "height"])
    assert [path.name for path in files] == ["gate_analysis.png", "gates_0.json", "gates_1.json"]
    few, many = (panels.read_panel(path) for path in files[1:])
    assert (few.title, few.data["names"]) == ("Gates: features", ["height", "age"])
    assert few.data["mean"] == pytest.approx([0.8, 0.2])
    assert few.data["low"] == pytest.approx([0.72, 0.12])
    assert many.data["mean"] == sorted(many.data["mean"], reverse=True)
    assert many.data["names"][0] == str(int(gates["gates fusion"].mean(0).argmax()))


@pytest.mark.parametrize(
    ("targets", "groups"),
    [
        (None, 1),
        (torch.arange(30) % 10, 10),
        (torch.arange(30), 13),  # 12 classes, and all others
        (torch.arange(30)[:, None] % 2, 2),
        (torch.ones(30), 1),  # values, no classes
    ],
)
def test_embeddings_are_drawn_by_class(tmp_path, targets, groups):
    files = ft.write_observed(Observed(normal(30, 5), "layer 2", targets, {}), tmp_path, ending=".svg")
    assert [path.name for path in files] == ["pca_analysis.svg", "pca.json", "explained_variance.json"]
    found = panels.read_panel(files[1]).data["groups"]
    assert (len(found), sum(map(len, found.values()))) == (groups, 30)


def test_embeddings_of_one_number(tmp_path):
    assert len(ft.write_observed(Observed(normal(8, 1), "", None, {}), tmp_path)) == 3
