"""Statistics of gradients and updates, layer by layer, in an update's metrics; asked for or not there."""

import json

import pytest
import torch

import functrain as ft


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_an_updates_metrics_hold_what_plain_torch_finds(compiled, accumulate, everything_state, image_batch):
    step = ft.compile(ft.train_step, backend="aot_eager", donate=True) if compiled else ft.train_step
    options = {"optimizer": ft.optim.sgd(0.5), "precision": "fp64", "accumulate": accumulate}
    state = everything_state(statistics="parameter", **options)
    plain = everything_state(**options)
    for seed in range(accumulate):
        state, metrics = step(state, image_batch(seed))
        previous = plain.params
        plain, _ = ft.train_step(plain, image_batch(seed))
        assert ("grad/conv.weight/norm" in metrics) == (seed == accumulate - 1)
    names = {name for name in metrics if name.startswith(("grad/", "update/"))}
    assert len(names) == (4 + 5) * len(state.recipe.network.trainable)
    for name in set(state.recipe.network.trainable) - {"conv.bias"}:  # below BatchNorm its gradient is rounding alone
        update = plain.params[name] - previous[name]  # SGD's: the gradient is minus twice of it
        for prefix, tensor in (("grad", -2 * update), ("update", update)):
            found = {key: metrics[f"{prefix}/{name}/{key}"].item() for key in ("norm", "mean", "max", "zeros")}
            assert found["norm"] == pytest.approx(tensor.norm().item(), rel=1e-9)
            assert found["mean"] == pytest.approx(tensor.mean().item(), rel=1e-6, abs=1e-12)
            assert found["max"] == pytest.approx(tensor.abs().max().item(), rel=1e-9)
            assert found["zeros"] == pytest.approx((tensor == 0).double().mean().item(), rel=1e-12)
        weights = previous[name].norm()
        if weights > 0:
            ratio = metrics[f"update/{name}/ratio"].item()
            assert ratio == pytest.approx((update.norm() / weights).item(), rel=1e-9)


def test_they_change_no_bit_of_training_and_modules_are_layers_too(everything_state, image_batch, bits):
    plain, watched = everything_state(), everything_state(statistics="module")
    for seed in range(2):
        plain, _ = ft.train_step(plain, image_batch(seed))
        watched, metrics = ft.train_step(watched, image_batch(seed))
    assert bits(plain) == bits(watched)
    layers = {name.split("/")[1] for name in metrics if name.startswith("grad/")}
    assert layers == {"conv", "norm", "head"}


def test_they_are_in_the_step_records_and_in_no_epochs(everything_state, image_batch, tmp_path):
    state = everything_state(statistics="module", accumulate=2)
    data = [image_batch(seed) for seed in range(4)]
    result = ft.fit(state, data, epochs=1, run_dir=tmp_path, compile=False, progress=False, log_every=1)
    records = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [("grad/conv/norm" in record, "update/head/ratio" in record) for record in records] == [
        (record["kind"] == "step",) * 2 for record in records
    ]
    assert set(result.history[0]) == {"kind", "epoch", "step", "samples", "train_loss", "train_accuracy"}


def test_a_metric_may_not_bear_a_name_of_theirs():
    def objective(model, batch):
        return ft.Loss(model(batch).sum(), len(batch), {"grad/norm": (torch.ones(()), torch.ones(()))})

    state = ft.init_state(torch.nn.Linear(2, 1), objective, ft.optim.sgd(0.1))
    with pytest.raises(ValueError, match="a metric named grad/norm, a name of the step's own"):
        ft.train_step(state, torch.ones(2, 2))
    with pytest.raises(ValueError, match="statistics must be one of parameter, module, or None; got 'layer'"):
        ft.init_state(torch.nn.Linear(2, 1), objective, ft.optim.sgd(0.1), statistics="layer")
