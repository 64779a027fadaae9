"""Learning-rate schedules: pure functions from the number of past updates to a rate. Imports foundation only.

`schedule(step)` takes a Python int and returns a float, or takes a 0-d integer tensor and returns a float64
0-d tensor on the same device, by torch operations alone: it compiles into the step and never waits for the
device. The first update has step 0. Past its end a schedule stays at its last value.
"""

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from functrain.optim.checks import require_non_negative, require_positive, require_steps

Schedule = Callable[[Any], Any]


def constant(lr: float) -> Schedule:
    """The same rate always.

    Example:
        >>> constant(0.1)(1000)
        0.1
    """
    require_non_negative("lr", lr)
    return _schedule(lambda count: torch.full_like(count, lr, dtype=torch.float64))


def linear(lr: float, total_steps: int, end: float = 0.0, *, warmup_steps: int = 0) -> Schedule:
    """A straight line from `lr` to `end`, reached at `total_steps`.

    Equal to torch's LinearLR with start_factor=1, end_factor=end/lr, total_iters=total_steps.

    Args:
        lr: rate at step 0, or at the end of the warmup.
        total_steps: length in updates, the warmup included.
        end: rate from `total_steps` on.
        warmup_steps: length of a linear ramp from 0 in front, see `warmup`.

    Raises:
        TypeError: an argument is not a number, a length not an int.
        ValueError: a rate is negative, a length out of range.

    Example:
        >>> [linear(1.0, 4)(step) for step in range(6)]
        [1.0, 0.75, 0.5, 0.25, 0.0, 0.0]
    """
    decay_steps = _decay_steps(lr, total_steps, end, warmup_steps)

    def formula(count: torch.Tensor) -> torch.Tensor:
        done = (count.double() / decay_steps).clamp(max=1.0)
        return lr * (1 - done) + end * done

    return warmup(_schedule(formula), warmup_steps)


def cosine(lr: float, total_steps: int, *, warmup_steps: int = 0, end: float = 0.0) -> Schedule:
    """Half a cosine wave from `lr` to `end`: `end + (lr - end) (1 + cos(pi t / total_steps)) / 2`.

    Equal to torch's CosineAnnealingLR with T_max=total_steps, eta_min=end, up to total_steps; after that
    torch's goes up again, this one stays.

    Args:
        lr: rate at step 0, or at the end of the warmup.
        total_steps: length in updates, the warmup included.
        warmup_steps: length of a linear ramp from 0 in front, see `warmup`.
        end: rate from `total_steps` on.

    Raises:
        TypeError: an argument is not a number, a length not an int.
        ValueError: a rate is negative, a length out of range.

    References:
        Loshchilov & Hutter, SGDR: Stochastic Gradient Descent with Warm Restarts, ICLR 2017, equation 5.

    Example:
        >>> [round(cosine(1.0, 4, warmup_steps=2)(step), 3) for step in range(6)]
        [0.0, 0.5, 1.0, 0.5, 0.0, 0.0]
    """
    decay_steps = _decay_steps(lr, total_steps, end, warmup_steps)

    def formula(count: torch.Tensor) -> torch.Tensor:
        done = (count.double() / decay_steps).clamp(max=1.0)
        return end + (lr - end) * (1 + torch.cos(math.pi * done)) / 2

    return warmup(_schedule(formula), warmup_steps)


def step(lr: float, step_size: int, gamma: float = 0.1) -> Schedule:
    """Multiply the rate by `gamma` every `step_size` updates; equal to torch's StepLR.

    Example:
        >>> [step(8.0, 2, gamma=0.5)(n) for n in range(5)]
        [8.0, 8.0, 4.0, 4.0, 2.0]
    """
    require_non_negative("lr", lr)
    require_steps("step_size", step_size)
    require_positive("gamma", gamma)
    return _schedule(lambda count: lr * gamma ** torch.floor_divide(count, step_size).double())


