"""The parts optimizers are chained from. Imports foundation only.

Each part has the same order: its state with shapes and dtypes, then the function that builds it from
hyperparameters, with `init` and `update` inside.
"""

from typing import Any

import optree
import torch

from functrain.foundation import trees
from functrain.foundation.trees import Tree, node
from functrain.optim.base import Optimizer, stateless, zero_count, zeros_like
from functrain.optim.checks import require_betas, require_non_negative
from functrain.optim.foreach import aligned_leaves, foreach
from functrain.optim.schedules import Schedule, constant, rate_at


def scale(factor: float) -> Optimizer:
    """Multiply the updates by a constant; `scale(-1.0)` first in a chain maximises.

    Example:
        >>> scale(-1.0).update({"w": torch.tensor(3.0)}, (), {})
        ({'w': tensor(-3.)}, ())
    """

    def update(updates: Tree, _params: Tree) -> Tree:
        leaves, spec = trees.flatten(updates)
        return trees.unflatten(spec, foreach("mul", leaves, factor))

    return stateless(update)


def add_decayed_weights(weight_decay: float) -> Optimizer:
    """Add `weight_decay * params` to the updates.

    Before a preconditioner (Adam's second moment) this is L2 regularisation, after it decoupled decay.

    References:
        Loshchilov & Hutter, Decoupled Weight Decay Regularization, ICLR 2019.

    Example:
        >>> add_decayed_weights(0.1).update({"w": torch.tensor(1.0)}, (), {"w": torch.tensor(5.0)})
        ({'w': tensor(1.5000)}, ())
    """
    require_non_negative("weight_decay", weight_decay)

    def update(updates: Tree, params: Tree) -> Tree:
        spec, (leaves, weights) = aligned_leaves(updates=updates, params=params)
        return trees.unflatten(spec, foreach("add", leaves, weights, alpha=weight_decay))

    return stateless(update)


@node
class TraceState:
    """State of `trace`."""

    count: torch.Tensor  # updates so far, int64 []
    momentum_buffer: Tree  # as params


def trace(momentum: float, dampening: float = 0.0, nesterov: bool = False) -> Optimizer:
    """Momentum as torch.optim.SGD has it: `b = momentum b + (1 - dampening) g`, the first `b` being `g`.

    Args:
        momentum: decay of the buffer, >= 0.
        dampening: share of each gradient but the first that is left out.
        nesterov: return `g + momentum * b` instead of `b`.

    References:
        Sutskever et al., On the importance of initialization and momentum in deep learning, ICML 2013; it
        multiplies the gradient inside the buffer by the learning rate, torch and this function do not.

    Example:
        >>> heavy_ball = trace(0.9)
        >>> g, params = {"w": torch.tensor(1.0)}, {"w": torch.tensor(0.0)}
        >>> _, state = heavy_ball.update(g, heavy_ball.init(params), params)
        >>> heavy_ball.update(g, state, params)[0]
        {'w': tensor(1.9000)}
    """
    require_non_negative("momentum", momentum)

    def init(params: Tree) -> TraceState:
        return TraceState(count=zero_count(params), momentum_buffer=zeros_like(params))

    def update(updates: Tree, state: TraceState, _params: Tree) -> tuple[Tree, TraceState]:
        spec, (grads, buffers) = aligned_leaves(updates=updates, momentum_buffer=state.momentum_buffer)
        incoming = grads
        if dampening != 0:
            incoming = foreach("mul", grads, 1 - dampening * (state.count > 0).double())
        buffers = foreach("add", foreach("mul", buffers, momentum), incoming)
        directions = foreach("add", grads, buffers, alpha=momentum) if nesterov else buffers
        new_state = TraceState(count=state.count + 1, momentum_buffer=trees.unflatten(spec, buffers))
        return trees.unflatten(spec, directions), new_state

    return Optimizer(init, update)


@node
class AdamState:
    """State of `scale_by_adam`."""

    count: torch.Tensor  # updates so far, int64 []
    exp_avg: Tree  # first moment, as params
    exp_avg_sq: Tree  # second moment, as params


