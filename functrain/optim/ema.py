"""Exponential moving averages of trees. Imports foundation only."""

import torch

from functrain.foundation import trees
from functrain.foundation.trees import Tree
from functrain.optim.checks import require_fraction
from functrain.optim.foreach import aligned_leaves, foreach


def ema_update(ema: Tree, params: Tree, decay: float | torch.Tensor) -> Tree:
    """Move an average towards the parameters: `ema * decay + params * (1 - decay)`.

    Computed as `ema + (1 - decay) * (params - ema)`, the form of torch.lerp for weights below 0.5: an average
    equal to the parameters stays equal to the last bit, which the first form does not promise.

    Args:
        ema: tree of tensors; half-precision parameters want a float32 average, for small steps vanish in
            half precision.
        params: tree of the same structure and shapes.
        decay: a number in [0, 1), or a 0-d tensor.

    Returns:
        The new average, each leaf in its old dtype. Leaves of integers and bools (counters among the buffers)
        are copies of `params`' ones. Nothing is changed in place.

    Raises:
        ValueError: the structures differ, or `decay` is a number out of range.

    References:
        Polyak & Juditsky, Acceleration of stochastic approximation by averaging, SIAM J. Control Optim. 1992.

    Example:
        >>> ema_update({"w": torch.tensor(1.0)}, {"w": torch.tensor(2.0)}, decay=0.75)
        {'w': tensor(1.2500)}
    """
    if not isinstance(decay, torch.Tensor):
        require_fraction("decay", decay)
    spec, (averages, targets) = aligned_leaves(ema=ema, params=params)
    averaged = [average.is_floating_point() or average.is_complex() for average in averages]
    old = [average for average, chosen in zip(averages, averaged) if chosen]
    new = [target for target, chosen in zip(targets, averaged) if chosen]
    # ema - params, not params - ema: the difference takes the dtype of its first term.
    moved = foreach("sub", old, foreach("mul", foreach("sub", old, new), 1 - decay))
    replacements = iter(moved)
    merged = [next(replacements) if chosen else target.clone() for target, chosen in zip(targets, averaged)]
    return trees.unflatten(spec, merged)
