"""RAdam: Adam that waits until its second moment is known well enough."""

import torch

from functrain.foundation import trees
from functrain.foundation.making import remembered
from functrain.foundation.trees import Tree, node
from functrain.optim.adam import bias_correction
from functrain.optim.base import Optimizer, chain, zero_count, zeros_like
from functrain.optim.checks import require_betas, require_non_negative, unless_schedule
from functrain.optim.foreach import Scalar, aligned_leaves, average_squares, divide_into, foreach, lerp, overwrite
from functrain.optim.masks import Mask
from functrain.optim.parts import ascend_if, decoupled_decay_if, weight_decay_if
from functrain.optim.rates import descend
from functrain.optim.schedules import Hyperparameter, value_at


@node
class RAdamState:
    """State of `scale_by_radam`."""

    count: torch.Tensor  # updates so far, int64 []
    exp_avg: Tree  # first moment, as params
    exp_avg_sq: Tree  # second moment, as params


@remembered
def scale_by_radam(
    betas: tuple[Hyperparameter, Hyperparameter] = (0.9, 0.999), eps: Hyperparameter = 1e-8
) -> Optimizer:
    """The bias-corrected mean of the gradients, from the time on that the second moment is reliable as Adam's.

    References:
        Liu et al., On the Variance of the Adaptive Learning Rate and Beyond, ICLR 2020, algorithm 2; with
        torch's threshold of 5 for rho, where the paper has 4.

    Example:
        >>> radam, params = scale_by_radam(), {"w": torch.tensor(0.0)}
        >>> radam.update({"w": torch.tensor(-7.0)}, radam.init(params), params)[0]
        {'w': tensor(-7.)}
    """
    require_betas(betas)
    unless_schedule(require_non_negative, eps=eps)

    def init(params: Tree) -> RAdamState:
        return RAdamState(zero_count(params), exp_avg=zeros_like(params), exp_avg_sq=zeros_like(params))

    def update(updates: Tree, state: RAdamState, _params: Tree) -> tuple[Tree, RAdamState]:
        spec, (grads, means, squares) = aligned_leaves(
            updates=updates, exp_avg=state.exp_avg, exp_avg_sq=state.exp_avg_sq
        )
        beta1, beta2 = (value_at(beta, state.count) for beta in betas)
        count = state.count + 1
        means = lerp(means, grads, 1 - beta1)
        squares = average_squares(squares, grads, beta2)
        adaptive, plain = _factors(beta1, beta2, count)
        denominators = overwrite("add", foreach("sqrt", squares), value_at(eps, state.count))
        # One of the factors is 0: a choice without a branch.
        directions = overwrite("mul", divide_into(denominators, means), adaptive)
        directions = overwrite("add", directions, foreach("mul", means, plain))
        new_state = RAdamState(count, trees.unflatten(spec, means), trees.unflatten(spec, squares))
        return trees.unflatten(spec, directions), new_state

    return Optimizer(init, update)


def _factors(beta1: Scalar, beta2: Scalar, count: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Of Adam's step and of plain momentum, float64 0-d: rectified and 0, or 0 and 1, each over the correction."""
    correction1, correction2 = bias_correction(beta1, count), bias_correction(beta2, count)
    rho_inf = 2 / (1 - beta2) - 1
    rho = rho_inf - 2 * count.double() * beta2 ** count.double() / correction2
    reliable = rho > 5.0
    rho = torch.where(reliable, rho, 6.0)  # any value that keeps the root, not used, from NaN
    squared = ((rho - 4) * (rho - 2) * rho_inf / ((rho_inf - 4) * (rho_inf - 2) * rho)) * correction2
    adaptive = torch.where(reliable, squared.clamp(min=0.0).sqrt(), 0.0)
    return adaptive / correction1, (~reliable).double() / correction1


@remembered
def radam(
    lr: Hyperparameter = 1e-3,
    betas: tuple[Hyperparameter, Hyperparameter] = (0.9, 0.999),
    eps: Hyperparameter = 1e-8,
    weight_decay: Hyperparameter = 0.0,
    decoupled_weight_decay: bool = False,
    *,
    maximize: bool = False,
    weight_decay_mask: Mask | None = None,
) -> Optimizer:
    """Adam that begins as momentum, until enough gradients were seen to divide by their mean square.

        m, v as in `adam`;  rho_inf = 2 / (1 - beta2) - 1;  rho = rho_inf - 2 t beta2^t / (1 - beta2^t)
        r = sqrt((rho - 4) (rho - 2) rho_inf / ((rho_inf - 4) (rho_inf - 2) rho))
        p -= lr m / (1 - beta1^t) * (r sqrt(1 - beta2^t) / (sqrt(v) + eps)  if rho > 5 else  1)

    Equal to torch.optim.RAdam.

    Args:
        lr: learning rate, number >= 0 or schedule.
        betas: decays of the first and second moment, each in [0, 1) or a schedule.
        eps: added to the denominator, >= 0 or schedule.
        weight_decay: coefficient, >= 0 or schedule.
        decoupled_weight_decay: decay beside the step, as `adamw`, not inside the gradient.
        maximize: ascend.
        weight_decay_mask: which parameters decay; all by default.

    Raises:
        TypeError: an argument is of the wrong type.
        ValueError: an argument is out of range.

    References:
        Liu et al., On the Variance of the Adaptive Learning Rate and Beyond, ICLR 2020, algorithm 2.

    Example:
        >>> params = {"w": torch.tensor(1.0)}
        >>> optimizer = radam(0.1)
        >>> optimizer.update({"w": torch.tensor(2.0)}, optimizer.init(params), params)[0]
        {'w': tensor(-0.2000)}
    """
    direction = scale_by_radam(betas, eps)
    if decoupled_weight_decay:
        parts = direction, decoupled_decay_if(weight_decay, weight_decay_mask)
    else:
        parts = weight_decay_if(weight_decay, weight_decay_mask), direction
    return chain(ascend_if(maximize), *parts, descend(lr))
