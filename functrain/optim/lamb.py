"""LAMB: Adam for large batches, each layer's step in proportion to its weights."""

import torch

from functrain.foundation import trees
from functrain.foundation.making import remembered
from functrain.foundation.trees import Tree
from functrain.optim.adam import scale_by_adam
from functrain.optim.base import Optimizer, chain, stateless
from functrain.optim.foreach import aligned_leaves, foreach, sums_of_squares
from functrain.optim.masks import Mask
from functrain.optim.parts import ascend_if, decoupled_decay_if
from functrain.optim.rates import descend
from functrain.optim.schedules import Hyperparameter


@remembered
def scale_by_trust_ratio() -> Optimizer:
    """Multiply each leaf's update by the norm of its parameter over the norm of the update, if neither is 0.

    References:
        You et al., Large Batch Training of Convolutional Networks, 2017, equation 6, of the update instead of
        the gradient.

    Example:
        >>> params, updates = {"w": torch.tensor([3.0, 4.0])}, {"w": torch.tensor([0.0, 2.0])}
        >>> scale_by_trust_ratio().update(updates, (), params)[0]
        {'w': tensor([0., 5.])}
    """

    def update(updates: Tree, params: Tree) -> Tree:
        spec, (leaves, weights) = aligned_leaves(updates=updates, params=params)
        ratios = [
            torch.where((weight > 0) & (size > 0), (weight / torch.where(size > 0, size, 1.0)).sqrt(), 1.0)
            for weight, size in zip(sums_of_squares(weights), sums_of_squares(leaves))
        ]
        return trees.unflatten(spec, foreach("mul", leaves, ratios))

    return stateless(update)


@remembered
def lamb(
    lr: Hyperparameter = 1e-3,
    betas: tuple[Hyperparameter, Hyperparameter] = (0.9, 0.999),
    eps: Hyperparameter = 1e-6,
    weight_decay: Hyperparameter = 1e-2,
    *,
    maximize: bool = False,
    weight_decay_mask: Mask | None = None,
) -> Optimizer:
    """Layerwise adaptive moments for large batches.

        d = adam's direction + weight_decay p
        p -= lr |p| / |d| d        (a layer at a time; the ratio is 1 where a norm is 0)

    Args:
        lr: learning rate, number >= 0 or schedule.
        betas: decays of the first and second moment, each in [0, 1) or a schedule.
        eps: added to Adam's denominator, >= 0 or schedule.
        weight_decay: decay coefficient, >= 0 or schedule.
        maximize: ascend; the decay still shrinks.
        weight_decay_mask: which parameters decay; all by default.

    Raises:
        TypeError: an argument is of the wrong type.
        ValueError: an argument is out of range.

    References:
        You et al., Large Batch Optimization for Deep Learning: Training BERT in 76 minutes, ICLR 2020,
        algorithm 2, with phi(z) = z.

    Example:
        >>> params = {"w": torch.tensor([3.0, 4.0])}
        >>> optimizer = lamb(0.1, weight_decay=0.0)
        >>> optimizer.update({"w": torch.tensor([2.0, -2.0])}, optimizer.init(params), params)[0]
        {'w': tensor([-0.3536,  0.3536])}
    """
    return chain(
        ascend_if(maximize),
        scale_by_adam(betas, eps),
        decoupled_decay_if(weight_decay, weight_decay_mask),
        scale_by_trust_ratio(),
        descend(lr),
    )
