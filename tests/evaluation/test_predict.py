import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import functrain as ft
from functrain.compiler import CompilingRunner
from functrain.data import Arrays, Loader
from functrain.evaluation import predict, predict_with_targets, prediction
from functrain.foundation.errors import DataError

INPUTS = torch.randn(11, 3, generator=torch.Generator().manual_seed(1))
TARGETS = torch.arange(11)


class TwoHeads(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.Dropout(0.5))
        self.head = nn.Linear(8, 2)

    def forward(self, x, scale=None):
        hidden = self.body(x if scale is None else x * scale)
        return {"logits": self.head(hidden), "embedding": hidden}


def state_of(model, **options):
    torch.manual_seed(0)
    return ft.init_state(model, ft.regression(), ft.optim.sgd(0.1), **options)


@given(batch_size=st.integers(1, 13))
@settings(max_examples=10, deadline=None)
def test_outputs_are_those_of_the_module_in_evaluation_mode_in_order(batch_size):
    state = state_of(TwoHeads(), precision="fp64")
    found = predict(state, Loader(Arrays(INPUTS, TARGETS), batch_size, shuffle=False))
    expected = ft.to_module(state).eval()(INPUTS.double())
    for name in ("logits", "embedding"):
        assert found[name].shape == expected[name].shape
        assert torch.allclose(found[name], expected[name], rtol=1e-12, atol=1e-13)
        assert not found[name].requires_grad


@pytest.mark.parametrize(
    "batch",
    [
        INPUTS,
        (INPUTS,),
        [INPUTS],
        (INPUTS, TARGETS),
        (INPUTS, TARGETS, torch.ones(11)),
        {"inputs": INPUTS, "targets": TARGETS},
        {"inputs": INPUTS},
        {"x": INPUTS, "scale": torch.ones(11, 1)},
        {"inputs": (INPUTS, torch.ones(11, 1))},
        (INPUTS.numpy(), TARGETS.numpy()),
    ],
)
def test_takes_batches_with_and_without_targets(batch):
    state = state_of(TwoHeads())
    expected = ft.to_module(state).eval()(INPUTS)["logits"]
    assert torch.equal(predict(state, iter([batch]))["logits"], expected)


def test_compiled_padded_rows_are_removed_and_there_is_one_compilation(monkeypatch):
    runners = []

    def runner_for(_compile):
        runners.append(CompilingRunner(backend="aot_eager"))
        return runners[-1]

    monkeypatch.setattr(prediction, "runner_for", runner_for)
    state = state_of(TwoHeads())
    loader = Loader(Arrays(INPUTS, TARGETS), 4, shuffle=False)
    found, targets = predict_with_targets(state, loader, compile=True)
    assert torch.allclose(found["logits"], predict(state, loader)["logits"], rtol=1e-5, atol=1e-6)
    assert torch.equal(targets, TARGETS)
    assert dict(runners[0].compilations) == {"forward": 1}


def test_averaged_parameters_are_used_on_request():
    state = state_of(nn.Linear(3, 1), ema_decay=0.5)
    state, _ = ft.train_step(state, (INPUTS, torch.ones(11, 1)))
    loader = Loader(Arrays(INPUTS), 4, shuffle=False)
    assert torch.equal(predict(state, loader, ema=True), predict(state.replace(params=state.ema.params), loader))
    assert not torch.equal(predict(state, loader, ema=True), predict(state, loader))


def test_outputs_come_back_in_the_parameters_precision():
    state = state_of(nn.Linear(3, 1), precision="bf16")
    assert predict(state, Loader(Arrays(INPUTS), 4)).dtype == torch.float32


def test_errors_name_the_remedy():
    state = state_of(nn.Linear(3, 1))
    with pytest.raises(DataError, match="no batch"):
        predict(state, iter([]))
    with pytest.raises(TypeError, match="needs targets"):
        predict_with_targets(state, iter([INPUTS]))
    with pytest.raises(TypeError, match="a tuple of 4"):
        predict(state, iter([(INPUTS, 1, 2, 3)]))


def test_refuses_outputs_without_a_row_for_each_example():
    class Mean(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(3, 1)

        def forward(self, x):
            return self.linear(x).mean(0)

    with pytest.raises(ValueError, match=r"a row for each of the 11 examples .* shape \[1\]"):
        predict(state_of(Mean()), iter([INPUTS]))
