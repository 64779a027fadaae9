"""Adafactor: a second moment of a row and a column instead of a matrix."""

from typing import Any

import torch

from functrain.foundation import trees
from functrain.foundation.making import remembered
from functrain.foundation.trees import Tree, node
from functrain.optim.base import Optimizer, chain, stateless, zero_count, zeros_like
from functrain.optim.checks import (
    require_length,
    require_non_negative,
    require_number,
    require_positive,
    unless_schedule,
)
from functrain.optim.foreach import aligned_leaves, foreach, sums_of_squares
from functrain.optim.masks import Mask
from functrain.optim.parts import ascend_if, decoupled_decay_if
from functrain.optim.rates import descend, require_learning_rate
from functrain.optim.schedules import Hyperparameter, Schedule, constant, rate_at, value_at

Variance = tuple[torch.Tensor, ...]


@node
class FactoredState:
    """State of `scale_by_factored_rms`."""

    count: torch.Tensor  # updates so far, int64 []
    variance: Tree  # mean squared gradients: as params, in the place of each leaf of two or more dimensions
    # its means by rows [..., n, 1] and by columns [..., 1, m], of any other a single tensor like the leaf


@remembered
def scale_by_factored_rms(beta2_decay: float = -0.8, eps: float | None = None, d: float = 1.0) -> Optimizer:
    """Divide by the root mean square of the gradients, of a matrix estimated from its rows and columns.

    Args:
        beta2_decay: the mean's decay is `1 - t^beta2_decay`, so that it remembers more and more.
        eps: least mean square of a row, and of an element its root; default: the dtype's epsilon.
        d: largest root mean square of a leaf's result, which is scaled down to it.

    References:
        Shazeer & Stern, Adafactor: Adaptive Learning Rates with Sublinear Memory Cost, ICML 2018, algorithm 4.

    Example:
        >>> transform, params = scale_by_factored_rms(), {"w": torch.zeros(2, 2)}
        >>> transform.update({"w": torch.full((2, 2), 7.0)}, transform.init(params), params)[0]
        {'w': tensor([[1., 1.], [1., 1.]])}
    """
    if eps is not None:
        require_non_negative("eps", eps)
    require_positive("d", d)
    require_number("beta2_decay", beta2_decay)
    if not beta2_decay <= 0:
        raise ValueError(f"beta2_decay must be <= 0, got {beta2_decay!r}")

    def init(params: Tree) -> FactoredState:
        return FactoredState(zero_count(params), trees.tree_map(_initial, zeros_like(params)))

    def update(updates: Tree, state: FactoredState, params: Tree) -> tuple[Tree, FactoredState]:
        spec, (grads, _) = aligned_leaves(updates=updates, params=params)
        count = state.count + 1
        weight = count.double() ** beta2_decay
        old_variances: list[Any] = spec.flatten_up_to(state.variance)
        variances = [_averaged(old, grad, weight) for old, grad in zip(old_variances, grads)]
        scaled = [_scaled(grad, new, eps) for grad, new in zip(grads, variances)]
        sizes = [(total / max(leaf.numel(), 1)).sqrt() / d for total, leaf in zip(sums_of_squares(scaled), scaled)]
        clipped = foreach("div", scaled, [size.clamp(min=1.0) for size in sizes])
        return trees.unflatten(spec, clipped), FactoredState(count, trees.unflatten(spec, variances))

    return Optimizer(init, update)


@remembered
def scale_by_parameter_rms(least: float = 1e-3) -> Optimizer:
    """Multiply each leaf's update by the root mean square of its parameter, or by `least` if that is more.

    Example:
        >>> scale_by_parameter_rms().update({"w": torch.ones(2)}, (), {"w": torch.tensor([1.0, 7.0])})[0]
        {'w': tensor([5., 5.])}
    """
    require_non_negative("least", least)

    def update(updates: Tree, params: Tree) -> Tree:
        spec, (leaves, weights) = aligned_leaves(updates=updates, params=params)
        sizes = [(total / max(leaf.numel(), 1)).sqrt() for total, leaf in zip(sums_of_squares(weights), weights)]
        return trees.unflatten(spec, foreach("mul", leaves, [size.clamp(min=least) for size in sizes]))

    return stateless(update)


