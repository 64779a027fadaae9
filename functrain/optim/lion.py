"""Lion: the sign of a momentum."""

import torch

from functrain.foundation import trees
from functrain.foundation.making import remembered
from functrain.foundation.trees import Tree, node
from functrain.optim.base import Optimizer, chain, zero_count, zeros_like
from functrain.optim.checks import require_betas
from functrain.optim.foreach import aligned_leaves, lerp, overwrite
from functrain.optim.masks import Mask
from functrain.optim.parts import ascend_if, decoupled_decay_if
from functrain.optim.rates import descend
from functrain.optim.schedules import Hyperparameter, value_at


@node
class LionState:
    """State of `scale_by_lion`."""

    count: torch.Tensor  # updates so far, int64 []
    exp_avg: Tree  # as params


@remembered
def scale_by_lion(betas: tuple[Hyperparameter, Hyperparameter] = (0.9, 0.99)) -> Optimizer:
    """The sign of an interpolation between momentum and gradient.

    References:
        Chen et al., Symbolic Discovery of Optimization Algorithms, NeurIPS 2023, algorithm 2.

    Example:
        >>> lion, params = scale_by_lion(), {"w": torch.tensor(0.0)}
        >>> lion.update({"w": torch.tensor(-7.0)}, lion.init(params), params)[0]
        {'w': tensor(-1.)}
    """
    require_betas(betas)

    def init(params: Tree) -> LionState:
        return LionState(count=zero_count(params), exp_avg=zeros_like(params))

    def update(updates: Tree, state: LionState, _params: Tree) -> tuple[Tree, LionState]:
        spec, (grads, means) = aligned_leaves(updates=updates, exp_avg=state.exp_avg)
        beta1, beta2 = (value_at(beta, state.count) for beta in betas)
        signs = overwrite("sign", lerp(means, grads, 1 - beta1))
        new_state = LionState(state.count + 1, trees.unflatten(spec, lerp(means, grads, 1 - beta2)))
        return trees.unflatten(spec, signs), new_state

    return Optimizer(init, update)


@remembered
def lion(
    lr: Hyperparameter = 1e-4,
    betas: tuple[Hyperparameter, Hyperparameter] = (0.9, 0.99),
    weight_decay: Hyperparameter = 0.0,
    *,
    maximize: bool = False,
    weight_decay_mask: Mask | None = None,
) -> Optimizer:
    """Lion: the sign of a momentum, with decoupled weight decay and half of Adam's state.

        c = beta1 m + (1 - beta1) g;  m = beta2 m + (1 - beta2) g
        p -= lr (sign(c) + weight_decay p)

    Args:
        lr: learning rate, number >= 0 or schedule; the authors advise 3 to 10 times less than for AdamW.
        betas: weight of the momentum in the step, and its decay, each in [0, 1) or a schedule.
        weight_decay: decay coefficient, >= 0 or schedule; 3 to 10 times AdamW's, so that `lr * weight_decay`
            is the same.
        maximize: ascend; the decay still shrinks.
        weight_decay_mask: which parameters decay; all by default.

    Raises:
        TypeError: an argument is of the wrong type.
        ValueError: an argument is out of range.

    References:
        Chen et al., Symbolic Discovery of Optimization Algorithms, NeurIPS 2023, algorithm 2.

    Example:
        >>> params = {"w": torch.tensor(1.0)}
        >>> optimizer = lion(0.1)
        >>> optimizer.update({"w": torch.tensor(2.0)}, optimizer.init(params), params)[0]
        {'w': tensor(-0.1000)}
    """
    return chain(
        ascend_if(maximize),
        scale_by_lion(betas),
        decoupled_decay_if(weight_decay, weight_decay_mask),
        descend(lr),
    )
