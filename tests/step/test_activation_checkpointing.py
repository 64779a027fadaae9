"""Activation checkpointing: the same bits in less memory, eagerly and in a traced graph."""

from collections import Counter
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

import functrain as ft
from functrain.compiler.layout import Layout
from functrain.compiler.trace import trace
from functrain.foundation.trees import flatten, tensors
from functrain.step.recomputation import blocks_of
from functrain.step.train import UPDATE


class Counting(nn.Module):
    """A block with a buffer of its own that its output depends on, dropout, and a tied weight."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(width, width), nn.Linear(width, width)
        self.second.weight = self.first.weight
        self.norm, self.dropout = nn.BatchNorm1d(width), nn.Dropout(0.4)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: Tensor, *, scale: float = 1.0) -> tuple[Tensor, dict[str, Any]]:
        self.calls += 1
        y = self.dropout(torch.tanh(self.first(self.norm(x)))) * self.calls
        return x + scale * self.second(torch.relu_(y)), {"note": None, "rows": len(x)}


class Net(nn.Module):
    def __init__(self, width: int = 8, blocks: int = 3) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.blocks = nn.ModuleList(Counting(width) for _ in range(blocks))
        self.head = nn.Linear(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x, _ = block(x, scale=0.5)
        return self.head(x)


BATCH = (torch.randn(16, 8, generator=torch.Generator().manual_seed(1)), torch.arange(16) % 3)


def make_state(patterns: Any = ("blocks.*",), net: nn.Module | None = None, **options: Any) -> ft.TrainState:
    options = {"precision": "fp64", "clip_norm": 0.5, "activation_checkpointing": patterns, **options}
    return ft.init_state(net or Net(), ft.classification(), ft.optim.adamw(1e-2), **options)


def assert_same_bits(left: ft.TrainState, right: ft.TrainState) -> None:
    assert ft.diff_states(left.replace(recipe=None), right.replace(recipe=None)) == []


@pytest.mark.parametrize("precision", ["fp64", "fp32", "bf16"])
@pytest.mark.parametrize("traced", [False, True], ids=["eager", "traced"])
def test_updates_have_the_bits_of_updates_without(precision: str, traced: bool) -> None:
    step = ft.compile(ft.train_step, backend="eager", donate=True) if traced else ft.train_step
    plain, checkpointed = (make_state(patterns, precision=precision) for patterns in ((), "blocks.*"))
    for _ in range(3):
        plain, one = step(plain, BATCH)
        checkpointed, other = step(checkpointed, BATCH)
        assert one["loss"].item() == other["loss"].item()
    assert_same_bits(plain, checkpointed)
    assert checkpointed.buffers["blocks.0.calls"].item() == 3


def test_in_a_window_of_accumulation_too() -> None:
    plain, checkpointed = (make_state(patterns, accumulate=2) for patterns in ((), "blocks.*"))
    for _ in range(4):
        plain, _ = ft.train_step(plain, BATCH)
        checkpointed, _ = ft.train_step(checkpointed, BATCH)
    assert_same_bits(plain, checkpointed)


class Live(TorchDispatchMode):
    """Counts operations, and the bytes that are held by their results at the most."""

    def __init__(self) -> None:
        super().__init__()
        self.ops: Counter[str] = Counter()
        self.now = self.most = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self.ops[str(func)] += 1
        for tensor in [t for t in tensors(result) if t.numel()] if not func.is_view else []:
            import weakref

            storage = tensor.untyped_storage()
            size = storage.nbytes()
            self.now += size
            weakref.finalize(storage, self._free, size)
        self.most = max(self.most, self.now)
        return result

    def _free(self, size: int) -> None:
        self.now -= size


class Deep(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.Sequential(
            *(nn.Sequential(*(m for _ in range(4) for m in (nn.Linear(8, 8), nn.Tanh()))) for _ in range(6))
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.blocks(x).sum(1)


def graph_of(state: ft.TrainState, batch: Any) -> torch.fx.GraphModule:
    state_leaves, spec = flatten(state)
    batch_leaves, batch_spec = flatten(batch)
    layouts = Layout.of(state_leaves, spec), Layout.of(batch_leaves, batch_spec)
    return trace(UPDATE, *layouts, tensors(state) + tensors(batch), donate=False).module


def test_a_graph_computes_blocks_twice_and_holds_fewer_tensors() -> None:
    batch = (torch.randn(4096, 8), torch.randn(4096))
    held: dict[bool, int] = {}
    products: dict[bool, int] = {}
    for checkpointed in (False, True):
        net = Deep()
        state = ft.init_state(
            net, ft.regression(), ft.optim.sgd(0.1), activation_checkpointing="blocks.*" if checkpointed else ()
        )
        graph = graph_of(state, batch)
        targets = [str(node.target) for node in graph.graph.nodes]
        products[checkpointed] = targets.count("aten.tanh.default")
        arguments = tensors(state) + list(batch)
        with Live() as live, torch.no_grad():
            torch.fx.Interpreter(graph).run(*arguments)
        held[checkpointed] = live.most
    # Tanh keeps its output. Without, 24 of them are held; with, the inputs of 6 blocks, and 4 in the block at hand.
    assert products == {False: 24, True: 48}
    assert held[True] < 0.65 * held[False]


def test_hooks_run_once_around_the_block_and_the_users_model_is_left_alone() -> None:
    net, calls = Net(), []
    net.blocks[1].register_forward_hook(lambda *_: calls.append("after"))
    net.blocks[1].register_forward_pre_hook(lambda *_: calls.append("before"))
    forward = net.blocks[1].forward
    state = make_state(net=net)
    new, _ = ft.train_step(state, BATCH)
    assert calls == ["before", "after"]
    assert net.blocks[1].forward == forward
    module = ft.to_module(new)
    assert "forward" not in vars(module.blocks[1])
    assert state.params["blocks.0.first.weight"].is_leaf


def test_frozen_blocks_and_blocks_whose_input_needs_no_gradient() -> None:
    states = []
    for patterns in ((), "blocks.*"):
        net = Net()
        net.blocks[0].requires_grad_(False)
        states.append(ft.train_step(make_state(patterns, net), BATCH)[0])
    assert_same_bits(*states)


def test_under_a_vmap_over_states_it_is_left_out() -> None:
    net = nn.Sequential(nn.Sequential(nn.Linear(8, 8), nn.Tanh()), nn.Linear(8, 3))
    one, two = (make_state(p, net, precision="fp32") for p in ((), "0"))
    plain, other = (
        torch.func.vmap(lambda x, state=state: ft.train_step(state, (x, BATCH[1]))[1]["loss"], randomness="different")(
            BATCH[0].expand(2, 16, 8)
        )
        for state in (one, two)
    )
    assert torch.equal(plain, other)


def test_patterns_name_the_outermost_modules_that_are_called() -> None:
    net = Net()
    assert blocks_of(net, "*") == ["blocks.0", "blocks.1", "blocks.2", "head"]
    assert blocks_of(net, ("blocks.[02]", "*.norm")) == ["blocks.0", "blocks.1.norm", "blocks.2"]
    assert blocks_of(net, ()) == []


@pytest.mark.parametrize(
    ("pattern", "hint"),
    [
        ("block.*", "did you mean 'blocks.*'"),
        ("blocks", r"did you mean 'blocks\.\*'"),
        ("blocks.1.nrm", "did you mean 'blocks.1.norm'"),
        ("zzz", "names no module that is called. The modules are blocks.0, "),
    ],
)
def test_a_pattern_that_names_nothing_is_refused_with_the_closest(pattern: str, hint: str) -> None:
    with pytest.raises(ValueError, match=hint):
        make_state(("blocks.0", pattern))
    with pytest.raises(TypeError, match="patterns"):
        make_state((3,))
    with pytest.raises(TypeError, match=r"must be patterns of module paths, such as 'blocks\.\*'; got 3"):
        make_state(3)
