"""Schedules that fall from a rate to an end, with a ramp in front where wanted."""

import math
from typing import Literal

import torch

from functrain.foundation.making import remembered
from functrain.optim.checks import (
    require_choice,
    require_fraction,
    require_non_negative,
    require_positive,
    require_steps,
)
from functrain.optim.schedules.base import Schedule, from_formula, number_of
from functrain.optim.schedules.combine import warmup


@remembered
def constant(lr: float) -> Schedule:
    """The same rate always.

    Example:
        >>> constant(0.1)(1000)
        0.1
    """
    require_non_negative("lr", lr)

    def formula(count: torch.Tensor) -> torch.Tensor:
        rate = number_of(lr)
        return rate if isinstance(rate, torch.Tensor) else torch.full_like(count, rate, dtype=torch.float64)

    return from_formula(formula)


@remembered
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

    return warmup(from_formula(formula), warmup_steps)


@remembered
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

    return warmup(from_formula(formula), warmup_steps)


@remembered
def polynomial(lr: float, total_steps: int, power: float = 1.0, *, end: float = 0.0, warmup_steps: int = 0) -> Schedule:
    """From `lr` to `end` as `(1 - t / total_steps)^power`.

    Equal to torch's PolynomialLR of the same power, with end = 0 and total_iters=total_steps.

    Args:
        lr: rate at step 0, or at the end of the warmup.
        total_steps: length in updates, the warmup included.
        power: of the polynomial, > 0; 1 is a straight line.
        end: rate from `total_steps` on.
        warmup_steps: length of a linear ramp from 0 in front, see `warmup`.

    Example:
        >>> [polynomial(1.0, 4, power=2.0)(step) for step in range(6)]
        [1.0, 0.5625, 0.25, 0.0625, 0.0, 0.0]
    """
    require_positive("power", power)
    decay_steps = _decay_steps(lr, total_steps, end, warmup_steps)

    def formula(count: torch.Tensor) -> torch.Tensor:
        left = (1 - count.double() / decay_steps).clamp(min=0.0)
        return end + (lr - end) * left**power

    return warmup(from_formula(formula), warmup_steps)


@remembered
def inverse_sqrt(lr: float, warmup_steps: int) -> Schedule:
    """A ramp from 0 to `lr` in `warmup_steps` updates, then `lr sqrt(warmup_steps / t)`.

    Args:
        lr: the peak.
        warmup_steps: length of the ramp in updates, >= 1; it sets how fast the rate falls, too.

    References:
        Vaswani et al., Attention Is All You Need, NeurIPS 2017, equation 3.

    Example:
        >>> [inverse_sqrt(1.0, 4)(step) for step in (0, 2, 4, 16, 64)]
        [0.0, 0.5, 1.0, 0.5, 0.25]
    """
    require_non_negative("lr", lr)
    require_steps("warmup_steps", warmup_steps)

    def formula(count: torch.Tensor) -> torch.Tensor:
        now = count.double()
        return lr * torch.minimum(now / warmup_steps, (warmup_steps / now.clamp(min=1.0)).sqrt())

    return from_formula(formula)


@remembered
def warmup_stable_decay(
    lr: float,
    total_steps: int,
    *,
    decay_steps: int,
    warmup_steps: int = 0,
    end: float = 0.0,
    decay: Literal["linear", "cosine", "sqrt"] = "linear",
) -> Schedule:
    """A ramp from 0, `lr` for most of the way, and a fall to `end` over the last `decay_steps`.

    Args:
        lr: the level.
        total_steps: length in updates, ramp and fall included.
        decay_steps: length of the fall.
        warmup_steps: length of the ramp.
        end: rate from `total_steps` on.
        decay: shape of the fall: "linear", "cosine", or "sqrt" for `1 - sqrt(t)`.

    References:
        Hu et al., MiniCPM, 2024, section 4; Hägele et al., Scaling Laws and Compute-Optimal Training Beyond
        Fixed Training Durations, NeurIPS 2024, equation 2 (sqrt).

    Example:
        >>> schedule = warmup_stable_decay(1.0, 8, warmup_steps=2, decay_steps=4)
        >>> [schedule(step) for step in range(10)]
        [0.0, 0.5, 1.0, 1.0, 1.0, 0.75, 0.5, 0.25, 0.0, 0.0]
    """
    require_choice("decay", decay, ("linear", "cosine", "sqrt"))
    require_steps("decay_steps", decay_steps)
    length = _decay_steps(lr, total_steps, end, warmup_steps)
    if decay_steps > length:
        raise ValueError(
            f"warmup_steps + decay_steps must be at most total_steps, got {warmup_steps} + {decay_steps} > "
            f"{total_steps}"
        )

    def formula(count: torch.Tensor) -> torch.Tensor:
        done = ((count - (length - decay_steps)).double() / decay_steps).clamp(0.0, 1.0)
        if decay == "cosine":
            done = (1 - torch.cos(math.pi * done)) / 2
        elif decay == "sqrt":
            done = done.sqrt()
        return lr * (1 - done) + end * done

    return warmup(from_formula(formula), warmup_steps)


@remembered
def ema_decay(decay: float, *, warmup: bool = False, every: int = 1) -> Schedule:
    """The decay of a moving average of parameters: constant, or rising to it, or with 1 (no change) between.

    With `warmup` the n-th averaging has `min(decay, (1 + n) / (10 + n))`, so that a young average is not
    held back by the initial parameters. `ema_update` takes the value.

    Args:
        decay: the decay in the end, in [0, 1).
        warmup: rise to it.
        every: average at every so many updates only, first at update `every`; n counts these.

    References:
        tf.train.ExponentialMovingAverage of TensorFlow, argument `num_updates`.

    Example:
        >>> [round(ema_decay(0.25, warmup=True)(n), 3) for n in range(4)]
        [0.1, 0.182, 0.25, 0.25]
        >>> [ema_decay(0.5, every=3)(n) for n in range(6)]
        [1.0, 1.0, 0.5, 1.0, 1.0, 0.5]
    """
    require_fraction("decay", decay)
    require_steps("every", every)

    def formula(count: torch.Tensor) -> torch.Tensor:
        done = torch.floor_divide(count, every).double()
        now = ((1 + done) / (10 + done)).clamp(max=decay) if warmup else torch.full_like(done, decay)
        return torch.where((count + 1) % every == 0, now, 1.0)

    return from_formula(formula)


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
