"""Averaged stochastic gradient descent."""

from collections.abc import Mapping

import torch

from functrain.foundation import trees
from functrain.foundation.making import remembered
from functrain.foundation.trees import Tree, node
from functrain.optim.averages import KnowsAverages, trained_by
from functrain.optim.base import Optimizer, chain, zeros_like
from functrain.optim.checks import require_non_negative
from functrain.optim.foreach import aligned_leaves, foreach, lerp
from functrain.optim.masks import Mask
from functrain.optim.parts import ascend_if, weight_decay_if
from functrain.optim.rates import LearningRateState, initial_rate, next_rate, require_learning_rate
from functrain.optim.schedules import Hyperparameter


@node
class AsgdState(KnowsAverages):
    """State of `step_asgd`."""

    rate: LearningRateState
    ax: Tree  # average of the parameters, as params

    def averages(self, params: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """What `ax` holds.

        Example:
            >>> state = asgd().init({"w": torch.tensor(1.0)})[-1]
            >>> state.averages({"w": torch.tensor(1.0)})
            {'w': tensor(1.)}
        """
        return dict(zip(trained_by(self.ax, params), trees.leaves(self.ax)))


@remembered
def step_asgd(lr: Hyperparameter, lambd: float = 1e-4, alpha: float = 0.75, t0: float = 1e6) -> Optimizer:
    """The last part of `asgd`: steps by a falling rate, and the average of the points they lead to.

    Args:
        lr: what the rate begins with, number >= 0 or schedule.
        lambd: how fast the rate falls; in `asgd` the decay of the parameters, too.
        alpha: exponent of the rate's fall.
        t0: updates before the average begins; until then it is the parameters themselves.

    References:
        Polyak & Juditsky, Acceleration of Stochastic Approximation by Averaging, SIAM J. Control Optim. 1992.

    Example:
        >>> transform, params = step_asgd(0.1), {"w": torch.tensor(1.0)}
        >>> transform.update({"w": torch.tensor(2.0)}, transform.init(params), params)[0]
        {'w': tensor(-0.2000)}
    """
    require_learning_rate(lr)
    for name, value in {"lambd": lambd, "alpha": alpha, "t0": t0}.items():
        require_non_negative(name, value)

    def init(params: Tree) -> AsgdState:
        zeros_like(params)  # refuses what is no real floating-point tensor
        # torch's `ax` begins with zeros, which nobody should evaluate with; the first update replaces either.
        return AsgdState(initial_rate(lr, params), trees.tree_map(torch.clone, params))

    def update(updates: Tree, state: AsgdState, params: Tree) -> tuple[Tree, AsgdState]:
        spec, (directions, leaves, averages) = aligned_leaves(updates=updates, params=params, ax=state.ax)
        count = state.rate.count.double()
        first, rate = next_rate(lr, state.rate)
        step = first / (1 + lambd * first * count) ** alpha
        steps = foreach("mul", directions, -step)
        # From the new point back towards the old average: where the average has not begun that is the point, exactly.
        kept = 1 - 1 / (count - t0).clamp(min=1.0)
        averages = lerp(foreach("add", leaves, steps), averages, kept)
        return trees.unflatten(spec, steps), AsgdState(rate, trees.unflatten(spec, averages))

    return Optimizer(init, update)


@remembered
def asgd(
    lr: Hyperparameter = 1e-2,
    lambd: float = 1e-4,
    alpha: float = 0.75,
    t0: float = 1e6,
    weight_decay: Hyperparameter = 0.0,
    *,
    maximize: bool = False,
    weight_decay_mask: Mask | None = None,
) -> Optimizer:
    """Stochastic gradient descent by a falling rate, with the average of the points that it passes.

        g += weight_decay p;  eta = lr / (1 + lambd lr (t - 1))^alpha
        p -= eta (g + lambd p);  ax += (p - ax) / max(1, t - 1 - t0)

    for update t = 1, 2, ... Equal to torch.optim.ASGD, where a schedule for `lr` acts an update later. The average,
    which torch leaves in its state, is what `evaluation_params(opt_state, params)` gives; with the default `t0` it is
    `p` for the first million updates.

    Args:
        lr: learning rate before it falls, number >= 0 or schedule.
        lambd: decay of the parameters, maximising or not, and of the rate, >= 0.
        alpha: exponent of the rate's fall, >= 0.
        t0: updates before the average begins, >= 0.
        weight_decay: L2 coefficient, >= 0 or schedule.
        maximize: ascend.
        weight_decay_mask: which parameters decay, by `lambd` too; all by default.

    Raises:
        TypeError: an argument is of the wrong type.
        ValueError: an argument is out of range.

    References:
        Polyak & Juditsky, Acceleration of Stochastic Approximation by Averaging, SIAM J. Control Optim. 1992; Xu,
        Towards Optimal One Pass Large Scale Learning with Averaged Stochastic Gradient Descent, 2011 (the rate).

    Example:
        >>> params = {"w": torch.tensor(1.0)}
        >>> optimizer = asgd(0.1, t0=0)
        >>> optimizer.update({"w": torch.tensor(2.0)}, optimizer.init(params), params)[0]
        {'w': tensor(-0.2000)}
    """
    require_non_negative("lambd", lambd)
    return chain(
        ascend_if(maximize),
        weight_decay_if(weight_decay, weight_decay_mask),
        weight_decay_if(lambd, weight_decay_mask),
        step_asgd(lr, lambd, alpha, t0),
    )
