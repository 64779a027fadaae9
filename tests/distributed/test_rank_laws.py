"""The law of accumulation over ranks: uneven parts on any number of them update as their concatenation in one process.

Ranks are threads here, which add up what a real collective would; real processes are in `test_replicas.py`.
"""

import dataclasses
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import functrain as ft
from functrain import optim
from functrain.foundation import trees


class Exchange:
    """What ranks that are threads add up: every one gets the same bits, as from an all-reduce."""

    def __init__(self, ranks):
        self.parts = [None] * ranks
        self.barrier = threading.Barrier(ranks, timeout=60)

    def all_gather(self, rank, parts):
        self.parts[rank] = [part.detach().clone() for part in parts]
        self.barrier.wait()
        gathered = list(zip(*self.parts, strict=True))
        self.barrier.wait()
        return gathered

    def sum(self, rank, parts):
        return [torch.stack(column).sum(0) for column in self.all_gather(rank, parts)]


@dataclasses.dataclass(frozen=True)
class Threads:
    """Every rank has the whole state."""

    exchange: Exchange
    rank: int
    ranks: int

    def gather(self, params):
        return params

    def reduce(self, grads, sums):
        summed = self.exchange.sum(self.rank, [*grads.values(), *sums])
        return dict(zip(grads, summed)), summed[len(grads) :]

    def norm(self, grads):
        return optim.global_norm(grads)

    def kept(self, leaf):
        return leaf


@dataclasses.dataclass(frozen=True)
class Shards(Threads):
    """Every rank has a part of each parameter, and so of the optimizer's state and the average (ZeRO-3)."""

    shapes: tuple

    def gather(self, params):
        shapes = dict(self.shapes)
        columns = self.exchange.all_gather(self.rank, params.values())
        whole = {name: torch.cat(parts)[: shapes[name].numel()] for name, parts in zip(params, columns)}
        return {name: leaf.view(shapes[name]) for name, leaf in whole.items()}

    def reduce(self, grads, sums):
        grads, sums = super().reduce(grads, sums)
        return {name: self.kept(grad) for name, grad in grads.items()}, sums

    def norm(self, grads):
        squares = torch.stack([grad.square().sum() for grad in grads.values()]).sum()
        return self.exchange.sum(self.rank, [squares])[0].sqrt()

    def kept(self, leaf):
        size = -(-leaf.numel() // self.ranks)
        flat = torch.zeros(size * self.ranks, dtype=leaf.dtype)
        flat[: leaf.numel()] = leaf.reshape(-1)
        return flat[self.rank * size : (self.rank + 1) * size].clone()


def at_once(core, state, batch, *, key, device):
    """A runner without the lock of `eager`, under which threads that wait for each other would wait for ever."""
    return core.fn(state, batch)


def initial(name, accumulate, **options):
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3))
    optimizer = optim.REGISTRY[name](0.01)
    objective = ft.classification(label_smoothing=0.1, class_weights=(1.0, 0.5, 2.0))
    return ft.init_state(
        model, objective, optimizer, precision="fp64", accumulate=accumulate, ema_decay=0.5, clip_norm=0.1, **options
    )


def on_ranks(name, columns, kind=Threads, **options):
    """The state of every rank after a window, its collectives, and the metrics; `columns[rank]` its micro-batches."""
    exchange = Exchange(len(columns))

    def replica(rank):
        state = initial(name, len(columns[rank]), **options)
        shapes = tuple((name, leaf.shape) for name, leaf in state.params.items())
        collectives = kind(exchange, rank, len(columns), *([shapes] if kind is Shards else []))
        state = state.replace(recipe=dataclasses.replace(state.recipe, collectives=collectives))
        # The leaves that are like the parameters; the others have no elements or one.
        kept = trees.tree_map(
            lambda leaf: collectives.kept(leaf) if isinstance(leaf, torch.Tensor) and leaf.ndim else leaf,
            {field: getattr(state, field) for field in ("params", "opt_state", "ema")},
        )
        grads = state.accumulator and {name: collectives.kept(grad) for name, grad in state.accumulator.grads.items()}
        window = state.accumulator and dataclasses.replace(state.accumulator, grads=grads)
        return state.replace(**kept, accumulator=window)

    def train(state):
        for batch in columns[state.recipe.collectives.rank]:
            state, metrics = ft.train_step(state, batch, run=at_once)
        return state, metrics

    replicas = [replica(rank) for rank in range(len(columns))]
    with ThreadPoolExecutor(len(columns)) as threads:
        return list(threads.map(train, replicas))


