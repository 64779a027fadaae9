"""Figures of a run: the best checkpoint, what is known of updates, throughput, layers."""

import math

import matplotlib
import pytest

from functrain.evaluation import layer_statistics, panels
from functrain.evaluation.figures import curves_figure, learning_rate_schedule, training_curves
from functrain.evaluation.layers_over_epochs import heat_maps
from functrain.loop.output.timing import Timing

STEPS = [
    {"kind": "step", "epoch": 1 + (n - 1) // 20, "step": n, "samples": n, "loss": 2.0 / n, "lr": 1e-3 * n}
    | {"grad_norm": 5.0 / n, "loss_scale": 65536.0 if n < 30 else 32768.0}
    | {"grad/a/norm": 1.0 * n, "grad/b/norm": math.inf if n <= 20 else 9.0 * n}
    | {"update/a/ratio": 1e-3 * n, "activation/relu/norm": 1.0, "activation/relu/zeros": 0.0, "recall/class/3": 0.5}
    for n in range(1, 81)
]
EPOCHS = [
    {"kind": "epoch", "epoch": e, "step": 20 * e, "train_loss": 1 / e, "eval_loss": 2 / e + 0.3 * (e == 4)}
    for e in range(1, 5)
]
TIMINGS = [Timing(e, 20 * e, 640, 0.5 + e / 10) for e in range(1, 5)]


def by_label(figure):
    return {axes.get_ylabel(): axes for axes in figure.axes}


def test_the_best_checkpoint_is_marked_in_each_panel():
    plain = by_label(curves_figure(EPOCHS + STEPS, timings=TIMINGS))
    marked = by_label(curves_figure(EPOCHS + STEPS, timings=TIMINGS, best=60))
    assert list(marked) == list(plain)
    for name, axes in marked.items():
        lines = [line for line in axes.get_lines() if list(line.get_xdata()) == [60, 60]]
        assert len(lines) == 1, name
        # the mark does not change the scale
        assert axes.get_ylim() == pytest.approx(plain[name].get_ylim())
        assert axes.get_yscale() == plain[name].get_yscale()
    labels = [text.get_text() for text in marked["loss"].get_legend().get_texts()]
    assert "best checkpoint: epoch 3" in labels


def test_what_is_known_of_updates_is_drawn():
    axes = by_label(curves_figure(EPOCHS + STEPS, timings=TIMINGS))
    assert list(axes) == [
        "loss",
        "learning rate",
        "gradient norm, before clipping",
        "loss scale",
        "training throughput (examples/s)",
    ]
    rates = axes["training throughput (examples/s)"].get_lines()[0].get_ydata()
    assert list(rates) == [t.examples / t.seconds for t in TIMINGS]
    assert axes["training throughput (examples/s)"].get_ylim()[0] == 0
    assert axes["loss scale"].get_yscale() == "log"


def test_many_panels_stand_in_rows():
    records = [{"kind": "epoch", "epoch": 1, "step": 1} | {f"eval_m{i}": 0.5 for i in range(7)}]
    width, height = curves_figure(records).get_size_inches()
    assert (width, height) == (3 * 4.6, 3 * 3.9)


def test_the_learning_rate_alone(tmp_path, monkeypatch):
    monkeypatch.setitem(matplotlib.rcParams, "svg.fonttype", "none")
    text = learning_rate_schedule(EPOCHS + STEPS, tmp_path / "lr.svg", title="digits").read_text()
    assert all(f">{word}<" in text for word in ("learning rate", "step", "epoch", "digits"))
    with pytest.raises(ValueError, match="there is no learning rate to draw"):
        learning_rate_schedule(EPOCHS, tmp_path / "lr.svg")


def test_a_heat_map_has_a_row_for_each_layer_and_a_column_for_each_epoch(tmp_path):
    found = {panel.name: panel.data for panel in heat_maps(EPOCHS + STEPS)}
    assert list(found) == [
        "layers_grad_norm",
        "layers_update_ratio",
        "layers_activation_norm",
        "layers_activation_zeros",
    ]
    data = found["layers_grad_norm"]
    assert (data["layers"], data["epochs"]) == (["a", "b"], [1, 2, 3, 4])
    assert data["values"] == [[10.5, 30.5, 50.5, 70.5], [None, 9 * 30.5, 9 * 50.5, 9 * 70.5]]
    files = layer_statistics(EPOCHS + STEPS, tmp_path / "layers.png", data=tmp_path / "figures")
    assert [path.name for path in files[1:]] == [f"{name}.json" for name in found]
    for path in files[1:]:
        panels.draw(panels.read_panel(path), tmp_path / "one.svg")
    with pytest.raises(ValueError, match=r"set training.statistics to 'module' or 'parameter'"):
        layer_statistics(EPOCHS, tmp_path / "layers.png")


def test_an_epoch_without_a_record_is_an_empty_column():
    records = [{"kind": "step", "epoch": e, "step": e, "grad/a/norm": 1.0} for e in (2, 5)]
    assert heat_maps(records)[0].data["values"] == [[1.0, None, None, 1.0]]


def test_hundreds_of_layers_are_drawn(tmp_path):
    records = [{"kind": "step", "epoch": 1, "step": 1} | {f"grad/block.{i}/norm": 10.0**-i for i in range(300)}]
    assert layer_statistics(records, tmp_path / "layers.png")[0].stat().st_size > 1000


def test_one_update_and_zero_times_are_drawn(tmp_path):
    training_curves(STEPS[:1], tmp_path / "a.png", timings=[Timing(1, 1, 5, 0.0)], best=1)
