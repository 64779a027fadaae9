"""Exponential moving averages of trees."""

import dataclasses

import torch

from functrain.foundation import trees
from functrain.foundation.trees import Tree, node
from functrain.optim.base import zero_count
from functrain.optim.checks import require_fraction
from functrain.optim.foreach import aligned_leaves, foreach
from functrain.optim.schedules import Schedule, ema_decay, rate_at


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


@node
class EmaState:
    """What an `Ema` keeps."""

    count: torch.Tensor  # updates so far, int64 []
    params: Tree  # average of the parameters, as params
    buffers: Tree  # average of the buffers, as they; () unless they are averaged


@dataclasses.dataclass(frozen=True)
class Ema:
    """The rule of a moving average; make it with `ema`, which checks the arguments."""

    decay: Schedule
    average_buffers: bool

    def init(self, params: Tree, buffers: Tree = ()) -> EmaState:
        """Before the first update: copies of the values at hand.

        Example:
            >>> ema(0.75).init({"w": torch.tensor(1.0)})
            EmaState(count=tensor(0), params={'w': tensor(1.)}, buffers=())
        """
        kept = trees.tree_map(torch.clone, buffers) if self.average_buffers else ()
        return EmaState(zero_count(params), trees.tree_map(torch.clone, params), kept)

    def update(self, state: EmaState, params: Tree, buffers: Tree = ()) -> EmaState:
        """The average after an update of the parameters.

        Example:
            >>> rule = ema(0.75)
            >>> state = rule.init({"w": torch.tensor(1.0)})
            >>> rule.update(state, {"w": torch.tensor(2.0)}).params
            {'w': tensor(1.2500)}
        """
        decay = rate_at(self.decay, state.count)
        kept = ema_update(state.buffers, buffers, decay) if self.average_buffers else ()
        return EmaState(state.count + 1, ema_update(state.params, params, decay), kept)


def ema(decay: float = 0.999, *, warmup: bool = False, every: int = 1, average_buffers: bool = False) -> Ema:
    """A moving average of the parameters, to evaluate with beside them.

    Args:
        decay: weight of the old average, in [0, 1).
        warmup: begin with less, `min(decay, (1 + n) / (10 + n))` for the n-th averaging.
        every: average at every so many updates.
        average_buffers: average BatchNorm's statistics and the like, too; else the average is evaluated with
            the network's current ones. Integers among the buffers are copied.

    Returns:
        A rule with `init(params, buffers) -> state` and `update(state, params, buffers) -> state`.

    Raises:
        ValueError: an argument is out of range.

    Example:
        >>> ema(0.999, warmup=True).decay(0)
        0.1
    """
    return Ema(ema_decay(decay, warmup=warmup, every=every), average_buffers)
