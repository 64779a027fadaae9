"""Adagrad and Adadelta: steps relative to all squared gradients so far, or to recent ones."""

import torch

from functrain.foundation import trees
from functrain.foundation.making import remembered
from functrain.foundation.trees import Tree, node
from functrain.optim.base import Optimizer, chain, zero_count, zeros_like
from functrain.optim.checks import require_fraction, require_non_negative, unless_schedule
from functrain.optim.foreach import aligned_leaves, average_squares, divide_into, foreach, overwrite
from functrain.optim.masks import Mask
from functrain.optim.parts import ascend_if, weight_decay_if
from functrain.optim.rates import descend
from functrain.optim.schedules import Hyperparameter, value_at


@node
class AdagradState:
    """State of `scale_by_adagrad`."""

    count: torch.Tensor  # updates so far, int64 []
    sum: Tree  # of squared gradients, as params


@remembered
def scale_by_adagrad(
    lr_decay: float = 0.0, initial_accumulator_value: float = 0.0, eps: Hyperparameter = 1e-10
) -> Optimizer:
    """Divide by the root of the sum of all squared gradients, and by `1 + (t - 1) lr_decay`.

    References:
        Duchi et al., Adaptive Subgradient Methods for Online Learning and Stochastic Optimization, JMLR 2011.

    Example:
        >>> adagrad, params = scale_by_adagrad(), {"w": torch.tensor(0.0)}
        >>> adagrad.update({"w": torch.tensor(-7.0)}, adagrad.init(params), params)[0]
        {'w': tensor(-1.)}
    """
    require_non_negative("lr_decay", lr_decay)
    require_non_negative("initial_accumulator_value", initial_accumulator_value)
    unless_schedule(require_non_negative, eps=eps)

    def init(params: Tree) -> AdagradState:
        sums = trees.tree_map(lambda zero: zero + initial_accumulator_value, zeros_like(params))
        return AdagradState(count=zero_count(params), sum=sums)

    def update(updates: Tree, state: AdagradState, _params: Tree) -> tuple[Tree, AdagradState]:
        spec, (grads, sums) = aligned_leaves(updates=updates, sum=state.sum)
        sums = foreach("addcmul", sums, grads, grads, value=1.0)
        denominators = overwrite("add", foreach("sqrt", sums), value_at(eps, state.count))
        directions = divide_into(denominators, grads)
        if lr_decay != 0:
            directions = overwrite("div", directions, 1 + state.count.double() * lr_decay)
        return trees.unflatten(spec, directions), AdagradState(state.count + 1, trees.unflatten(spec, sums))

    return Optimizer(init, update)


@remembered
def adagrad(
    lr: Hyperparameter = 1e-2,
    lr_decay: float = 0.0,
    weight_decay: Hyperparameter = 0.0,
    initial_accumulator_value: float = 0.0,
    eps: Hyperparameter = 1e-10,
    *,
    maximize: bool = False,
    weight_decay_mask: Mask | None = None,
) -> Optimizer:
    """Steps that shrink where gradients were large.

        g += weight_decay p;  s += g²
        p -= lr / (1 + (t - 1) lr_decay) g / (sqrt(s) + eps)

    Equal to torch.optim.Adagrad.

    Args:
        lr: learning rate, number >= 0 or schedule.
        lr_decay: of the step with the number of updates, >= 0.
        weight_decay: L2 coefficient, >= 0 or schedule.
        initial_accumulator_value: what `s` begins with, >= 0.
        eps: added to the denominator, >= 0 or schedule.
        maximize: ascend.
        weight_decay_mask: which parameters decay; all by default.

    Raises:
        TypeError: an argument is of the wrong type.
        ValueError: an argument is out of range.

    References:
        Duchi et al., Adaptive Subgradient Methods for Online Learning and Stochastic Optimization, JMLR 2011.

    Example:
        >>> params = {"w": torch.tensor(1.0)}
        >>> optimizer = adagrad(0.1)
        >>> optimizer.update({"w": torch.tensor(2.0)}, optimizer.init(params), params)[0]
        {'w': tensor(-0.1000)}
    """
    return chain(
        ascend_if(maximize),
        weight_decay_if(weight_decay, weight_decay_mask),
        scale_by_adagrad(lr_decay, initial_accumulator_value, eps),
        descend(lr),
    )


