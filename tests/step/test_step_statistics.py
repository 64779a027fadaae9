"""Statistics of gradients, updates and activations, layer by layer, in an update's metrics; asked for or not there."""

import json

import pytest
import torch

import functrain as ft
from functrain.step.train import UPDATE

train_core = UPDATE.fn


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
    assert set(result.history[0]) == {"kind", "epoch", "step", "samples", "train_loss", "train_accuracy", "digest"}


def test_a_metric_may_not_bear_a_name_of_theirs():
    def objective(model, batch):
        return ft.Loss(model(batch).sum(), len(batch), {"grad/norm": (torch.ones(()), torch.ones(()))})

    state = ft.init_state(torch.nn.Linear(2, 1), objective, ft.optim.sgd(0.1))
    with pytest.raises(ValueError, match="a metric named grad/norm, a name of the step's own"):
        ft.train_step(state, torch.ones(2, 2))
    with pytest.raises(ValueError, match="statistics must be one of parameter, module, or None; got 'layer'"):
        ft.init_state(torch.nn.Linear(2, 1), objective, ft.optim.sgd(0.1), statistics="layer")


class Shared(torch.nn.Module):
    """One layer is called twice, an activation overwrites its input, and one module gives out two tensors."""

    def __init__(self):
        super().__init__()
        self.inner = torch.nn.Linear(3, 3)
        self.relu = torch.nn.ReLU(inplace=True)
        self.lstm = torch.nn.GRU(3, 2, batch_first=True)
        self.unused = torch.nn.Linear(1, 1)

    def forward(self, x):
        x = self.relu(self.inner(self.inner(x)))
        return self.lstm(x[:, None])[0][:, 0]


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_activations_are_what_hooks_on_a_torch_module_see_in_the_last_micro_batch(compiled, accumulate, bits):
    options = {"precision": "fp64", "accumulate": accumulate}
    model, batch = Shared(), (torch.randn(5, 3, dtype=torch.float64), torch.randn(5, 2, dtype=torch.float64))
    step = ft.compile(ft.train_step, backend="aot_eager") if compiled else ft.train_step
    state = ft.init_state(model, ft.regression(), ft.optim.sgd(0.1), activations=True, **options)
    plain = ft.init_state(model, ft.regression(), ft.optim.sgd(0.1), **options)
    reference, outputs = ft.to_module(state), {}
    for name, layer in reference.named_children():
        layer.register_forward_hook(
            lambda layer, inputs, output, name=name: outputs.setdefault(name, []).extend(
                tensor.detach().clone() for tensor in (output if isinstance(output, tuple) else (output,))
            )
        )
    reference(batch[0])
    for micro_batch in range(accumulate):
        data = batch if micro_batch == accumulate - 1 else (batch[0] + 1, batch[1])
        state, metrics = step(state, data)
        plain, plain_metrics = ft.train_step(plain, data)
        if micro_batch < accumulate - 1:
            assert metrics.keys() == plain_metrics.keys()
    assert {name.split("/")[1] for name in metrics if name.startswith("activation/")} == {"inner", "relu", "lstm"}
    for name, tensors in outputs.items():
        flat = torch.cat([tensor.flatten() for tensor in tensors])
        found = {key: metrics[f"activation/{name}/{key}"].item() for key in ("norm", "mean", "max", "zeros")}
        assert found["norm"] == pytest.approx(flat.norm().item(), rel=1e-12)
        assert found["mean"] == pytest.approx(flat.mean().item(), rel=1e-12, abs=1e-15)
        assert found["max"] == pytest.approx(flat.abs().max().item(), rel=1e-12)
        assert found["zeros"] == pytest.approx((flat == 0).double().mean().item(), rel=1e-12)
    if not compiled:
        assert bits(state.params) == bits(plain.params)
    ft.eval_step(state, batch)  # no hook stays behind, in another mode either
    assert all(not layer._forward_hooks for _, layer in state.recipe.network.running())


def test_a_model_without_modules_in_it_has_no_activations_to_show():
    state = ft.init_state(torch.nn.Linear(2, 1), ft.regression(), ft.optim.sgd(0.1), activations=True)
    with pytest.raises(ValueError, match="activations=True finds no module"):
        ft.train_step(state, (torch.ones(4, 2), torch.zeros(4, 1)))
    with pytest.raises(TypeError, match="activations must be True or False, got 'all'"):
        ft.init_state(torch.nn.Linear(2, 1), ft.regression(), ft.optim.sgd(0.1), activations="all")


def test_a_vmap_over_states_shows_the_activations_of_each():
    model = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.ReLU(), torch.nn.Linear(3, 1))
    batch = (torch.randn(4, 2), torch.randn(4, 1))

    def values(params, activations):
        state = ft.init_state(model, ft.regression(), ft.optim.sgd(0.1), activations=activations)
        new, metrics = train_core(state.replace(params=params), batch)
        return metrics["activation"].values if activations else new.params["2.bias"]

    params = dict(ft.init_state(model, ft.regression(), ft.optim.sgd(0.1)).params)
    stacked = {name: torch.stack([leaf, 2 * leaf]) for name, leaf in params.items()}
    for activations in (False, True):
        mapped = torch.vmap(lambda p, wanted=activations: values(p, wanted))(stacked)
        expected = torch.stack([values({name: leaf[i] for name, leaf in stacked.items()}, activations) for i in (0, 1)])
        torch.testing.assert_close(mapped, expected)
