"""A parameter that no loss of a window depends on gets no update, as in torch, which skips one whose grad is None."""

import dataclasses
from collections.abc import Callable
from typing import ClassVar

import pytest
import torch
from torch import nn

import functrain as ft
from functrain.checkpoint import Checkpointer
from functrain.foundation import trees
from functrain.foundation.trees import node
from functrain.step.collectives import OneProcess
from functrain.step.used import Used, depends_on, only_used


class Experts(nn.Module):
    """Each example goes to one of three experts, which alone is used for it; the last one gets none."""

    def __init__(self):
        super().__init__()
        self.experts = nn.ModuleList(nn.Linear(2, 1) for _ in range(3))

    def forward(self, x):
        choice = (x[:, 0] > 0).long()
        out = x.new_zeros(len(x), 1)
        for number, expert in enumerate(self.experts):
            rows = (choice == number).nonzero().squeeze(1)
            if len(rows):
                out = out.index_copy(0, rows, expert(x[rows]))
        return out


class ByLength(nn.Module):
    """The number of rows, which a compiled step is made for, decides which head is used."""

    def __init__(self):
        super().__init__()
        self.long, self.short, self.spare = nn.Linear(2, 1), nn.Linear(2, 1), nn.Linear(2, 1)

    def forward(self, x):
        return self.long(x) if len(x) > 2 else self.short(x)


class WithSpare(nn.Module):
    def __init__(self, spare=True):
        super().__init__()
        self.head = nn.Linear(2, 3)
        if spare:
            self.spare = nn.Linear(2, 3)

    def forward(self, x):
        return self.head(x)


def make_state(model, optimizer, **options):
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return ft.init_state(model(), ft.regression(), optimizer, precision="fp64", **options)


def rows(signs, outputs=1):
    """A batch whose rows go to the second expert (sign 1) or the first (-1)."""
    x = torch.randn(len(signs), 2, dtype=torch.float64)
    x[:, 0] = x[:, 0].abs() * torch.tensor(signs)
    return x, torch.randn(len(signs), outputs, dtype=torch.float64)


