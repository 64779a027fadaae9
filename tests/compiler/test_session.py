"""A model's code runs for the compiler as libraries expect it, and what it cannot have is found out early."""

import contextlib
import sys

import pytest
import torch
from torch import nn

import functrain as ft
from functrain.compiler import package_engine
from functrain.compiler.packages import Loaded
from functrain.foundation.errors import FunctrainError


class Asks(nn.Module):
    """Computes the same by a value that cannot be traced, and by a way of its own while it is compiled."""

    def forward(self, x):
        if torch.compiler.is_compiling():
            return x * x.sum()
        return x * x.sum().item()


class DrawsAndAsks(nn.Module):
    """Draws before and after what fails in the first attempt."""

    def forward(self, x):
        dropped = [nn.functional.dropout(x, 0.5) for _ in range(4)]
        if not torch.compiler.is_compiling():
            x = x * x.sum().item() / x.sum()
        return sum(dropped) + nn.functional.dropout(x, 0.5) + nn.functional.dropout(x, 0.5)


class NeedsAMask(nn.Module):
    """Leaves its mask out while it is compiled, as some libraries' models do."""

    def forward(self, x):
        mask = None if torch.compiler.is_compiling() else torch.ones_like(x)
        return x * mask[:]


@torch.compile(backend="eager")
def compiled_by_the_user(x):
    return x.sin() * x


class CallsACompiledFunction(nn.Module):
    def forward(self, x):
        return compiled_by_the_user(x)


def nested(depth):
    model = nn.Linear(4, 4)
    for _ in range(depth):
        model = nn.Sequential(model)
    return model


@pytest.mark.parametrize(
    "module",
    [Asks(), DrawsAndAsks(), NeedsAMask(), CallsACompiledFunction(), nested(150)],
    ids=["asks", "draws and asks", "needs a mask", "calls a compiled function", "150 nested modules"],
)
def test_compiled_training_is_that_of_eager_steps(module, vectors, assert_close):
    state = ft.init_state(nn.Sequential(module, nn.Linear(4, 3)), ft.classification(), ft.optim.sgd(0.1))
    limit = sys.getrecursionlimit()
    expected = ft.train_step(state, vectors())
    got = ft.compile(ft.train_step, backend="aot_eager")(state, vectors())
    assert_close(got, expected, 1e-5)
    assert sys.getrecursionlimit() == limit
    assert not torch.compiler.is_compiling()


@pytest.mark.parametrize("module", [Asks(), nested(150)], ids=["asks", "nested"])
def test_what_is_traced_so_has_a_program_that_the_next_start_finds(module, vectors, monkeypatch):
    state = ft.init_state(nn.Sequential(module, nn.Linear(4, 3)), ft.classification(), ft.optim.sgd(0.1))
    kept = []

    def keep(graph, inputs, **_):
        kept.append(Loaded(lambda tensors: list(graph(*tensors)), ""))
        return kept[0]

    monkeypatch.setattr(package_engine.backends, "kept", lambda key, device: kept[0] if kept else None)
    monkeypatch.setattr(package_engine.backends, "build", keep)
    first, _ = ft.compile(ft.train_step)(state, vectors())
    monkeypatch.setattr(package_engine, "trace", None)
    second, _ = ft.compile(ft.train_step)(state, vectors())
    torch.testing.assert_close(first.params, second.params, rtol=0, atol=0)
    torch.testing.assert_close(first.params, ft.train_step(state, vectors())[0].params)


def test_a_rank_loads_what_another_compiled_while_it_waited_for_its_turn(vectors, monkeypatch):
    state = ft.init_state(nn.Linear(4, 3), ft.classification(), ft.optim.sgd(0.1))
    kept = []

    def keep(graph, inputs, **_):
        kept.append(Loaded(lambda tensors: list(graph(*tensors)), ""))
        return kept[0]

    monkeypatch.setattr(package_engine.backends, "kept", lambda key, device: None)
    monkeypatch.setattr(package_engine.backends, "build", keep)
    first, _ = ft.compile(ft.train_step)(state, vectors())

    @contextlib.contextmanager
    def turn(key):
        monkeypatch.setattr(package_engine.backends, "kept", lambda key, device: kept[0])
        yield

    monkeypatch.setattr(package_engine, "_several_ranks", lambda: True)
    monkeypatch.setattr(package_engine.backends, "turn", turn)
    monkeypatch.setattr(package_engine, "trace", None)
    second, _ = ft.compile(ft.train_step)(state, vectors())
    assert len(kept) == 1
    torch.testing.assert_close(first.params, second.params, rtol=0, atol=0)


def test_a_missing_compiler_is_found_before_anything_is_traced(vectors, monkeypatch):
    import torch._inductor.config as config

    monkeypatch.setattr(package_engine, "trace", None)
    monkeypatch.setattr(package_engine.backends, "kept", lambda key, device: None)
    state = ft.init_state(nn.Linear(4, 3), ft.classification(), ft.optim.sgd(0.1))
    missing = config.patch({"cpp.cxx": (None, "no-such-compiler")})
    with missing, pytest.raises(FunctrainError, match=r"needs a C\+\+ compiler, and none was found.*compile=False"):
        ft.compile(ft.train_step)(state, vectors())
