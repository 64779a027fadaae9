"""Lookahead: slow weights that follow the fast ones every few updates."""

import torch

from functrain.foundation import trees
from functrain.foundation.making import remembered
from functrain.foundation.trees import Tree, node
from functrain.optim.base import Optimizer, require_optimizer, zero_count, zeros_like
from functrain.optim.checks import require_fraction, require_steps, unless_schedule
from functrain.optim.foreach import aligned_leaves, foreach, lerp
from functrain.optim.schedules import Hyperparameter, value_at


@node
class LookaheadState:
    """State of `lookahead`."""

    count: torch.Tensor  # updates so far, int64 []
    slow: Tree  # as params
    inner: Tree  # state of the optimizer within


@remembered
def lookahead(optimizer: Optimizer, k: int = 5, alpha: Hyperparameter = 0.5) -> Optimizer:
    """Every `k` updates move slow weights towards the parameters, and the parameters to the slow weights.

        p += update;  every k-th update:  s += alpha (p - s);  p = s

    Args:
        optimizer: takes the fast steps; its state goes on through the resets.
        k: updates between two resets.
        alpha: step of the slow weights, in [0, 1), or a schedule.

    Raises:
        TypeError: an argument is of the wrong type.
        ValueError: `k` or `alpha` is out of range.

    References:
        Zhang et al., Lookahead Optimizer: k steps forward, 1 step back, NeurIPS 2019, algorithm 1.

    Example:
        >>> from functrain.optim.sgd import sgd
        >>> params, optimizer = {"w": torch.tensor(1.0)}, lookahead(sgd(0.1), k=1)
        >>> optimizer.update({"w": torch.tensor(2.0)}, optimizer.init(params), params)[0]
        {'w': tensor(-0.1000)}
    """
    require_optimizer("lookahead", optimizer)
    require_steps("k", k)
    unless_schedule(require_fraction, alpha=alpha)

    def init(params: Tree) -> LookaheadState:
        zeros_like(params)  # refuses what is no real floating-point tensor
        return LookaheadState(zero_count(params), trees.tree_map(torch.clone, params), optimizer.init(params))

    def update(updates: Tree, state: LookaheadState, params: Tree) -> tuple[Tree, LookaheadState]:
        updates, inner = optimizer.update(updates, state.inner, params)
        spec, (steps, fast, slow) = aligned_leaves(updates=updates, params=params, slow=state.slow)
        count = state.count + 1
        resets = count % k == 0
        moved = lerp(slow, foreach("add", fast, steps), value_at(alpha, state.count))
        slow = [torch.where(resets, new, old) for new, old in zip(moved, slow)]
        back = foreach("sub", moved, fast)
        steps = [torch.where(resets, there, step) for there, step in zip(back, steps)]
        return trees.unflatten(spec, steps), LookaheadState(count, trees.unflatten(spec, slow), inner)

    return Optimizer(init, update)