@node
class AdadeltaState:
    """State of `scale_by_adadelta`."""

    count: torch.Tensor  # updates so far, int64 []
    square_avg: Tree  # mean square of the gradients, as params
    acc_delta: Tree  # mean square of the directions, as params


@remembered
def scale_by_adadelta(rho: Hyperparameter = 0.9, eps: Hyperparameter = 1e-6) -> Optimizer:
    """Divide by the root of recent squared gradients, multiply by that of recent squared directions.

    References:
        Zeiler, ADADELTA: An Adaptive Learning Rate Method, 2012, algorithm 1.

    Example:
        >>> adadelta, params = scale_by_adadelta(rho=0.0), {"w": torch.tensor(0.0)}
        >>> adadelta.update({"w": torch.tensor(-7.0)}, adadelta.init(params), params)[0]
        {'w': tensor(-0.0010)}
    """
    unless_schedule(require_fraction, rho=rho)
    unless_schedule(require_non_negative, eps=eps)

    def init(params: Tree) -> AdadeltaState:
        return AdadeltaState(zero_count(params), square_avg=zeros_like(params), acc_delta=zeros_like(params))

    def update(updates: Tree, state: AdadeltaState, _params: Tree) -> tuple[Tree, AdadeltaState]:
        spec, (grads, squares, deltas) = aligned_leaves(
            updates=updates, square_avg=state.square_avg, acc_delta=state.acc_delta
        )
        decay, least = value_at(rho, state.count), value_at(eps, state.count)
        squares = average_squares(squares, grads, decay)
        roots = overwrite("sqrt", foreach("add", squares, least))
        directions = overwrite("sqrt", foreach("add", deltas, least))
        directions = overwrite("mul", overwrite("div", directions, roots), grads)
        deltas = average_squares(deltas, directions, decay)
        new_state = AdadeltaState(state.count + 1, trees.unflatten(spec, squares), trees.unflatten(spec, deltas))
        return trees.unflatten(spec, directions), new_state

    return Optimizer(init, update)


@remembered
def adadelta(
    lr: Hyperparameter = 1.0,
    rho: Hyperparameter = 0.9,
    eps: Hyperparameter = 1e-6,
    weight_decay: Hyperparameter = 0.0,
    *,
    maximize: bool = False,
    weight_decay_mask: Mask | None = None,
) -> Optimizer:
    """Steps in the units of the parameters, without a learning rate to choose.

        g += weight_decay p;  v = rho v + (1 - rho) g²
        d = sqrt(u + eps) / sqrt(v + eps) g;  u = rho u + (1 - rho) d²;  p -= lr d

    Equal to torch.optim.Adadelta.

    Args:
        lr: factor of the step, number >= 0 or schedule.
        rho: decay of both mean squares, in [0, 1) or a schedule.
        eps: added inside both roots, >= 0 or schedule.
        weight_decay: L2 coefficient, >= 0 or schedule.
        maximize: ascend.
        weight_decay_mask: which parameters decay; all by default.

    Raises:
        TypeError: an argument is of the wrong type.
        ValueError: an argument is out of range.

    References:
        Zeiler, ADADELTA: An Adaptive Learning Rate Method, 2012, algorithm 1.

    Example:
        >>> params = {"w": torch.tensor(1.0)}
        >>> optimizer = adadelta(rho=0.0)
        >>> optimizer.update({"w": torch.tensor(2.0)}, optimizer.init(params), params)[0]
        {'w': tensor(-0.0010)}
    """
    return chain(
        ascend_if(maximize),
        weight_decay_if(weight_decay, weight_decay_mask),
        scale_by_adadelta(rho, eps),
        descend(lr),
    )
