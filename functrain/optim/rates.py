"""The learning rate: applied, scheduled, reduced and read."""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import optree
import torch

from functrain.foundation import trees
from functrain.foundation.making import remembered
from functrain.foundation.numbers import is_number
from functrain.foundation.trees import Tree, node
from functrain.optim.base import Optimizer, zero_count
from functrain.optim.checks import require_non_negative
from functrain.optim.foreach import foreach, overwrite
from functrain.optim.schedules import Hyperparameter, constant, rate_at


@node
class LearningRateState:
    """State of `scale_by_learning_rate`; the rate of the last update is `lr * reduction`."""

    count: torch.Tensor  # updates so far, int64 []
    lr: torch.Tensor  # the number, or what the schedule gave last (before the first update: first), float64 []
    reduction: torch.Tensor  # product of the reductions so far (see `reduce_learning_rate`), float64 []


def initial_rate(lr: Hyperparameter, params: Tree) -> LearningRateState:
    """The state before the first update, on the device of `params`.

    Raises:
        TypeError: `lr` is neither a number nor callable.
        ValueError: `lr` is negative or not finite.

    Example:
        >>> initial_rate(0.5, {}).lr
        tensor(0.5000, dtype=torch.float64)
    """
    require_learning_rate(lr)
    count = zero_count(params)
    first = rate_at(lr if callable(lr) else constant(lr), count)
    return LearningRateState(count=count, lr=first, reduction=torch.ones_like(first))


def next_rate(lr: Hyperparameter, state: LearningRateState) -> tuple[torch.Tensor, LearningRateState]:
    """The rate of the update that is due, float64 0-d, and the state after it.

    Example:
        >>> next_rate(lambda step: 0.1, initial_rate(1.0, {}))[0]
        tensor(0.1000, dtype=torch.float64)
    """
    base = rate_at(lr, state.count) if callable(lr) else state.lr
    return base * state.reduction, LearningRateState(state.count + 1, base, state.reduction)


@remembered
def scale_by_learning_rate(lr: Hyperparameter) -> Optimizer:
    """Multiply the updates by minus the learning rate.

    Args:
        lr: a number >= 0, or a schedule `step -> scalar`, called with the 0-d int64 number of updates before
            this one, so the first update has `schedule(0)`. A constant is kept in the state and read from
            there: putting another tensor into `state.lr` changes it without recompiling, and a `torch.vmap`
            over stacked states sweeps it.

    Raises:
        TypeError: `lr` is neither a number nor callable.
        ValueError: `lr` is negative or not finite.

    Example:
        >>> params = {"w": torch.tensor(0.0)}
        >>> descend = scale_by_learning_rate(lambda step: 0.1 / (step + 1))
        >>> _, state = descend.update({"w": torch.tensor(1.0)}, descend.init(params), params)
        >>> updates, state = descend.update({"w": torch.tensor(1.0)}, state, params)
        >>> updates, state.count
        ({'w': tensor(-0.0500)}, tensor(2))
    """
    require_learning_rate(lr)

    def update(updates: Tree, state: LearningRateState, _params: Tree) -> tuple[Tree, LearningRateState]:
        leaves, spec = trees.flatten(updates)
        rate, new_state = next_rate(lr, state)
        return trees.unflatten(spec, foreach("mul", leaves, -rate)), new_state

    return Optimizer(lambda params: initial_rate(lr, params), update)


def descend(lr: Hyperparameter) -> Optimizer:
    """As `scale_by_learning_rate`, behind a part of the same chain that has made its updates itself and keeps none.

    Their memory is written again: a fresh result costs a write to new memory, for large leaves as much as the
    arithmetic.

    Example:
        >>> params, transform = {"w": torch.tensor(0.0)}, descend(0.5)
        >>> transform.update({"w": torch.tensor(1.0)}, transform.init(params), params)[0]
        {'w': tensor(-0.5000)}
    """
    require_learning_rate(lr)

    def update(updates: Tree, state: LearningRateState, _params: Tree) -> tuple[Tree, LearningRateState]:
        leaves, spec = trees.flatten(updates)
        rate, new_state = next_rate(lr, state)
        return trees.unflatten(spec, overwrite("mul", leaves, -rate)), new_state

    return Optimizer(lambda params: initial_rate(lr, params), update)


def require_learning_rate(lr: Any) -> None:
    """Raise unless `lr` is a finite number >= 0 or a schedule."""
    if callable(lr) and not isinstance(lr, type):
        return
    if not is_number(lr):
        kind = type(lr).__name__
        hint = ""
        if isinstance(lr, list | Iterator):
            hint = ". An optimizer takes no parameters here: init_state gives it those of the model"
        if isinstance(lr, type):
            hint = ". Schedules are functrain's own, in optim.schedules"
        raise TypeError(
            f"lr must be a number or a schedule (a function from step to scalar), got {lr!r} ({kind}){hint}"
        )
    require_non_negative("lr", lr)


def learning_rate(opt_state: Tree) -> torch.Tensor | None:
    """The learning rate of the last update, for logs: float64 0-d, or None if the state holds none.

    Of several (`optim.partition`) the first; `learning_rates` has all.

    Example:
        >>> state = scale_by_learning_rate(0.1).init({})
        >>> learning_rate(((), state)), learning_rate(())
        (tensor(0.1000, dtype=torch.float64), None)
    """
    return next(iter(learning_rates(opt_state)), None)


def learning_rates(opt_state: Tree) -> list[torch.Tensor]:
    """The learning rates of the last update, in the order of the state.

    Example:
        >>> learning_rates((scale_by_learning_rate(0.5).init({}), scale_by_learning_rate(0.25).init({})))
        [tensor(0.5000, dtype=torch.float64), tensor(0.2500, dtype=torch.float64)]
    """
    parts = optree.tree_leaves(opt_state, is_leaf=_is_rate, namespace=trees.NAMESPACE)
    return [part.lr * part.reduction for part in parts if _is_rate(part)]


def reduce_learning_rate(opt_state: Tree, factor: float, *, min_lr: float = 0.0, eps: float = 0.0) -> Tree:
    """Multiply every learning rate of a state by a factor, for good: a scheduled rate too, from then on.

    Args:
        opt_state: of any optimizer.
        factor: > 0.
        min_lr: no rate is reduced below it.
        eps: a reduction by no more than this is left out, as torch's ReduceLROnPlateau does.

    Returns:
        The new state, of the same structure.

    Raises:
        ValueError: the state has no learning rate (Rprop's), so nothing would change.

    Example:
        >>> state = reduce_learning_rate(scale_by_learning_rate(1.0).init({}), 0.1, min_lr=0.25)
        >>> learning_rate(state)
        tensor(0.2500, dtype=torch.float64)
    """
    if not learning_rates(opt_state):
        raise ValueError("the optimizer's state holds no learning rate that could be reduced")

    def reduced(state: LearningRateState) -> LearningRateState:
        old = state.lr * state.reduction
        new = (old * factor).clamp(min=min_lr)
        reduction = torch.where((old - new > eps) & (state.lr > 0), new / state.lr, state.reduction)
        return dataclasses.replace(state, reduction=reduction)

    return _map_rates(reduced, opt_state)


def _map_rates(fn: Callable[[LearningRateState], LearningRateState], opt_state: Tree) -> Tree:
    return optree.tree_map(
        lambda part: fn(part) if _is_rate(part) else part, opt_state, is_leaf=_is_rate, namespace=trees.NAMESPACE
    )


def _is_rate(part: Any) -> bool:
    return isinstance(part, LearningRateState)