@st.composite
def parts(draw):
    """Micro-batches by rank: uneven, weighted, with ignored labels; some weigh nothing, but not all."""
    ranks, window = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))

    def micro_batch():
        size = draw(st.integers(1, 4))
        weights = draw(st.lists(st.sampled_from([0.0, 0.25, 1.0, 3.0]), min_size=size, max_size=size))
        labels = torch.randint(3, (size,), generator=generator)
        labels[torch.rand(size, generator=generator) < 0.2] = -100
        inputs = torch.randn(size, 4, generator=generator, dtype=torch.float64)
        return [inputs, labels, torch.tensor(weights, dtype=torch.float64)]

    columns = [[micro_batch() for _ in range(window)] for _ in range(ranks)]
    columns[-1][-1][1][0], columns[-1][-1][2][0] = 1, 1.0
    return columns


def concatenation(columns):
    return tuple(torch.cat(column) for column in zip(*(batch for rank in columns for batch in rank), strict=True))


def relative_difference(left, right):
    found = 0.0
    for a, b in zip(trees.tensors(left), trees.tensors(right), strict=True):
        if a.numel():
            found = max(found, ((a - b).abs().max() / b.abs().max().clamp(min=1e-300)).item())
    return found


@given(parts(), st.sampled_from(sorted(optim.REGISTRY)))
@settings(max_examples=25)
def test_the_update_of_uneven_parts_on_ranks_is_that_of_their_concatenation(columns, name):
    states = on_ranks(name, columns)
    whole, metrics = ft.train_step(initial(name, 1), concatenation(columns))
    for state, seen in states:
        # As in one process: an optimizer divides by roots of squares that may be near 0. Muon iterates in bfloat16.
        tolerance = 2.0**-7 if name == "muon" else 1e-9
        assert relative_difference((state.params, state.ema.params), (whole.params, whole.ema.params)) < tolerance
        torch.testing.assert_close(seen["loss"], metrics["loss"], rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(seen["grad_norm"], metrics["grad_norm"], rtol=1e-12, atol=1e-12)


@given(parts(), st.data())
@settings(max_examples=10)
def test_what_is_not_finite_on_one_rank_is_refused_by_all(bits, columns, data):
    bad = data.draw(st.sampled_from(columns))
    batch = data.draw(st.sampled_from(bad))
    batch[0][0], batch[1][0], batch[2][0] = float("nan"), 0, 1.0
    before = initial("adamw", len(columns[0]), loss_scale=ft.LossScaling(init_scale=8.0))
    for state, metrics in on_ranks("adamw", columns, loss_scale=ft.LossScaling(init_scale=8.0)):
        assert metrics["skipped"]
        assert state.loss_scale.scale == 4.0
        kept = ("params", "opt_state", "ema")
        assert bits([getattr(state, field) for field in kept]) == bits([getattr(before, field) for field in kept])


@given(parts())
@settings(max_examples=15)
def test_sharded_states_update_as_whole_ones_without_the_step_knowing(columns):
    """adamw computes each element by itself, so a part of its state is the state of a part."""
    states = on_ranks("adamw", columns, Shards)
    whole, metrics = ft.train_step(initial("adamw", 1), concatenation(columns))

    def gathered(field):
        parts = [getattr(state, field) if field == "params" else state.ema.params for state, _ in states]
        joined = {name: torch.cat([part[name] for part in parts]) for name in whole.params}
        return {name: joined[name][: leaf.numel()].view(leaf.shape) for name, leaf in whole.params.items()}

    assert relative_difference((gathered("params"), gathered("ema")), (whole.params, whole.ema.params)) < 1e-9
    for _, seen in states:
        torch.testing.assert_close(seen["loss"], metrics["loss"], rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(seen["grad_norm"], metrics["grad_norm"], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("ranks", [2, 3])
def test_every_rank_has_the_same_bits(ranks, bits):
    generator = torch.Generator().manual_seed(3)
    columns = [
        [(torch.randn(rank + 1, 4, generator=generator, dtype=torch.float64), torch.zeros(rank + 1, dtype=torch.int64))]
        for rank in range(ranks)
    ]
    first, *others = (bits((state.params, state.opt_state, state.ema)) for state, _ in on_ranks("adamw", columns))
    assert all(other == first for other in others)
