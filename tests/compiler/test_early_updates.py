"""A step that refuses nothing updates each large parameter where its gradient is known, with the same values."""

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from torch import nn
from torch.fx.experimental.proxy_tensor import make_fx

import functrain as ft
from functrain.compiler import early_updates
from functrain.compiler.early_updates import update_early

WIDTH = 512  # 1 MiB of float32
ATEN = torch.ops.aten


def step_of(order, noisy, guarded, emptied):
    """A step that writes into its weights, which the layers take in some order, one of them several times perhaps."""

    def step(weights, moments, x):
        def loss_of(leaves):
            hidden = x
            for number in order:
                hidden = torch.tanh(hidden @ leaves[number].t())
            return hidden.square().mean()

        used = sorted(set(order))
        all_grads, loss = torch.func.grad_and_value(loss_of)(weights)
        grads = [all_grads[number] for number in used]
        norm = torch.stack([grad.square().sum() for grad in grads]).sum().sqrt()
        counts = norm.isfinite() if guarded else loss > -1
        for number, grad in zip(used, grads):
            noise = torch.rand_like(grad) if noisy else 0.0
            moment = moments[number] * 0.9 + grad + noise
            kept = torch.where(counts, moment, moments[number])
            moments[number].copy_(torch.zeros(WIDTH, WIDTH) if emptied else kept)
            weights[number].copy_(torch.where(counts, weights[number] - 0.1 * moment, weights[number]))
        return loss, norm

    return step


def arguments(count):
    generator = torch.Generator().manual_seed(0)
    size = (count, WIDTH, WIDTH)
    weights, moments = (list(torch.randn(size, generator=generator).unbind()) for _ in range(2))
    return weights, moments, torch.randn(4, WIDTH, generator=generator)


def traced(order, noisy=False, guarded=False, emptied=False):
    step = step_of(order, noisy, guarded, emptied)
    graph = make_fx(torch.func.functionalize(step))(*arguments(max(order) + 1))
    for node in graph.graph.find_nodes(op="placeholder"):
        node.meta["val"] = node.meta.get("val", torch.empty(WIDTH, WIDTH))
    return graph


def results(graph, count):
    given_arguments = arguments(count)
    torch.manual_seed(7)
    return [*graph(*given_arguments), *given_arguments[0], *given_arguments[1]]


def kinds(graph):
    """The products and the writes, in order."""
    wanted = {ATEN.mm.default: "product", ATEN.copy_.default: "write"}
    return [wanted[node.target] for node in graph.graph.nodes if node.target in wanted]


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(0, 2), min_size=1, max_size=4), st.booleans(), st.booleans())
def test_values_and_writes_are_those_of_the_graph_as_it_was(order, noisy, guarded):
    graph, count = traced(order, noisy, guarded), max(order) + 1
    expected, before = results(graph, count), len(graph.graph.nodes)
    update_early(graph.graph)
    graph.graph.lint()
    graph.recompile()
    assert len(graph.graph.nodes) == before
    assert all(map(torch.equal, results(graph, count), expected))


def test_a_parameter_is_written_before_the_next_gradient_is_computed():
    graph = traced([0, 1, 2, 3])
    assert kinds(graph)[-8:] == ["write"] * 8
    update_early(graph.graph)
    # A weight's gradient, its moment; the product that reads the weight for the last time, the weight; and so on.
    assert kinds(graph) == ["product"] * 4 + ["product", "write"] * 7 + ["write"]


@pytest.mark.parametrize("emptied", [False, True])
def test_a_guarded_step_stays_as_it_is(emptied):
    """Also one that empties what it has of a window, for which no gradient is needed."""
    graph = traced([0, 1, 2], guarded=True, emptied=emptied)
    before = [node.name for node in graph.graph.nodes]
    update_early(graph.graph)
    assert [node.name for node in graph.graph.nodes] == before


def test_a_compiled_step_without_the_guard_gives_the_same_bits(monkeypatch, tmp_path):
    monkeypatch.setenv("FUNCTRAIN_CACHE_DIR", str(tmp_path))
    moved = []
    monkeypatch.setattr(early_updates, "EARLY", "moved")

    def note(graph):
        update_early(graph)
        moved.append("moved" in graph.owning_module.meta)

    monkeypatch.setattr("functrain.compiler.packages.update_early", note)
    states, batch = [], (torch.randn(4, WIDTH), torch.randint(WIDTH, (4,)))
    for refuses in (True, False):
        torch.manual_seed(1)
        net = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Tanh(), nn.Linear(WIDTH, WIDTH))
        state = ft.init_state(net, ft.classification(), ft.optim.adamw(1e-3), refuse_nonfinite=refuses)
        step = ft.compile(ft.train_step, donate=True)
        for _ in range(2):
            state, _ = step(state, batch)
        states.append(state)
    assert moved == [False, True]
    for one, other in zip(states[0].params.values(), states[1].params.values(), strict=True):
        assert torch.equal(one, other)
