"""Schedules made of schedules: one after another, behind a ramp, by the epoch."""

import itertools
from collections.abc import Sequence

import torch

from functrain.foundation.making import remembered
from functrain.optim.checks import require_non_negative, require_schedule, require_steps
from functrain.optim.schedules.base import Schedule, from_formula, rate_at


@remembered
def warmup(schedule: Schedule, warmup_steps: int, start: float = 0.0) -> Schedule:
    """A straight line from `start` to `schedule(0)` over `warmup_steps` updates, then `schedule` from its 0.

    Equal to torch's SequentialLR of LinearLR(start_factor=start/lr) and the schedule, with the milestone
    `warmup_steps`.

    Args:
        schedule: what follows the ramp.
        warmup_steps: length of the ramp in updates; 0 gives `schedule` itself.
        start: rate of the first update.

    Example:
        >>> from functrain.optim.schedules import constant
        >>> [warmup(constant(1.0), 4)(n) for n in range(6)]
        [0.0, 0.25, 0.5, 0.75, 1.0, 1.0]
    """
    require_schedule("schedule", schedule)
    require_steps("warmup_steps", warmup_steps, least=0)
    require_non_negative("start", start)
    if warmup_steps == 0:
        return schedule

    def ramp(count: torch.Tensor) -> torch.Tensor:
        done = (count.double() / warmup_steps).clamp(max=1.0)
        return start * (1 - done) + rate_at(schedule, torch.zeros_like(count)) * done

    return join([from_formula(ramp), schedule], [warmup_steps])


@remembered
def join(schedules: Sequence[Schedule], boundaries: Sequence[int]) -> Schedule:
    """One schedule after another, each counting from its own start; equal to torch's SequentialLR.

    Args:
        schedules: n schedules.
        boundaries: n - 1 increasing steps; from `boundaries[i]` on `schedules[i + 1]` rules.

    Raises:
        ValueError: the numbers do not fit, or the boundaries do not increase.

    Example:
        >>> from functrain.optim.schedules import constant, linear
        >>> [join([constant(1.0), linear(0.5, 2)], [2])(n) for n in range(5)]
        [1.0, 1.0, 0.5, 0.25, 0.0]
    """
    if len(boundaries) != len(schedules) - 1:
        raise ValueError(
            f"join needs one boundary fewer than schedules, got {len(schedules)} schedules "
            f"and {len(boundaries)} boundaries"
        )
    for schedule in schedules:
        require_schedule("each of the schedules", schedule)
    for boundary in boundaries:
        require_steps("each boundary", boundary)
    if any(later <= earlier for earlier, later in itertools.pairwise(boundaries)):
        raise ValueError(f"boundaries must increase, got {list(boundaries)}")
    parts, starts = tuple(schedules), (0, *boundaries)

    def formula(count: torch.Tensor) -> torch.Tensor:
        value = rate_at(parts[0], count)
        for part, begin in zip(parts[1:], starts[1:]):
            # Clamped, for torch.where computes both sides and a schedule is not defined before its start.
            later = rate_at(part, (count - begin).clamp(min=0))
            value = torch.where(count >= begin, later, value)
        return value

    return from_formula(formula)


@remembered
def per_epoch(schedule: Schedule, steps_per_epoch: int, *, warmup_steps: int = 0) -> Schedule:
    """A schedule that counts epochs: it changes at their ends only, as a torch scheduler stepped once an epoch.

    Args:
        schedule: of the number of completed epochs.
        steps_per_epoch: optimizer updates in an epoch.
        warmup_steps: length in updates of a straight line from 0 to the epoch's rate in front, which does not shift
            the epochs; 0 for none.

    Example:
        >>> from functrain.optim.schedules import exponential
        >>> [per_epoch(exponential(8.0, 0.5), steps_per_epoch=2)(n) for n in range(5)]
        [8.0, 8.0, 4.0, 4.0, 2.0]
    """
    require_schedule("schedule", schedule)
    require_steps("steps_per_epoch", steps_per_epoch)
    require_steps("warmup_steps", warmup_steps, least=0)

    def formula(count: torch.Tensor) -> torch.Tensor:
        rate = rate_at(schedule, torch.floor_divide(count, steps_per_epoch))
        return rate * (count.double() / warmup_steps).clamp(max=1.0) if warmup_steps else rate

    return from_formula(formula)
