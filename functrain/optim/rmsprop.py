"""RMSprop: steps relative to the root mean square of recent gradients."""

import torch

from functrain.foundation import trees
from functrain.foundation.making import remembered
from functrain.foundation.trees import Tree, node
from functrain.optim.adam import bias_correction
from functrain.optim.base import Optimizer, chain, identity, zero_count, zeros_like
from functrain.optim.checks import require_fraction, require_non_negative, unless_schedule
from functrain.optim.foreach import aligned_leaves, average_squares, divide_into, foreach, lerp, overwrite
from functrain.optim.masks import Mask
from functrain.optim.parts import ascend_if, weight_decay_if
from functrain.optim.rates import descend, scale_by_learning_rate
from functrain.optim.schedules import Hyperparameter, value_at
from functrain.optim.sgd import trace


@node
class RMSState:
    """State of `scale_by_rms`."""

    count: torch.Tensor  # updates so far, int64 []
    square_avg: Tree  # mean square of the gradients, as params
    grad_avg: Tree  # their mean, as params; () unless centered


@remembered
def scale_by_rms(
    alpha: Hyperparameter = 0.99, eps: Hyperparameter = 1e-8, *, centered: bool = False, debias: bool = False
) -> Optimizer:
    """Divide by the root mean square of recent gradients.

    Args:
        alpha: decay of the mean, in [0, 1) or a schedule.
        eps: added to the root, >= 0 or schedule.
        centered: subtract the squared mean: divide by the standard deviation.
        debias: correct the mean square for its beginning at zero, as Adam does.

    References:
        Tieleman & Hinton, Lecture 6.5, 2012; Graves, Generating Sequences With Recurrent Neural Networks, 2013,
        equations 38 to 41 (centered).

    Example:
        >>> rms, params = scale_by_rms(alpha=0.75), {"w": torch.tensor(0.0)}
        >>> rms.update({"w": torch.tensor(-7.0)}, rms.init(params), params)[0]
        {'w': tensor(-2.)}
    """
    unless_schedule(require_fraction, alpha=alpha)
    unless_schedule(require_non_negative, eps=eps)

    def init(params: Tree) -> RMSState:
        return RMSState(zero_count(params), zeros_like(params), zeros_like(params) if centered else ())

    def update(updates: Tree, state: RMSState, _params: Tree) -> tuple[Tree, RMSState]:
        spec, (grads, squares) = aligned_leaves(updates=updates, square_avg=state.square_avg)
        decay, count = value_at(alpha, state.count), state.count + 1
        squares = average_squares(squares, grads, decay)
        means, variances = state.grad_avg, squares
        if centered:
            mean_leaves = lerp(trees.leaves(means), grads, 1 - decay)
            variances = foreach("addcmul", squares, mean_leaves, mean_leaves, value=-1.0)
            means = trees.unflatten(spec, mean_leaves)
        roots = foreach("sqrt", variances)
        if debias:
            roots = overwrite("div", roots, bias_correction(decay, count).sqrt())
        directions = divide_into(overwrite("add", roots, value_at(eps, state.count)), grads)
        return trees.unflatten(spec, directions), RMSState(count, trees.unflatten(spec, squares), means)

    return Optimizer(init, update)


@remembered
def rmsprop(
    lr: Hyperparameter = 1e-2,
    alpha: Hyperparameter = 0.99,
    eps: Hyperparameter = 1e-8,
    weight_decay: Hyperparameter = 0.0,
    momentum: Hyperparameter = 0.0,
    centered: bool = False,
    maximize: bool = False,
    *,
    weight_decay_mask: Mask | None = None,
) -> Optimizer:
    """Gradients over their root mean square, with momentum.

        g += weight_decay p;  v = alpha v + (1 - alpha) g²;  m = alpha m + (1 - alpha) g
        b = momentum b + g / (sqrt(v - m² if centered else v) + eps);  p -= lr b

    Equal to torch.optim.RMSprop.

    Args:
        lr: learning rate, number >= 0 or schedule.
        alpha: decay of the means, in [0, 1) or a schedule.
        eps: added to the denominator, >= 0 or schedule.
        weight_decay: L2 coefficient, >= 0 or schedule.
        momentum: decay of the momentum buffer, >= 0 or schedule; 0 keeps no buffer.
        centered: divide by the standard deviation.
        maximize: ascend.
        weight_decay_mask: which parameters decay; all by default.

    Raises:
        TypeError: an argument is of the wrong type.
        ValueError: an argument is out of range.

    References:
        Tieleman & Hinton, Lecture 6.5, 2012.

    Example:
        >>> params = {"w": torch.tensor(1.0)}
        >>> optimizer = rmsprop(0.1, alpha=0.75)
        >>> optimizer.update({"w": torch.tensor(2.0)}, optimizer.init(params), params)[0]
        {'w': tensor(-0.2000)}
    """
    buffer = trace(momentum)
    return chain(
        ascend_if(maximize),
        weight_decay_if(weight_decay, weight_decay_mask),
        scale_by_rms(alpha, eps, centered=centered),
        identity() if momentum == 0 else buffer,
        # The momentum's buffer is state.
        descend(lr) if momentum == 0 else scale_by_learning_rate(lr),
    )
