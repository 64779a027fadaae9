"""What functrain makes of a module that torch.compile wraps, that nests deeply, or that hides parameters."""

import sys

import pytest
import torch
from torch import nn

import functrain as ft
from functrain.foundation.errors import TracingError

BATCH = (torch.randn(8, 4, generator=torch.Generator().manual_seed(2)), torch.arange(8) % 3)


class Hides(nn.Module):
    """Keeps layers, or their parameters, where torch does not look."""

    def __init__(self, where):
        super().__init__()
        self.head, layer = nn.Linear(4, 3), nn.Linear(4, 4)
        self.found = {"list": [layer], "tuple": (layer.weight,), "dict": {"in": [layer]}, "set": {layer.weight}}[where]
        self.layer = [layer]

    def forward(self, x):
        return self.head(self.layer[0](x))


@pytest.mark.parametrize("where", ["list", "tuple", "dict", "set"])
def test_parameters_that_torch_does_not_know_of_are_refused_by_name(where):
    model = nn.Sequential(nn.Tanh(), Hides(where))
    match = rf"module '1' \(Hides\) keeps parameters in its attribute 'found', a {where}, .*nn.ParameterList"
    with pytest.raises(ValueError, match=match):
        ft.init_state(model, ft.classification(), ft.optim.sgd(0.1))


def test_frozen_parameters_in_a_list_are_constants():
    model = Hides("list")
    model.layer[0].requires_grad_(False)
    state = ft.init_state(model, ft.classification(), ft.optim.sgd(0.1))
    assert sorted(state.params) == ["head.bias", "head.weight"]
    assert ft.train_step(state, BATCH)[0].step == 1


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's, about its own old parts
def test_a_module_from_torch_compile_has_the_names_of_the_module_itself():
    plain = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 3))
    wrapped = nn.Sequential(torch.compile(plain[0], backend="eager"), plain[1])
    before = list(wrapped.state_dict())
    states = [
        ft.init_state(m, ft.classification(), ft.optim.sgd(0.1)) for m in (plain, wrapped, torch.compile(wrapped))
    ]
    for state in states:
        assert list(state.params) == list(plain.state_dict())
        torch.testing.assert_close(state.params, states[0].params, rtol=0, atol=0)
        assert not any("Optimized" in type(m).__name__ for m in ft.to_module(state).modules())
    assert list(wrapped.state_dict()) == before  # the model itself is as it was


def test_a_deeply_nested_module_trains_and_becomes_a_module_again():
    model = nn.Linear(4, 3)
    for _ in range(200):
        model = nn.Sequential(model)
    limit = sys.getrecursionlimit()
    state = ft.init_state(model, ft.classification(), ft.optim.sgd(0.1))
    state, _ = ft.train_step(state, BATCH)
    assert sum(p.numel() for p in ft.to_module(state).parameters()) == 15
    assert sys.getrecursionlimit() == limit


class Grows(nn.Module):
    """Keeps the largest inputs in a buffer that has no shape before the first call, as observers of quantization do."""

    def __init__(self, in_place):
        super().__init__()
        self.head, self.in_place = nn.Linear(4, 3), in_place
        self.register_buffer("largest", torch.tensor([]))

    def forward(self, x):
        seen = x.detach().abs().amax(0)
        if self.largest.numel() == 0:
            seen = self.largest.resize_(seen.shape).copy_(seen) if self.in_place else seen
        self.largest = torch.maximum(self.largest, seen) if self.largest.numel() else seen
        return self.head(x / self.largest)


@pytest.mark.parametrize("in_place", [True, False])
def test_a_buffer_that_grows_asks_for_one_batch_first(in_place):
    model = Grows(in_place)
    state = ft.init_state(model, ft.classification(), ft.optim.sgd(0.1))
    step = ft.compile(ft.train_step, backend="eager")
    with pytest.raises(TracingError, match=r"buffer 'largest' from \[0\] to \[4\].*run one batch.*compile=False"):
        step(state, BATCH)
    eager, _ = ft.train_step(state, BATCH)
    assert eager.buffers["largest"].shape == (4,)
    model(BATCH[0])
    state = ft.init_state(model, ft.classification(), ft.optim.sgd(0.1))
    torch.testing.assert_close(step(state, BATCH)[0].params, ft.train_step(state, BATCH)[0].params)


def test_to_in_a_forward_pass_passes_the_gradient_and_leaves_the_state_in_its_precision():
    class Doubles(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = nn.Linear(4, 3)

        def forward(self, x):
            return self.head.double()(x.double()).float()

    state = ft.init_state(Doubles(), ft.classification(), ft.optim.sgd(0.1))
    plain = ft.init_state(nn.Sequential(nn.Linear(4, 3)), ft.classification(), ft.optim.sgd(0.1))
    plain = plain.replace(params={name.replace("head", "0"): p for name, p in state.params.items()})
    for _ in range(2):
        state, _ = ft.train_step(state, BATCH)
        plain, _ = ft.train_step(plain, BATCH)
    torch.testing.assert_close(state.params["head.weight"], plain.params["0.weight"], rtol=1e-5, atol=1e-6)
    assert state.params["head.weight"].dtype == torch.float32
