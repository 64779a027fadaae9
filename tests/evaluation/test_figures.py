import math
import subprocess
import sys

import matplotlib
import numpy as np
import pytest
import torch
from torch import nn

import functrain as ft
from functrain.evaluation import panels
from functrain.evaluation.figures import check_figure, curves_figure, learning_rate_range, training_curves, with_corners
from functrain.evaluation.panels.classes import class_scores

STEPS = [
    {"kind": "step", "epoch": 1 + n // 10, "step": n, "samples": n, "loss": 2.0 / n, "accuracy": 0.5, "lr": 1e-3 * n}
    for n in range(1, 40)
]
EPOCHS = [
    {"kind": "epoch", "epoch": e, "step": 10 * e, "train_loss": 1 / e, "train_accuracy": 1 - 1 / e}
    | ({"eval_loss": 2 / e, "eval_accuracy": 0.9} if e % 2 == 0 else {})
    for e in range(1, 5)
]


@pytest.mark.parametrize(
    "records",
    [
        STEPS + EPOCHS,
        EPOCHS,
        STEPS,
        EPOCHS[:1],
        [EPOCHS[0] | {"kind": "final"}],
        [EPOCHS[0] | {"train_loss": float("nan")}],
    ],
)
def test_draws_every_kind_of_history(tmp_path, records):
    path = training_curves(records, tmp_path / "curves.png")
    assert path.read_bytes().startswith(b"\x89PNG")
    assert [p.name for p in tmp_path.iterdir()] == ["curves.png"]


def accuracies(*values):
    return [{"kind": "epoch", "epoch": e, "step": 10 * e, "eval_accuracy": v} for e, v in enumerate(values, 1)]


@pytest.mark.parametrize(
    "values", [(0.1, 0.5, 0.9, 0.95, 0.96, 0.961, 0.962, 0.963), (0.98, 0.981, 0.979, 0.98), (0.0,)]
)
def test_the_axis_of_a_metric_shows_every_epoch_and_does_not_magnify_noise(values):
    (axes,) = [each for each in curves_figure(accuracies(*values)).axes if each.get_ylabel() == "accuracy"]
    low, high = axes.get_ylim()
    assert low < min(values) <= max(values) < high
    assert high - low >= 0.08  # a change of a few thousandths is a few hundredths of the axis' height
    assert low >= -0.03
    assert high <= 1.03


@pytest.mark.parametrize("records", [EPOCHS[:1], STEPS[:1], STEPS[9:10] + EPOCHS[:1]])
def test_a_single_point_is_seen(records):
    for axes in curves_figure(records).axes:
        lines = [line for line in axes.get_lines() if len(line.get_xdata())]
        assert lines
        assert all(line.get_marker() not in (None, "", "None") and line.get_markersize() >= 5 for line in lines)
        assert axes.get_xlim()[0] <= 0.0 < lines[0].get_xdata()[0] < axes.get_xlim()[1]


@pytest.mark.parametrize("warmup", [20, 21, 25, 31, 38])
@pytest.mark.parametrize(
    "after", [lambda s: 1.0, lambda s: 1.0 - s / 400, lambda s: 0.5 + 0.5 * math.cos(math.pi * s / 400)]
)
def test_the_corner_at_the_end_of_a_warm_up_is_where_it_is(warmup, after):
    rate = [step / warmup if step <= warmup else after(step - warmup) for step in range(401)]
    logged = range(10, 401, 10)
    x, y = with_corners(logged, [rate[step] for step in logged])
    assert x == sorted(x)
    # Exact where both sides are straight. The secant of a curve is off by f'' / 2 (d + 10) d at d steps before it.
    exact = after(100) in (1.0, 0.75)
    for step in logged[0], *range(logged[0], 400):
        assert np.interp(step, x, y) == pytest.approx(
            rate[step], abs=1e-12 if exact else (math.pi / 400) ** 2 / 4 * 200
        )


def test_a_curve_without_corners_stays_as_it_is():
    smooth = [math.cos(math.pi * step / 400) for step in range(0, 401, 10)]
    assert with_corners(range(0, 401, 10), smooth) == (list(range(0, 401, 10)), smooth)
    few = [math.cos(math.pi * step / 110) for step in range(0, 51, 10)]
    assert with_corners(range(0, 51, 10), few) == (list(range(0, 51, 10)), few)
    decay = [0.5 + 0.5 * math.cos(math.pi * step / 50) for step in range(0, 51, 10)]
    assert with_corners(range(0, 51, 10), decay) == (list(range(0, 51, 10)), decay)
    stairs = [1.0, 1.0, 1.0, 0.1, 0.1, 0.1]
    assert with_corners(range(6), stairs) == (list(range(6)), stairs)
    assert with_corners([], []) == ([], [])


def test_the_name_of_the_run_and_of_each_axis_are_written(tmp_path, monkeypatch):
    monkeypatch.setitem(matplotlib.rcParams, "svg.fonttype", "none")
    drawn = training_curves(STEPS + EPOCHS, tmp_path / "curves.svg", title="digits-7").read_text()
    for text in ("digits-7", ">loss<", ">accuracy<", ">learning rate<", ">step<", ">epoch<"):
        assert text in drawn


def test_the_two_marks_of_a_range_test_differ_without_colour(tmp_path, monkeypatch):
    figures = []
    monkeypatch.setattr("functrain.evaluation.figures.style.saved", lambda figure, path: figures.append(figure) or path)
    learning_rate_range([1e-3, 1e-2], [1.0, 0.5], [1.0, 0.5], {"suggestion": 1e-3, "minimum": 1e-2}, tmp_path / "a.png")
    shapes = [line.get_marker() for line in figures[0].axes[0].get_lines() if len(line.get_xdata()) == 1]
    assert len(shapes) == len(set(shapes)) == 2
    assert figures[0].axes[0].get_ylabel() == "loss"


def test_a_legend_covers_no_bars(tmp_path, monkeypatch):
    figures = []
    monkeypatch.setattr("functrain.evaluation.figures.style.saved", lambda figure, path: figures.append(figure) or path)
    scores = {"dice": [0.99] * 11, "iou": [0.98] * 11}
    panels.draw(class_scores("classes", "Overlap", [str(number) for number in range(11)], scores), tmp_path / "a.png")
    figures[0].draw_without_rendering()
    (axes,) = figures[0].axes
    assert axes.get_legend().get_window_extent().x0 >= axes.get_window_extent().x1


def test_draws_the_history_of_fit(tmp_path):
    state = ft.init_state(nn.Linear(2, 1), ft.regression(), ft.optim.sgd(0.1))
    batch = (torch.ones(4, 2), torch.zeros(4, 1))
    history = ft.fit(state, [batch], eval_loader=[batch], epochs=2, compile=False, progress=False).history
    assert training_curves(history, tmp_path / "curves.svg").read_text().count("validation")


@pytest.mark.parametrize(("records", "entries"), [(STEPS + EPOCHS, 2), (EPOCHS, 0)])
def test_only_what_is_drawn_is_in_a_legend(tmp_path, monkeypatch, records, entries):
    monkeypatch.setitem(matplotlib.rcParams, "svg.fonttype", "none")
    drawn = training_curves(records, tmp_path / "curves.svg").read_text()
    assert drawn.count("training, single steps") == entries  # one for the loss, one for the accuracy


def test_statistics_of_layers_get_no_panels(tmp_path, monkeypatch):
    monkeypatch.setitem(matplotlib.rcParams, "svg.fonttype", "none")
    network = nn.Sequential(nn.Linear(2, 1))
    state = ft.init_state(network, ft.regression(), ft.optim.sgd(0.1), statistics="module", activations=True)
    _, metrics = ft.train_step(state, (torch.ones(4, 2), torch.zeros(4, 1)))
    many = {name: float(value) for name, value in metrics.items() if "/" in name}
    assert {name.partition("/")[0] for name in many} == {"grad", "update", "activation"}
    plain = training_curves(STEPS, tmp_path / "plain.svg").read_text()
    drawn = training_curves([step | many for step in STEPS], tmp_path / "curves.svg").read_text()
    assert (drawn.count('id="axes_'), drawn.count("/norm")) == (plain.count('id="axes_'), 0)


def test_a_png_does_not_change_with_matplotlibs_version(tmp_path):
    for name in ("curves.png", "CURVES.PNG"):
        assert b"matplotlib" not in training_curves(EPOCHS, tmp_path / name).read_bytes()


def test_without_records_there_is_nothing_to_draw(tmp_path):
    for records in ([], [{"kind": "epoch", "epoch": 1, "step": 0}]):
        with pytest.raises(ValueError, match="no records with metrics yet"):
            training_curves(records, tmp_path / "curves.png")


def test_without_matplotlib_the_extra_is_named(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    monkeypatch.setitem(sys.modules, "matplotlib.backends.backend_agg", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'functrain\[plots\]'"):
        training_curves(EPOCHS, tmp_path / "curves.png")
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'functrain\[plots\]'"):
        check_figure(tmp_path / "curves.png")


def test_importing_evaluation_loads_neither_matplotlib_nor_scikit_learn():
    code = "import sys, functrain.evaluation; print([m for m in ('matplotlib', 'sklearn') if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "[]"