@remembered
def adafactor(
    lr: Hyperparameter = 1e-2,
    beta2_decay: float = -0.8,
    eps: tuple[float | None, float] = (None, 1e-3),
    d: float = 1.0,
    weight_decay: Hyperparameter = 0.0,
    *,
    maximize: bool = False,
    weight_decay_mask: Mask | None = None,
) -> Optimizer:
    """Steps in proportion to the parameters, with the memory of a row and a column for each matrix.

        v = (1 - t^beta2_decay) v + t^beta2_decay g²    (of a matrix: outer product of row and column means)
        u = g / sqrt(v);  u /= max(1, rms(u) / d)
        p -= min(lr, 1 / sqrt(t)) max(eps[1], rms(p)) u + lr weight_decay p

    Equal to torch.optim.Adafactor. `learning_rate` gives min(lr, 1 / sqrt(t)).

    Args:
        lr: largest relative step, number >= 0 or schedule.
        beta2_decay: of the second moment's decay, <= 0.
        eps: least root mean square of a gradient (default: the dtype's epsilon) and of a parameter.
        d: largest root mean square of `u`.
        weight_decay: coefficient of the decoupled decay, >= 0 or schedule.
        maximize: ascend; the decay still shrinks.
        weight_decay_mask: which parameters decay; all by default.

    Raises:
        TypeError: an argument is of the wrong type.
        ValueError: an argument is out of range.

    References:
        Shazeer & Stern, Adafactor: Adaptive Learning Rates with Sublinear Memory Cost, ICML 2018, algorithms
        4 and 5; with torch's departures from it.

    Example:
        >>> params = {"w": torch.tensor([1.0, 1.0])}
        >>> optimizer = adafactor(0.1)
        >>> optimizer.update({"w": torch.tensor([2.0, -2.0])}, optimizer.init(params), params)[0]
        {'w': tensor([-0.1000,  0.1000])}
    """
    require_learning_rate(lr)
    unless_schedule(require_non_negative, weight_decay=weight_decay)
    require_length("eps", eps, 2, "a pair of numbers >= 0, the first of which may be None")
    for index, least in enumerate(eps):
        if least is not None or index == 1:
            require_non_negative(f"eps[{index}]", least)
    schedule = lr if callable(lr) else constant(lr)
    return chain(
        ascend_if(maximize),
        scale_by_factored_rms(beta2_decay, eps[0], d),
        scale_by_parameter_rms(eps[1]),
        decoupled_decay_if(_decay_beside(schedule, weight_decay) if weight_decay != 0 else 0.0, weight_decay_mask),
        descend(_capped(schedule)),
    )


def _capped(schedule: Schedule) -> Schedule:
    """The relative step: `min(lr, 1 / sqrt(t))`."""
    return lambda count: torch.minimum(rate_at(schedule, count), (count + 1).double().rsqrt())


def _decay_beside(schedule: Schedule, weight_decay: Hyperparameter) -> Schedule:
    """What the capped rate must be multiplied by for `lr * weight_decay`."""

    def coefficient(count: torch.Tensor) -> torch.Tensor:
        return value_at(weight_decay, count) * (rate_at(schedule, count) * (count + 1).double().sqrt()).clamp(min=1.0)

    return coefficient


def _initial(zeros: torch.Tensor) -> Variance:
    if zeros.ndim < 2:
        return (zeros,)
    return zeros.new_zeros((*zeros.shape[:-1], 1)), zeros.new_zeros((*zeros.shape[:-2], 1, zeros.shape[-1]))


def _averaged(variance: Variance, grad: torch.Tensor, weight: torch.Tensor) -> Variance:
    squares = grad * grad
    means = (squares,) if grad.ndim < 2 else (_mean(squares, -1), _mean(squares, -2))
    return tuple(old + (weight * (now - old)).to(old.dtype) for old, now in zip(variance, means))


def _mean(squares: torch.Tensor, dim: int) -> torch.Tensor:
    """Over one dimension, which stays; 0 where it is empty."""
    return squares.sum(dim=dim, keepdim=True) / max(squares.shape[dim], 1)


def _scaled(grad: torch.Tensor, variance: Variance, eps: float | None) -> torch.Tensor:
    least = torch.finfo(grad.dtype).eps if eps is None else eps
    if grad.ndim < 2:
        estimate = variance[0]
    else:
        row, column = variance
        estimate = (row * column) / _mean(row, -2).clamp(min=least)
    return estimate.clamp(min=least * least).rsqrt() * grad