def scale_by_adam(betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8) -> Optimizer:
    """Divide the bias-corrected mean of the gradients by the root of their bias-corrected mean square.

    References:
        Kingma & Ba, Adam: A Method for Stochastic Optimization, ICLR 2015, algorithm 1.

    Example:
        >>> adam, params = scale_by_adam(), {"w": torch.tensor(0.0)}
        >>> adam.update({"w": torch.tensor(-7.0)}, adam.init(params), params)[0]
        {'w': tensor(-1.0000)}
    """
    require_betas(betas)
    require_non_negative("eps", eps)
    beta1, beta2 = betas

    def init(params: Tree) -> AdamState:
        return AdamState(zero_count(params), exp_avg=zeros_like(params), exp_avg_sq=zeros_like(params))

    def update(updates: Tree, state: AdamState, _params: Tree) -> tuple[Tree, AdamState]:
        spec, (grads, means, squares) = aligned_leaves(
            updates=updates, exp_avg=state.exp_avg, exp_avg_sq=state.exp_avg_sq
        )
        count = state.count + 1
        means = foreach("add", foreach("mul", means, beta1), grads, alpha=1 - beta1)
        squares = foreach("addcmul", foreach("mul", squares, beta2), grads, grads, value=1 - beta2)
        # In float64: in float32, 1 - 0.999**1 would be off by 5e-5 of its value.
        correction1 = 1 - beta1 ** count.double()
        correction2 = 1 - beta2 ** count.double()
        denominators = foreach("add", foreach("div", foreach("sqrt", squares), correction2.sqrt()), eps)
        directions = foreach("div", foreach("div", means, correction1), denominators)
        new_state = AdamState(count, trees.unflatten(spec, means), trees.unflatten(spec, squares))
        return trees.unflatten(spec, directions), new_state

    return Optimizer(init, update)


@node
class LionState:
    """State of `scale_by_lion`."""

    exp_avg: Tree  # as params


def scale_by_lion(betas: tuple[float, float] = (0.9, 0.99)) -> Optimizer:
    """The sign of an interpolation between momentum and gradient.

    References:
        Chen et al., Symbolic Discovery of Optimization Algorithms, NeurIPS 2023, algorithm 2.

    Example:
        >>> lion, params = scale_by_lion(), {"w": torch.tensor(0.0)}
        >>> lion.update({"w": torch.tensor(-7.0)}, lion.init(params), params)[0]
        {'w': tensor(-1.)}
    """
    require_betas(betas)
    beta1, beta2 = betas

    def init(params: Tree) -> LionState:
        return LionState(exp_avg=zeros_like(params))

    def update(updates: Tree, state: LionState, _params: Tree) -> tuple[Tree, LionState]:
        spec, (grads, means) = aligned_leaves(updates=updates, exp_avg=state.exp_avg)
        mixed = foreach("add", foreach("mul", means, beta1), grads, alpha=1 - beta1)
        means = foreach("add", foreach("mul", means, beta2), grads, alpha=1 - beta2)
        new_state = LionState(exp_avg=trees.unflatten(spec, means))
        return trees.unflatten(spec, foreach("sign", mixed)), new_state

    return Optimizer(init, update)


@node
class LearningRateState:
    """State of `scale_by_learning_rate`."""

    count: torch.Tensor  # updates so far, int64 []
    lr: torch.Tensor  # learning rate of the last update (before the first: of the first), float64 []


def scale_by_learning_rate(lr: float | Schedule) -> Optimizer:
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
    _require_learning_rate(lr)
    schedule = lr if callable(lr) else constant(lr)

    def init(params: Tree) -> LearningRateState:
        count = zero_count(params)
        return LearningRateState(count=count, lr=rate_at(schedule, count))

    def update(updates: Tree, state: LearningRateState, _params: Tree) -> tuple[Tree, LearningRateState]:
        leaves, spec = trees.flatten(updates)
        current = rate_at(schedule, state.count) if callable(lr) else state.lr
        new_state = LearningRateState(count=state.count + 1, lr=current)
        return trees.unflatten(spec, foreach("mul", leaves, -current)), new_state

    return Optimizer(init, update)


def _require_learning_rate(lr: Any) -> None:
    if callable(lr):
        return
    if isinstance(lr, bool) or not isinstance(lr, int | float):
        kind = type(lr).__name__
        raise TypeError(f"lr must be a number or a schedule (a function from step to scalar), got {lr!r} ({kind})")
    require_non_negative("lr", lr)


def learning_rate(opt_state: Tree) -> torch.Tensor | None:
    """The learning rate of the last update, for logs: float64 0-d, or None if the state holds none.

    Example:
        >>> state = scale_by_learning_rate(0.1).init({})
        >>> learning_rate(((), state)), learning_rate(())
        (tensor(0.1000, dtype=torch.float64), None)
    """
    candidates = optree.tree_leaves(
        opt_state, is_leaf=lambda part: isinstance(part, LearningRateState), namespace=trees.NAMESPACE
    )
    return next((part.lr for part in candidates if isinstance(part, LearningRateState)), None)
