"""Adamax: Adam in the infinity norm."""

import torch

from functrain.foundation import trees
from functrain.foundation.making import remembered
from functrain.foundation.trees import Tree, node
from functrain.optim.adam import bias_correction
from functrain.optim.base import Optimizer, chain, zero_count, zeros_like
from functrain.optim.checks import require_betas, require_non_negative, unless_schedule
from functrain.optim.foreach import aligned_leaves, foreach, lerp, overwrite
from functrain.optim.masks import Mask
from functrain.optim.parts import ascend_if, weight_decay_if
from functrain.optim.rates import descend
from functrain.optim.schedules import Hyperparameter, value_at


@node
class AdamaxState:
    """State of `scale_by_adamax`."""

    count: torch.Tensor  # updates so far, int64 []
    exp_avg: Tree  # first moment, as params
    exp_inf: Tree  # decaying largest magnitude, as params


@remembered
def scale_by_adamax(
    betas: tuple[Hyperparameter, Hyperparameter] = (0.9, 0.999), eps: Hyperparameter = 1e-8
) -> Optimizer:
    """Divide the bias-corrected mean of the gradients by their decaying largest magnitude.

    References:
        Kingma & Ba, Adam: A Method for Stochastic Optimization, ICLR 2015, algorithm 2; eps is torch's.

    Example:
        >>> adamax, params = scale_by_adamax(), {"w": torch.tensor(0.0)}
        >>> adamax.update({"w": torch.tensor(-7.0)}, adamax.init(params), params)[0]
        {'w': tensor(-1.)}
    """
    require_betas(betas)
    unless_schedule(require_non_negative, eps=eps)

    def init(params: Tree) -> AdamaxState:
        return AdamaxState(zero_count(params), exp_avg=zeros_like(params), exp_inf=zeros_like(params))

    def update(updates: Tree, state: AdamaxState, _params: Tree) -> tuple[Tree, AdamaxState]:
        spec, (grads, means, largest) = aligned_leaves(updates=updates, exp_avg=state.exp_avg, exp_inf=state.exp_inf)
        beta1, beta2 = (value_at(beta, state.count) for beta in betas)
        count = state.count + 1
        means = lerp(means, grads, 1 - beta1)
        magnitudes = overwrite("add", foreach("abs", grads), value_at(eps, state.count))
        largest = overwrite("maximum", foreach("mul", largest, beta2), magnitudes)
        directions = overwrite("div", foreach("div", means, largest), bias_correction(beta1, count))
        new_state = AdamaxState(count, trees.unflatten(spec, means), trees.unflatten(spec, largest))
        return trees.unflatten(spec, directions), new_state

    return Optimizer(init, update)


@remembered
def adamax(
    lr: Hyperparameter = 2e-3,
    betas: tuple[Hyperparameter, Hyperparameter] = (0.9, 0.999),
    eps: Hyperparameter = 1e-8,
    weight_decay: Hyperparameter = 0.0,
    *,
    maximize: bool = False,
    weight_decay_mask: Mask | None = None,
) -> Optimizer:
    """Adam in the infinity norm.

        g += weight_decay p;  m = beta1 m + (1 - beta1) g;  u = max(beta2 u, |g| + eps)
        p -= lr m / ((1 - beta1^t) u)

    Equal to torch.optim.Adamax.

    Args:
        lr: learning rate, number >= 0 or schedule.
        betas: decays of the mean and of the largest magnitude, each in [0, 1) or a schedule.
        eps: added to the magnitudes, >= 0 or schedule.
        weight_decay: L2 coefficient, >= 0 or schedule.
        maximize: ascend.
        weight_decay_mask: which parameters decay; all by default.

    Raises:
        TypeError: an argument is of the wrong type.
        ValueError: an argument is out of range.

    References:
        Kingma & Ba, Adam: A Method for Stochastic Optimization, ICLR 2015, algorithm 2.

    Example:
        >>> params = {"w": torch.tensor(1.0)}
        >>> optimizer = adamax(0.1)
        >>> optimizer.update({"w": torch.tensor(2.0)}, optimizer.init(params), params)[0]
        {'w': tensor(-0.1000)}
    """
    return chain(
        ascend_if(maximize),
        weight_decay_if(weight_decay, weight_decay_mask),
        scale_by_adamax(betas, eps),
        descend(lr),
    )
