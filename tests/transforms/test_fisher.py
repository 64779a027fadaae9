"""The Fisher diagonal: squares of single gradients, and their expectation under the model."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transform_helpers import flat, make_batches, make_state

import functrain as ft
from functrain.transforms.fisher import drawn_batch
from functrain.transforms.per_sample import evaluated_gradients


def squares(state: Any, batches: list[tuple[Tensor, Tensor]]) -> Tensor:
    """The mean of squared gradients, of batches of one through the module itself."""
    module, rows = ft.to_module(state).eval(), []
    for inputs, labels in batches:
        for x, y in zip(inputs, labels):
            loss = F.cross_entropy(module(x[None]), y[None])
            grads = torch.autograd.grad(loss, [module.get_parameter(n) for n in state.recipe.network.trainable])
            rows.append(torch.cat([grad.flatten() for grad in grads]).square())
    return torch.stack(rows).mean(0)


@pytest.mark.parametrize("chunk_size", [None, 1])
@pytest.mark.parametrize("network", ["mlp", "batch norm", "attention", "partly frozen"])
def test_with_the_labels_of_the_data_it_is_the_mean_of_squared_gradients(network: str, chunk_size: int | None) -> None:
    state, batches = make_state(network), make_batches(4, 3)
    found = ft.transforms.fisher_diagonal(state, batches, labels="data", chunk_size=chunk_size)
    torch.testing.assert_close(flat(found), squares(state, batches), rtol=1e-12, atol=1e-15)


def test_with_drawn_labels_its_mean_is_the_expectation_under_the_model() -> None:
    state, [(inputs, labels)] = make_state("batch norm"), make_batches(5)
    chances = ft.to_module(state).eval()(inputs).softmax(1).detach()
    each = [evaluated_gradients(state, (inputs, torch.full_like(labels, c))) for c in range(3)]
    square = torch.stack([torch.cat([g.flatten(1) for g in grads.values()], 1).square() for grads in each], 1)
    expected = (square * chances[:, :, None]).sum(1)
    variance = ((square - expected[:, None]).square() * chances[:, :, None]).sum(1)
    draws = 300
    found = flat(ft.transforms.fisher_diagonal(state, [(inputs, labels)], draws=draws))
    error = (variance.sum(0) / draws).sqrt() / len(inputs)
    assert ((found - expected.mean(0)).abs() < 5 * error + 1e-12).all()
    assert not torch.allclose(found, squares(state, [(inputs, labels)]), rtol=0.2)


def test_draws_follow_from_the_seed_alone() -> None:
    state, batches = make_state(), make_batches(6)
    first, again, other = (flat(ft.transforms.fisher_diagonal(state, batches, seed=seed)) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("form", ["tuple", "weighted", "mapping", "labels"])
def test_labels_are_drawn_in_every_form_of_a_batch_and_ignored_ones_stay(form: str) -> None:
    torch.manual_seed(0)
    state, [(inputs, _)] = make_state("partly frozen"), make_batches(50)
    labels = torch.tensor([-100, 0] * 25)
    batches = {
        "tuple": (inputs, labels),
        "weighted": (inputs, labels, torch.ones(50)),
        "mapping": {"inputs": inputs, "targets": labels},
        "labels": {"input": inputs, "labels": labels},
    }
    batch = drawn_batch(state, batches[form])
    drawn = batch[1] if isinstance(batch, tuple) else batch["labels" if form == "labels" else "targets"]
    assert (drawn[::2] == -100).all()
    assert set(drawn[1::2].tolist()) == {0, 1, 2}
    found = ft.transforms.fisher_diagonal(state, [batches[form]])
    counted = ft.transforms.fisher_diagonal(state, [(inputs[1::2], labels[1::2])], labels="data")
    assert flat(found).shape == flat(counted).shape


def test_binary_labels_are_drawn_with_the_models_probability() -> None:
    state = make_state(nn.Linear(4, 1), ft.binary_classification())
    inputs = torch.ones(4000, 4).double()
    _, drawn = drawn_batch(state, (inputs, torch.zeros(4000, 1).double()))
    chance = ft.to_module(state)(inputs[:1]).sigmoid().item()
    assert drawn.mean().item() == pytest.approx(chance, abs=5 * (chance * (1 - chance) / 4000) ** 0.5)


def test_other_tasks_are_refused() -> None:
    state = make_state(nn.Linear(4, 1), ft.regression())
    batch = (torch.ones(2, 4), torch.zeros(2, 1))
    with pytest.raises(ValueError, match=r"labels='model' draws labels of .* 'regression'. Take labels='data'"):
        ft.transforms.fisher_diagonal(state, [batch])
    assert ft.transforms.fisher_diagonal(state, [batch], labels="data")["weight"].shape == (1, 4)
    with pytest.raises(ValueError, match="labels must be one of data, model"):
        ft.transforms.fisher_diagonal(state, [batch], labels="true")
