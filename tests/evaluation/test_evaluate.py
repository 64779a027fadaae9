import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import functrain as ft
from functrain.data import Arrays, Loader
from functrain.evaluation import evaluate
from functrain.foundation.errors import DataError


@pytest.fixture(scope="module")
def state():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 4))
    first = ft.init_state(model, ft.classification(), ft.optim.sgd(0.1), precision="fp64", ema_decay=0.9)
    return ft.train_step(first, (torch.randn(16, 3), torch.randint(4, (16,))))[0]


INPUTS = torch.randn(23, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
TARGETS = torch.randint(4, (23,), generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("ema", [False, True])
def test_equals_the_mean_loss_and_accuracy_of_the_ordinary_module(state, ema):
    found = evaluate(state, Loader(Arrays(INPUTS, TARGETS), 5, shuffle=False), ema=ema)
    logits = ft.to_module(state, ema=ema).eval()(INPUTS)
    assert found["loss"] == pytest.approx(nn.functional.cross_entropy(logits, TARGETS).item(), rel=1e-12)
    assert found["accuracy"] == pytest.approx((logits.argmax(1) == TARGETS).double().mean().item(), rel=1e-12)


@given(batch_size=st.integers(1, 30), shuffle=st.booleans())
@settings(max_examples=15, deadline=None)
def test_means_do_not_depend_on_how_the_examples_are_batched(state, batch_size, shuffle):
    whole = evaluate(state, Loader(Arrays(INPUTS, TARGETS), len(INPUTS)))
    parts = evaluate(state, Loader(Arrays(INPUTS, TARGETS), batch_size, shuffle=shuffle))
    assert parts == pytest.approx(whole, rel=1e-12)


def test_changes_neither_state_nor_random_generators(state):
    before, generator = {k: v.clone() for k, v in state.params.items()}, torch.get_rng_state()
    evaluate(state, Loader(Arrays(INPUTS, TARGETS), 5))
    assert all(torch.equal(before[name], state.params[name]) for name in before)
    assert torch.equal(generator, torch.get_rng_state())


def test_refuses_an_empty_loader_and_an_average_that_is_not_kept(state):
    with pytest.raises(DataError, match="no batch"):
        evaluate(state, iter([]))
    with pytest.raises(ValueError, match="keeps no moving average"):
        evaluate(state.replace(ema=None), Loader(Arrays(INPUTS, TARGETS), 5), ema=True)