OPTIMIZERS = {
    **{name: lambda make=make: make(0.01) for name, make in ft.optim.REGISTRY.items()},
    "adamw": lambda: ft.optim.adamw(0.1, weight_decay=0.5, amsgrad=True),
    "sgd, all of it": lambda: ft.optim.sgd(0.1, momentum=0.9, weight_decay=0.5, nesterov=True),
    "from_torch": lambda: ft.optim.from_torch(torch.optim.AdamW, lr=0.1, weight_decay=0.5),
    "lookahead": lambda: ft.optim.lookahead(ft.optim.adamw(0.1, weight_decay=0.5), 2),
    "sam": lambda: ft.optim.sam(ft.optim.adamw(0.1, weight_decay=0.5)),
    "clipped": lambda: ft.optim.chain(ft.optim.clip_by_global_norm(0.1), ft.optim.adamw(0.1, weight_decay=0.5)),
    "parted": lambda: ft.optim.partition({"*.bias": ft.optim.sgd(0.1, weight_decay=0.5), "*": ft.optim.adamw(0.1)}),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_training_beside_an_unused_parameter_is_training_without_it(name, bits):
    without, state = (make_state(lambda spare=spare: WithSpare(spare), OPTIMIZERS[name]()) for spare in (False, True))
    begin = state
    for _ in range(3):
        batch = rows([1, 1, -1], outputs=3)
        without, expected = ft.train_step(without, batch)
        state, metrics = ft.train_step(state, batch)
        assert bits(metrics) == bits(expected)

    def leaves(state, *, of_the_spare):
        tree = {"params": state.params, "opt_state": state.opt_state}
        return [leaf for path, leaf in trees.leaves_with_paths(tree) if ("spare" in path) == of_the_spare]

    assert bits(leaves(state, of_the_spare=False)) == bits(leaves(without, of_the_spare=False))
    assert bits(leaves(state, of_the_spare=True)) == bits(leaves(begin, of_the_spare=True))


TORCH = {
    "sgd": (lambda: ft.optim.sgd(0.1, momentum=0.9, weight_decay=0.1), torch.optim.SGD, {"momentum": 0.9}),
    "rmsprop": (lambda: ft.optim.rmsprop(0.1, weight_decay=0.1), torch.optim.RMSprop, {}),
    "adagrad": (lambda: ft.optim.adagrad(0.1, weight_decay=0.1), torch.optim.Adagrad, {}),
    "adamw": (lambda: ft.optim.from_torch(torch.optim.AdamW, lr=0.1, weight_decay=0.1), torch.optim.AdamW, {}),
}


@pytest.mark.parametrize("name", TORCH)
@pytest.mark.parametrize("accumulate", [1, 2])
def test_experts_that_are_used_now_and_then_train_as_in_torch(name, accumulate):
    """Also with windows in which an expert is used by the first micro-batch, or the last one, alone."""
    make, reference, options = TORCH[name]
    state = make_state(Experts, make(), accumulate=accumulate, clip_norm=0.5)
    model = ft.to_module(state)
    optimizer = reference(model.parameters(), lr=0.1, weight_decay=0.1, **options)
    windows = [[[1, 1], [1]], [[1, -1], [1, 1]], [[-1], [-1, -1, -1]], [[1], [-1, -1]]]
    for window in windows:
        batches = [rows(signs) for signs in window[:accumulate]]
        for batch in batches:
            state, _ = ft.train_step(state, batch)
        optimizer.zero_grad(set_to_none=True)
        weight = sum(len(x) for x, _ in batches)
        (sum(((model(x) - y) ** 2).sum() for x, y in batches) / weight).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        optimizer.step()
    for path, expected in model.named_parameters():
        torch.testing.assert_close(state.params[path], expected.detach(), rtol=1e-12, atol=1e-12)


def test_micro_batches_with_other_experts_each_update_as_their_concatenation(difference):
    parts = [rows([1, 1]), rows([-1]), rows([1])]
    options = {"optimizer": ft.optim.adamw(0.1, weight_decay=0.5), "clip_norm": 0.5, "ema_decay": 0.9}
    state, whole = make_state(Experts, accumulate=3, **options), make_state(Experts, **options)
    begin = state.params
    for _ in range(2):
        for part in parts:
            state, _ = ft.train_step(state, part)
        whole, _ = ft.train_step(whole, tuple(map(torch.cat, zip(*parts))))
    for name in ("params", "opt_state", "ema"):
        assert difference(getattr(state, name), getattr(whole, name)) < 1e-12
    assert torch.equal(state.params["experts.2.weight"], begin["experts.2.weight"])
    assert not torch.equal(state.params["experts.0.weight"], begin["experts.0.weight"])
    assert not state.accumulator.used.any()


@pytest.mark.parametrize("lengths", [[4], [4, 2], [2, 4], [2, 2]], ids=str)
def test_compiled_programs_tell_each_other_what_they_used(lengths, difference):
    optimizer = ft.optim.adamw(0.1, weight_decay=0.5)
    state = make_state(ByLength, optimizer, accumulate=len(lengths), statistics="parameter")
    step, expected = ft.compile(ft.train_step, backend="eager"), state
    for length in lengths:
        batch = rows([1] * length)
        compiled, metrics = step(state, batch)
        expected, eager = ft.train_step(state, batch)
        assert difference(compiled, expected) < 1e-12
        assert difference(metrics, eager) < 1e-12
        state = compiled
    used = {"long": 4 in lengths, "short": 2 in lengths, "spare": False}
    begin = make_state(ByLength, optimizer).params
    for name, leaf in state.params.items():
        assert torch.equal(leaf, begin[name]) != used[name.partition(".")[0]]
        assert (metrics[f"update/{name}/norm"].item() > 0) == used[name.partition(".")[0]]


def test_a_parameter_that_any_rank_used_is_used_on_all(bits):
    state = make_state(ByLength, ft.optim.adamw(0.1, weight_decay=0.5))
    batches, sent = [rows([1] * 4), rows([1] * 2)], []

    @dataclasses.dataclass(frozen=True)
    class TwoRanks(OneProcess):
        exchange: Callable = None

        def reduce(self, grads, sums):
            summed = self.exchange([*grads.values(), *sums])
            return dict(zip(grads, summed)), summed[len(grads) :]

    def on_a_rank(batch, exchange):
        recipe = dataclasses.replace(state.recipe, collectives=TwoRanks(ranks=2, exchange=exchange))
        return ft.train_step(state.replace(recipe=recipe), batch)[0]

    for batch in batches:
        on_a_rank(batch, lambda parts: sent.append(parts) or parts)
    summed = [one + other for one, other in zip(*sent)]
    first, second = (on_a_rank(batch, lambda _: list(summed)) for batch in batches)
    assert bits((first.params, first.opt_state)) == bits((second.params, second.opt_state))
    for name in ("long", "short", "spare"):
        assert torch.equal(first.params[f"{name}.bias"], state.params[f"{name}.bias"]) == (name == "spare")


def test_under_a_vmap_over_inputs_too():
    state = make_state(WithSpare, ft.optim.adamw(0.1, weight_decay=0.5))
    x, y = rows([1, 1, 1], outputs=3)
    one, _ = ft.train_step(state, (x, y))
    many = torch.func.vmap(lambda x: ft.train_step(state, (x, y))[0].params["spare.weight"])(x.expand(2, *x.shape))
    assert torch.equal(many, state.params["spare.weight"].expand(2, 3, 2))
    assert torch.equal(one.params["spare.weight"], state.params["spare.weight"])


@node
class Before:
    window: dict


@node
class After:
    window: dict
    added_leaves: ClassVar = {("window", "used"): True}


def test_a_checkpoint_from_before_counts_all_as_used(tmp_path):
    window = make_state(ByLength, ft.optim.sgd(0.1), accumulate=2).accumulator
    with Checkpointer(tmp_path) as checkpointer:
        checkpointer.save(Before({"grads": window.grads}), step=1)
        restored = checkpointer.restore(After({"grads": window.grads, "used": window.used})).tree
    assert restored.window["used"].tolist() == [True] * 6
    assert ft.TrainState.added_leaves == {("accumulator", "used"): True}


def test_where_all_are_used_nothing_is_computed():
    after = {"count": torch.ones(()), "mean": {"a": torch.ones(2)}}
    assert only_used(Used((True,), torch.tensor([False])), ("a",), after, {}) is after


def test_a_gradient_stopped_on_its_way_is_no_use():
    a, b, c = (torch.ones(2, requires_grad=True) for _ in range(3))
    assert depends_on((a * b.detach()).sum() + 0 * c.sum(), [a, b, c]) == (True, False, True)