def exponential(lr: float, gamma: float) -> Schedule:
    """Multiply the rate by `gamma` at every update; equal to torch's ExponentialLR.

    Example:
        >>> [exponential(8.0, 0.5)(n) for n in range(4)]
        [8.0, 4.0, 2.0, 1.0]
    """
    require_non_negative("lr", lr)
    require_positive("gamma", gamma)
    return _schedule(lambda count: lr * gamma ** count.double())


def warmup(schedule: Schedule, warmup_steps: int, start: float = 0.0) -> Schedule:
    """A straight line from `start` to `schedule(0)` over `warmup_steps` updates, then `schedule` from its 0.

    Equal to torch's SequentialLR of LinearLR(start_factor=start/lr) and the schedule, with the milestone
    `warmup_steps`.

    Args:
        schedule: what follows the ramp.
        warmup_steps: length of the ramp in updates; 0 gives `schedule` itself.
        start: rate of the first update.

    Example:
        >>> [warmup(constant(1.0), 4)(n) for n in range(6)]
        [0.0, 0.25, 0.5, 0.75, 1.0, 1.0]
    """
    require_steps("warmup_steps", warmup_steps, least=0)
    require_non_negative("start", start)
    if warmup_steps == 0:
        return schedule

    def ramp(count: torch.Tensor) -> torch.Tensor:
        done = (count.double() / warmup_steps).clamp(max=1.0)
        return start * (1 - done) + rate_at(schedule, torch.zeros_like(count)) * done

    return join([_schedule(ramp), schedule], [warmup_steps])


def join(schedules: Sequence[Schedule], boundaries: Sequence[int]) -> Schedule:
    """One schedule after another, each counting from its own start; equal to torch's SequentialLR.

    Args:
        schedules: n schedules.
        boundaries: n - 1 increasing steps; from `boundaries[i]` on `schedules[i + 1]` rules.

    Raises:
        ValueError: the numbers do not fit, or the boundaries do not increase.

    Example:
        >>> [join([constant(1.0), linear(0.5, 2)], [2])(n) for n in range(5)]
        [1.0, 1.0, 0.5, 0.25, 0.0]
    """
    if len(boundaries) != len(schedules) - 1:
        raise ValueError(
            f"join needs one boundary fewer than schedules, got {len(schedules)} schedules "
            f"and {len(boundaries)} boundaries"
        )
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

    return _schedule(formula)


def rate_at(schedule: Schedule, count: torch.Tensor) -> torch.Tensor:
    """What a schedule, anybody's, gives for a 0-d count, made a float64 0-d tensor on the count's device.

    Example:
        >>> rate_at(lambda step: 0.5, torch.tensor(3))
        tensor(0.5000, dtype=torch.float64)
    """
    rate = schedule(count)
    if isinstance(rate, torch.Tensor):
        return rate.to(device=count.device, dtype=torch.float64)
    return torch.full_like(count, rate, dtype=torch.float64)


def _schedule(formula: Callable[[torch.Tensor], torch.Tensor]) -> Schedule:
    """Let a formula on 0-d tensors take Python ints too, so that both ways agree to the last bit."""

    def schedule(step: Any) -> Any:
        if isinstance(step, torch.Tensor):
            return formula(step)
        require_steps("step", step, least=0)
        return formula(torch.tensor(step, device="cpu")).item()

    return schedule


def _decay_steps(lr: float, total_steps: int, end: float, warmup_steps: int) -> int:
    """Check the arguments of a schedule with an end, and count the steps after its warmup."""
    require_non_negative("lr", lr)
    require_non_negative("end", end)
    require_steps("total_steps", total_steps)
    require_steps("warmup_steps", warmup_steps, least=0)
    if warmup_steps >= total_steps:
        raise ValueError(
            f"warmup_steps must be smaller than total_steps, which includes them, "
            f"got warmup_steps={warmup_steps} and total_steps={total_steps}"
        )
    return total_steps - warmup_steps


# What a configuration can name: the schedules that are built from numbers alone.
REGISTRY: Mapping[str, Callable[..., Schedule]] = {
    "constant": constant,
    "linear": linear,
    "cosine": cosine,
    "step": step,
    "exponential": exponential,
}
