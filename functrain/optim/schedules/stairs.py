"""Schedules that multiply by a factor: at every update, every so many, or at chosen ones."""

from collections.abc import Sequence

import torch

from functrain.foundation.making import remembered
from functrain.optim.checks import require_list, require_non_negative, require_positive, require_steps
from functrain.optim.schedules.base import Schedule, from_formula


@remembered
def exponential(lr: float, gamma: float) -> Schedule:
    """Multiply the rate by `gamma` at every update; equal to torch's ExponentialLR.

    Example:
        >>> [exponential(8.0, 0.5)(n) for n in range(4)]
        [8.0, 4.0, 2.0, 1.0]
    """
    require_non_negative("lr", lr)
    require_positive("gamma", gamma)
    return from_formula(lambda count: lr * gamma ** count.double())


@remembered
def step(lr: float, step_size: int, gamma: float = 0.1) -> Schedule:
    """Multiply the rate by `gamma` every `step_size` updates; equal to torch's StepLR.

    Example:
        >>> [step(8.0, 2, gamma=0.5)(n) for n in range(5)]
        [8.0, 8.0, 4.0, 4.0, 2.0]
    """
    require_non_negative("lr", lr)
    require_steps("step_size", step_size)
    require_positive("gamma", gamma)
    return from_formula(lambda count: lr * gamma ** torch.floor_divide(count, step_size).double())


@remembered
def multi_step(lr: float, milestones: Sequence[int], gamma: float = 0.1) -> Schedule:
    """Multiply the rate by `gamma` at each of the `milestones`; equal to torch's MultiStepLR.

    Args:
        lr: rate at step 0.
        milestones: steps in any order, each > 0; one that is named twice counts twice.
        gamma: the factor, > 0.

    Example:
        >>> [multi_step(8.0, [1, 3], gamma=0.5)(n) for n in range(5)]
        [8.0, 4.0, 4.0, 2.0, 2.0]
    """
    require_non_negative("lr", lr)
    require_positive("gamma", gamma)
    require_list("milestones", milestones, "numbers of optimizer updates")
    for milestone in milestones:
        require_steps("each milestone", milestone)
    ascending = tuple(sorted(milestones))

    def formula(count: torch.Tensor) -> torch.Tensor:
        passed = torch.zeros_like(count)
        for milestone in ascending:
            passed = passed + (count >= milestone)
        return lr * gamma ** passed.double()

    return from_formula(formula)
