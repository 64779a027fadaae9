import subprocess
import sys

import matplotlib
import pytest
import torch
from torch import nn

import functrain as ft
from functrain.evaluation.figures import check_figure, training_curves

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
