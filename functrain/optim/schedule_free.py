"""Schedule-free optimizers: averaging in place of a falling learning rate.

Three points move together: z takes the steps, x is the average of the z's, and the gradient is taken at
y = (1 - momentum) z + momentum x. The parameters of the training state are y; a network is evaluated at x,
which `optim.evaluation_params` gives.
"""

from collections.abc import Mapping

import torch

from functrain.foundation import trees
from functrain.foundation.making import remembered
from functrain.foundation.trees import Tree, node
from functrain.optim.averages import KnowsAverages, trained_by
from functrain.optim.base import Optimizer, chain, zeros_like
from functrain.optim.checks import (
    require_betas,
    require_fraction,
    require_non_negative,
    require_positive,
    require_steps,
)
from functrain.optim.foreach import add_scaled, aligned_leaves, foreach, overwrite
from functrain.optim.masks import Mask
from functrain.optim.parts import ascend_if, decoupled_decay_if, weight_decay_if
from functrain.optim.rates import LearningRateState, initial_rate, next_rate, require_learning_rate
from functrain.optim.rmsprop import scale_by_rms
from functrain.optim.schedules import Hyperparameter


@node
class ScheduleFreeState(KnowsAverages):
    """State of `step_schedule_free`."""

    rate: LearningRateState
    momentum: torch.Tensor  # weight of x in y, float64 []
    max_lr: torch.Tensor  # largest learning rate so far, float64 []
    weight_sum: torch.Tensor  # of the average x, float64 []
    z: Tree  # where the steps lead, as params

    def averages(self, params: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """The points x, from y and z.

        Example:
            >>> state = schedule_free_sgd().init({"w": torch.tensor(1.0)})[-1]
            >>> state.averages({"w": torch.tensor(1.0)})
            {'w': tensor(1.)}
        """
        z, y = trees.leaves(self.z), trained_by(self.z, params)
        towards = foreach("sub", z, list(y.values()))
        return dict(zip(y, add_scaled(list(y.values()), towards, 1 - 1 / self.momentum)))


@remembered
def step_schedule_free(
    lr: Hyperparameter, momentum: float = 0.9, warmup_steps: int = 0, r: float = 0.0, weight_lr_power: float = 2.0
) -> Optimizer:
    """The last part of a schedule-free chain: it takes directions and moves z, x and y.

    Args:
        lr: learning rate, number >= 0 or schedule.
        momentum: weight of x in y, in (0, 1).
        warmup_steps: length of a linear ramp of the learning rate in front.
        r: the z of update t enters the average with weight `t^r ...`
        weight_lr_power: `... * max_lr^weight_lr_power`.

    References:
        Defazio et al., The Road Less Scheduled, NeurIPS 2024, equations 3 to 5.

    Example:
        >>> transform, params = step_schedule_free(0.1), {"w": torch.tensor(1.0)}
        >>> transform.update({"w": torch.tensor(2.0)}, transform.init(params), params)[0]
        {'w': tensor(-0.2000)}
    """
    require_learning_rate(lr)
    require_non_negative("r", r)
    require_fraction("momentum", momentum)
    require_positive("momentum", momentum)
    require_steps("warmup_steps", warmup_steps, least=0)
    require_non_negative("weight_lr_power", weight_lr_power)

    def init(params: Tree) -> ScheduleFreeState:
        rate = initial_rate(lr, params)
        zeros_like(params)  # refuses what is no real floating-point tensor
        z, zero = trees.tree_map(torch.clone, params), torch.zeros_like(rate.lr)
        return ScheduleFreeState(rate, torch.full_like(rate.lr, momentum), zero, zero.clone(), z)

    def update(updates: Tree, state: ScheduleFreeState, params: Tree) -> tuple[Tree, ScheduleFreeState]:
        spec, (directions, y, z) = aligned_leaves(updates=updates, params=params, z=state.z)
        number = (state.rate.count + 1).double()
        step, rate = next_rate(lr, state.rate)
        if warmup_steps:
            step = step * (number / warmup_steps).clamp(max=1.0)
        max_lr = torch.maximum(state.max_lr, step)
        weight = number**r * max_lr**weight_lr_power
        weight_sum = state.weight_sum + weight
        share = torch.where(weight_sum > 0, weight / torch.where(weight_sum > 0, weight_sum, 1.0), 0.0)
        # x moves by share (z' - x); written with y, from which x is not kept apart.
        moved = overwrite("mul", foreach("sub", z, y), share)
        steps = foreach("mul", directions, step * (state.momentum * (1 - share) - 1))
        new_z = overwrite("add", foreach("mul", directions, -step), z)
        new_state = ScheduleFreeState(rate, state.momentum, max_lr, weight_sum, trees.unflatten(spec, new_z))
        return trees.unflatten(spec, overwrite("add", moved, steps)), new_state

    return Optimizer(init, update)


@remembered
def schedule_free_sgd(
    lr: Hyperparameter = 1.0,
    momentum: float = 0.9,
    weight_decay: Hyperparameter = 0.0,
    warmup_steps: int = 0,
    r: float = 0.0,
    weight_lr_power: float = 2.0,
    *,
    maximize: bool = False,
    weight_decay_mask: Mask | None = None,
) -> Optimizer:
    """SGD that needs no schedule: it averages its way down.

        g = gradient at y + weight_decay y;  z -= lr g;  x += c (z - x);  y = (1 - momentum) z + momentum x
        c = w_t / (w_1 + ... + w_t)  with  w_t = t^r max_lr^weight_lr_power

    The parameters in training are y; evaluate at `evaluation_params(opt_state, params)`, which is x.
    Arguments and defaults are those of the authors' SGDScheduleFree.

    Args:
        lr: learning rate, number >= 0 or schedule; the authors advise 10 to 50 times SGD's.
        momentum: weight of x in y, in (0, 1).
        weight_decay: L2 coefficient at y, >= 0 or schedule.
        warmup_steps: length of a linear ramp of the learning rate.
        r: exponent of t in the weights of the average.
        weight_lr_power: exponent of the learning rate in them.
        maximize: ascend.
        weight_decay_mask: which parameters decay; all by default.

    Raises:
        TypeError: an argument is of the wrong type.
        ValueError: an argument is out of range.

    References:
        Defazio et al., The Road Less Scheduled, NeurIPS 2024, equations 3 to 5.

    Example:
        >>> params = {"w": torch.tensor(1.0)}
        >>> optimizer = schedule_free_sgd(0.1)
        >>> optimizer.update({"w": torch.tensor(2.0)}, optimizer.init(params), params)[0]
        {'w': tensor(-0.2000)}
    """
    return chain(
        ascend_if(maximize),
        weight_decay_if(weight_decay, weight_decay_mask),
        step_schedule_free(lr, momentum, warmup_steps, r, weight_lr_power),
    )


@remembered
def schedule_free_adamw(
    lr: Hyperparameter = 2.5e-3,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: Hyperparameter = 0.0,
    warmup_steps: int = 0,
    r: float = 0.0,
    weight_lr_power: float = 2.0,
    *,
    maximize: bool = False,
    weight_decay_mask: Mask | None = None,
) -> Optimizer:
    """AdamW that needs no schedule: it averages its way down.

        g = gradient at y;  v = beta2 v + (1 - beta2) g²;  d = g / (sqrt(v / (1 - beta2^t)) + eps) + weight_decay y
        z -= lr d;  x += c (z - x);  y = (1 - beta1) z + beta1 x;  c as in `schedule_free_sgd`

    The parameters in training are y; evaluate at `evaluation_params(opt_state, params)`, which is x.
    Arguments and defaults are those of the authors' AdamWScheduleFree.

    Args:
        lr: learning rate, number >= 0 or schedule; the authors advise 1 to 10 times AdamW's.
        betas: weight of x in y, in (0, 1), and decay of the second moment, in [0, 1).
        eps: added to the denominator, >= 0.
        weight_decay: coefficient of the decoupled decay at y, >= 0 or schedule.
        warmup_steps: length of a linear ramp of the learning rate.
        r: exponent of t in the weights of the average.
        weight_lr_power: exponent of the learning rate in them.
        maximize: ascend; the decay still shrinks.
        weight_decay_mask: which parameters decay; all by default.

    Raises:
        TypeError: an argument is of the wrong type.
        ValueError: an argument is out of range.

    References:
        Defazio et al., The Road Less Scheduled, NeurIPS 2024, algorithm 1.

    Example:
        >>> params = {"w": torch.tensor(1.0)}
        >>> optimizer = schedule_free_adamw(0.1)
        >>> optimizer.update({"w": torch.tensor(2.0)}, optimizer.init(params), params)[0]
        {'w': tensor(-0.1000)}
    """
    require_betas(betas)
    return chain(
        ascend_if(maximize),
        scale_by_rms(betas[1], eps, debias=True),
        decoupled_decay_if(weight_decay, weight_decay_mask),
        step_schedule_free(lr, betas[0], warmup_steps, r, weight_lr_power),
    )
