"""Stochastic gradient descent, with momentum."""

import torch

from functrain.foundation import trees
from functrain.foundation.making import remembered
from functrain.foundation.trees import Tree, node
from functrain.optim.base import Optimizer, chain, identity, zero_count, zeros_like
from functrain.optim.checks import require_non_negative, unless_schedule
from functrain.optim.foreach import add_scaled, aligned_leaves, foreach, overwrite
from functrain.optim.masks import Mask
from functrain.optim.parts import ascend_if, weight_decay_if
from functrain.optim.rates import scale_by_learning_rate
from functrain.optim.schedules import Hyperparameter, value_at


@node
class TraceState:
    """State of `trace`."""

    count: torch.Tensor  # updates so far, int64 []
    momentum_buffer: Tree  # as params


@remembered
def trace(momentum: Hyperparameter, dampening: Hyperparameter = 0.0, nesterov: bool = False) -> Optimizer:
    """Momentum as torch.optim.SGD has it: `b = momentum b + (1 - dampening) g`, the first `b` being `g`.

    Args:
        momentum: decay of the buffer, >= 0, or a schedule.
        dampening: share of each gradient but the first that is left out, >= 0 or schedule.
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
    unless_schedule(require_non_negative, momentum=momentum, dampening=dampening)

    def init(params: Tree) -> TraceState:
        return TraceState(count=zero_count(params), momentum_buffer=zeros_like(params))

    def update(updates: Tree, state: TraceState, _params: Tree) -> tuple[Tree, TraceState]:
        spec, (grads, buffers) = aligned_leaves(updates=updates, momentum_buffer=state.momentum_buffer)
        now = value_at(momentum, state.count)
        incoming = grads
        if dampening != 0:
            incoming = foreach("mul", grads, 1 - value_at(dampening, state.count) * (state.count > 0).double())
        buffers = overwrite("add", foreach("mul", buffers, now), incoming)
        directions = add_scaled(grads, buffers, now) if nesterov else buffers
        new_state = TraceState(count=state.count + 1, momentum_buffer=trees.unflatten(spec, buffers))
        return trees.unflatten(spec, directions), new_state

    return Optimizer(init, update)


@remembered
def sgd(
    lr: Hyperparameter = 1e-3,
    momentum: Hyperparameter = 0.0,
    dampening: Hyperparameter = 0.0,
    weight_decay: Hyperparameter = 0.0,
    nesterov: bool = False,
    *,
    maximize: bool = False,
    weight_decay_mask: Mask | None = None,
) -> Optimizer:
    """Stochastic gradient descent: `g += weight_decay p;  b = momentum b + (1 - dampening) g;  p -= lr b`.

    The first `b` is `g`; with `nesterov` the step is `lr (g + momentum b)`. Equal to torch.optim.SGD.

    Args:
        lr: learning rate, number >= 0 or schedule.
        momentum: decay of the momentum buffer, >= 0 or schedule; 0 keeps no buffer.
        dampening: share of each gradient but the first that stays out of the buffer, >= 0 or schedule.
        weight_decay: L2 coefficient, >= 0 or schedule.
        nesterov: Nesterov's momentum; needs momentum > 0 and no dampening.
        maximize: ascend.
        weight_decay_mask: which parameters decay; all by default.

    Raises:
        TypeError: an argument is of the wrong type.
        ValueError: an argument is out of range.

    References:
        Sutskever et al., On the importance of initialization and momentum in deep learning, ICML 2013.

    Example:
        >>> params = {"w": torch.tensor(1.0)}
        >>> optimizer = sgd(0.1, momentum=0.9)
        >>> optimizer.update({"w": torch.tensor(2.0)}, optimizer.init(params), params)[0]
        {'w': tensor(-0.2000)}
    """
    buffer = trace(momentum, dampening, nesterov)
    if nesterov and (momentum == 0 or dampening != 0):
        raise ValueError(
            f"nesterov=True needs momentum > 0 and dampening = 0, got momentum={momentum!r} and dampening={dampening!r}"
        )
    return chain(
        ascend_if(maximize),
        weight_decay_if(weight_decay, weight_decay_mask),
        identity() if momentum == 0 else buffer,
        scale_by_learning_rate(lr),
    )
