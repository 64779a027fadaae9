"""Division of gradients: whose memory it may take."""

import pytest
import torch

from functrain.step.gradient import divided


def test_gradients_that_nobody_else_holds_are_divided_in_their_memory():
    grads = {"a": torch.full((4,), 3.0), "b": torch.full((2, 2), 5.0)}
    places = {name: grad.data_ptr() for name, grad in grads.items()}
    found = divided(grads, torch.tensor(2.0))
    assert {name: grad.data_ptr() for name, grad in found.items()} == places
    assert torch.equal(found["a"], torch.full((4,), 1.5))
    assert torch.equal(found["b"], torch.full((2, 2), 2.5))


def held(kind):
    tensor = torch.arange(1.0, 5.0)
    return {
        "by somebody": ({"a": tensor}, tensor),
        "by each other": ({"a": tensor, "b": tensor}, None),
        "as views of one": ({"a": tensor[:2], "b": tensor[1:]}, tensor),
        "expanded": ({"a": torch.ones(()).expand(4)}, None),
    }[kind]


@pytest.mark.parametrize("kind", ["by somebody", "by each other", "as views of one", "expanded"])
def test_memory_that_is_held_is_not_written(kind):
    grads, kept = held(kind)
    expected = {name: grad / 2 for name, grad in grads.items()}
    before = None if kept is None else kept.clone()
    found = divided(grads, torch.tensor(2.0))
    assert all(torch.equal(found[name], value) for name, value in expected.items())
    assert kept is None or torch.equal(kept, before)
