"""A graph is brought to the form that inductor takes: the same values, and written in place at its end only."""

import importlib

import pytest
import torch
from torch import nn
from torch._subclasses import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx

import functrain as ft
from functrain.compiler import backends
from functrain.compiler.decompositions import inductors_table, is_ready, made_ready, writes_at_the_end_only
from functrain.compiler.store import Store


@pytest.fixture(scope="module")
def table():
    with inductors_table({"fallback_random": True}) as found:
        yield found


def traced(fn, table, *tensors):
    with FakeTensorMode() as mode, torch.no_grad():
        return make_fx(fn, table, tracing_mode="fake")(*map(mode.from_tensor, tensors))


def plain(x, y):
    new = x + y
    x.copy_(new)
    return [new.sum()]


def within(x, y):
    new = (x + y).relu_().mul_(2.0)
    new[0].add_(1.0)
    x.copy_(new)
    return [new.sum()]


def broken_down(x, y):
    normal = nn.functional.layer_norm(x, x.shape[-1:])
    return [nn.functional.gelu(normal) + y.clamp_(0.0)]


def swapped(x, y):
    before = x.clone()
    x.copy_(y)
    y.copy_(before)
    return [x.sum()]


@pytest.mark.parametrize("fn", [plain, within, broken_down, swapped])
def test_a_graph_that_was_made_ready_computes_the_same(fn, table):
    tensors = torch.randn(3, 4, dtype=torch.float64), torch.randn(3, 4, dtype=torch.float64)
    found, expected = [t.clone() for t in tensors], [t.clone() for t in tensors]
    ready = made_ready(traced(fn, table, *tensors), table)
    assert is_ready(ready)
    assert writes_at_the_end_only(ready.graph)
    for ours, theirs in zip([*ready(*found), *found], [*fn(*expected), *expected], strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-14)  # sums of 12 numbers of size 1


def test_what_was_written_in_place_is_broken_down_too(table):
    ready = made_ready(traced(broken_down, table, torch.ones(3, 4), torch.ones(3, 4)), table)
    assert not ready.graph.find_nodes(op="call_function", target=torch.ops.aten.clamp.default)


def seen_after_the_copy(x, y):
    x.copy_(y + 1)
    return [x * 2]


def returned(x, y):
    x.copy_(y + 1)
    return [x]


def returned_as_a_view(x, y):
    view = x.t()
    x.copy_(y + 1)
    return [view]


def one_input_into_another(x, y):
    x.copy_(y + 1)
    y.copy_(x)
    return []


@pytest.mark.parametrize("fn", [within, seen_after_the_copy, returned, returned_as_a_view, one_input_into_another])
def test_what_a_write_may_be_seen_by_is_found(fn):
    assert not writes_at_the_end_only(make_fx(fn)(torch.ones(2, 2), torch.ones(2, 2)).graph)


def test_what_writes_nothing_may_return_its_inputs():
    assert writes_at_the_end_only(make_fx(lambda x, y: [x, x.t(), y + 1])(torch.ones(2, 2), torch.ones(2)).graph)


class Model(nn.Module):
    """With operations in place, a count in a buffer, dropout, and a normalization that inductor breaks down."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(inplace=True), nn.Dropout(0.5), nn.LayerNorm(6), nn.Linear(6, 3)
        )

    def forward(self, x):
        return self.layers(x)


@pytest.fixture
def store(tmp_path, monkeypatch):
    monkeypatch.setattr(backends, "default_store", lambda: Store(tmp_path, limit=2**30))


@pytest.mark.usefixtures("store")
def test_inductor_need_not_export_a_step(monkeypatch, vectors, assert_close):
    state = ft.init_state(Model(), ft.classification(), ft.optim.sgd(0.1, momentum=0.9), precision="fp64")
    compile_fx = importlib.import_module("torch._inductor.compile_fx")

    def refused(*_args, **_kwargs):
        raise AssertionError("the graph was exported")

    monkeypatch.setattr(compile_fx, "aot_export_module", refused)
    found, _ = ft.compile(ft.train_step)(state, vectors())
    expected, _ = ft.train_step(state, vectors())
    assert_close(found, expected)
