"""The model as a function: ties, hooks, modes and buffers are as in the module."""

import pytest
import torch
from torch import nn

from functrain.step.network import Network


def apply(model, *inputs, training=True, params=None):
    network = Network(model)
    params = dict(model.named_parameters()) if params is None else params
    buffers = dict(model.named_buffers())
    return network.apply(lambda net, batch: net(*batch), params, buffers, inputs, training=training)


def test_the_network_holds_no_storage():
    network = Network(nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3)))
    for net in (network._original, *(module for _, module in network.running())):
        assert all(t.is_meta for t in [*net.parameters(), *net.buffers()])


def test_buffers_come_back_as_forward_left_them_and_the_given_ones_are_not_written():
    class Counter(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("assigned", torch.zeros(2))
            self.register_buffer("added", torch.zeros(2))
            self.register_buffer("hidden", torch.zeros(2), persistent=False)

        def forward(self, x):
            self.assigned = self.assigned + x
            self.added.add_(x)
            self.hidden.copy_(x)
            return self.assigned * self.added

    model = Counter()
    given = dict(model.named_buffers())
    network = Network(model)
    out, buffers = network.apply(lambda net, x: net(x), {}, given, torch.ones(2), training=True)
    assert out.tolist() == [1.0, 1.0]
    assert {name: b.tolist() for name, b in buffers.items()} == {name: [1.0, 1.0] for name in given}
    assert all(b.eq(0).all() for b in given.values())
    assert all(b.eq(0).all() for b in model.buffers())


def test_a_buffer_under_two_names_is_one_buffer():
    class Shared(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("first", torch.zeros(()))
            self.register_buffer("second", self.first)

        def forward(self, x):
            self.first.add_(1)
            return x + self.second

    out, buffers = apply(Shared(), torch.zeros(()))
    assert out.item() == 1.0
    assert {name: b.item() for name, b in buffers.items()} == {"first": 1.0}


def test_hooks_and_in_place_activations_work_as_in_the_module():
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(inplace=True), nn.Linear(4, 2))
    model[0].register_forward_hook(lambda module, inputs, output: output * 2)
    model[2].register_forward_pre_hook(lambda module, inputs: (inputs[0] + 1,))
    x = torch.randn(5, 3)
    out, _ = apply(model, x)
    torch.testing.assert_close(out, model(x), rtol=0, atol=0)


def test_parametrizations_stay_active():
    model = torch.nn.utils.parametrizations.weight_norm(nn.Linear(3, 2))
    params = {name: p * 3 for name, p in model.named_parameters()}
    x = torch.randn(4, 3)
    out, _ = apply(model, x, params=params)
    direction = params["parametrizations.weight.original1"]
    weight = params["parametrizations.weight.original0"] * direction / direction.norm(dim=1, keepdim=True)
    torch.testing.assert_close(out, x @ weight.T + params["bias"])


@pytest.mark.parametrize("training", [True, False])
def test_modes_are_those_asked_for(training):
    modes = []
    model = nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.5), nn.BatchNorm1d(2).eval())
    for module in model:
        module.register_forward_hook(lambda m, i, o: modes.append(m.training))
    apply(model, torch.ones(3, 2), training=training)
    assert modes == [training, training, False]


def test_several_calls_of_the_model_in_one_objective_see_the_same_parameters():
    """A siamese objective, or one with two forward passes: the tensors stay in place for its whole duration."""
    model = nn.Linear(2, 2)
    params = {name: p * 2 for name, p in model.named_parameters()}
    network = Network(model)
    (first, second), _ = network.apply(lambda net, x: (net(x), net.weight), params, {}, torch.ones(2), training=True)
    torch.testing.assert_close(first, torch.ones(2) @ second.T + params["bias"])
    assert second is params["weight"]


def test_names_of_trainable_and_frozen_parameters_are_kept_in_order():
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    model[0].bias.requires_grad_(False)
    network = Network(model)
    assert network.trainable == ("0.weight", "1.weight", "1.bias")
    assert network.frozen == ("0.bias",)


class Shared(nn.Module):
    """A parameter and a buffer that each lie in two places, the buffer replaced in one of them."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False)
        self.second.weight = self.first.weight
        self.register_buffer("seen", torch.zeros(()))
        self.first.register_buffer("also_seen", self.seen)

    def forward(self, x):
        assert self.second.weight is self.first.weight
        assert self.first.also_seen is self.seen
        self.seen = self.seen + x.sum()
        return self.second(self.first(x))


def test_a_call_is_functional_calls_ties_and_replaced_buffers_included():
    net, x = Shared(), torch.randn(3, 2)
    tensors = {"first.weight": torch.randn(2, 2), "seen": torch.ones(())}
    expected_tensors = dict(tensors)
    expected = torch.func.functional_call(net, expected_tensors, (x,))
    network = Network(net)
    args = ({"first.weight": tensors["first.weight"]}, {"seen": tensors["seen"]}, (x,))
    for _ in range(2):  # the second call finds the network as the first did
        found, buffers = network.apply(lambda model, batch: model(*batch), *args, training=True)
        assert torch.equal(found, expected)
        assert torch.equal(buffers["seen"], expected_tensors["seen"])
    assert all(t.is_meta for _, module in network.running() for t in [*module.parameters(), *module.buffers()])


def test_after_an_error_the_network_holds_no_tensors():
    network = Network(nn.Linear(2, 2))

    def fails(_model, _batch):
        raise RuntimeError("in the objective")

    with pytest.raises(RuntimeError, match="in the objective"):
        network.apply(fails, dict(nn.Linear(2, 2).named_parameters()), {}, (), training=True)
    assert all(p.is_meta for _, module in network.running() for p in module.parameters())
