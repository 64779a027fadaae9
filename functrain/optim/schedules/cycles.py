"""Schedules that rise and fall: cosine waves with restarts, one cycle of rate and momentum."""

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
from functrain.optim.schedules.base import Schedule, from_formula

Anneal = Literal["cos", "linear"]


@remembered
def cosine_restarts(lr: float, first_steps: int, multiplier: int = 1, *, end: float = 0.0) -> Schedule:
    """Half a cosine wave from `lr` to `end`, again and again, each `multiplier` times as long as the one before.

    Equal to torch's CosineAnnealingWarmRestarts with T_0=first_steps, T_mult=multiplier, eta_min=end.

    Args:
        lr: rate at each start.
        first_steps: length of the first wave in updates.
        multiplier: growth of the length, an int >= 1.
        end: rate that each wave goes down to.

    References:
        Loshchilov & Hutter, SGDR: Stochastic Gradient Descent with Warm Restarts, ICLR 2017, equation 5.

    Example:
        >>> [round(cosine_restarts(1.0, 2, multiplier=2)(n), 3) for n in range(7)]
        [1.0, 0.5, 1.0, 0.854, 0.5, 0.146, 1.0]
    """
    require_non_negative("lr", lr)
    require_non_negative("end", end)
    require_steps("first_steps", first_steps)
    require_steps("multiplier", multiplier)

    def formula(count: torch.Tensor) -> torch.Tensor:
        length = torch.full_like(count, first_steps)
        begin = torch.floor_divide(count, first_steps) * first_steps
        if multiplier > 1:
            # Wave n begins at first_steps (m^n - 1) / (m - 1). In float64, then put right by one where it rounded.
            wave = (torch.log1p(count.double() * (multiplier - 1) / first_steps) / math.log(multiplier)).floor()
            wave = torch.where(_begin(wave + 1, first_steps, multiplier) <= count, wave + 1, wave)
            wave = torch.where(_begin(wave, first_steps, multiplier) > count, wave - 1, wave)
            length = first_steps * multiplier**wave
            begin = _begin(wave, first_steps, multiplier)
        done = (count - begin).double() / length
        return end + (lr - end) * (1 + torch.cos(math.pi * done)) / 2

    return from_formula(formula)


@remembered
def one_cycle(
    lr: float,
    total_steps: int,
    pct_start: float = 0.3,
    anneal_strategy: Anneal = "cos",
    div_factor: float = 25.0,
    final_div_factor: float = 1e4,
    three_phase: bool = False,
) -> Schedule:
    """Up from `lr / div_factor` to `lr`, then down far below the start; equal to torch's OneCycleLR of max_lr=lr.

    Args:
        lr: the peak.
        total_steps: length in updates; its last step, total_steps - 1, has the lowest rate.
        pct_start: fraction of the steps that the rise takes, in [0, 1).
        anneal_strategy: "cos" or "linear".
        div_factor: peak over first rate.
        final_div_factor: first rate over last.
        three_phase: fall to the first rate as symmetrically as it rose, then to the last.

    References:
        Smith & Topin, Super-Convergence: Very Fast Training of Neural Networks Using Large Learning Rates, 2019.

    Example:
        >>> [round(one_cycle(1.0, 5, pct_start=0.5)(n), 3) for n in range(6)]
        [0.04, 0.76, 0.905, 0.345, 0.0, 0.0]
    """
    require_positive("lr", lr)
    require_positive("div_factor", div_factor)
    require_positive("final_div_factor", final_div_factor)
    first = lr / div_factor
    values = [first, lr, first, first / final_div_factor] if three_phase else [first, lr, first / final_div_factor]
    return _phases(values, total_steps, pct_start, anneal_strategy, three_phase)


@remembered
def one_cycle_momentum(
    base_momentum: float,
    max_momentum: float,
    total_steps: int,
    pct_start: float = 0.3,
    anneal_strategy: Anneal = "cos",
    three_phase: bool = False,
) -> Schedule:
    """The momentum (Adam's beta1) to go with `one_cycle`: low where the rate is high.

    Args:
        base_momentum: the lowest, at the rate's peak; torch's default is 0.85.
        max_momentum: the highest, at both ends; torch's default is 0.95.
        total_steps: as of `one_cycle`, and so the others.
        pct_start: fraction of the steps that the way down takes.
        anneal_strategy: "cos" or "linear".
        three_phase: stay at the highest in the last phase.

    Example:
        >>> [round(one_cycle_momentum(0.85, 0.95, 5, pct_start=0.5)(n), 3) for n in range(5)]
        [0.95, 0.875, 0.86, 0.915, 0.95]
    """
    require_non_negative("base_momentum", base_momentum)
    require_non_negative("max_momentum", max_momentum)
    values = [max_momentum, base_momentum, max_momentum, *([max_momentum] if three_phase else [])]
    return _phases(values, total_steps, pct_start, anneal_strategy, three_phase)


def _phases(
    values: list[float], total_steps: int, pct_start: float, anneal_strategy: str, three_phase: bool
) -> Schedule:
    """From value to value; the turns lie between steps, where torch's OneCycleLR has them."""
    require_steps("total_steps", total_steps)
    require_fraction("pct_start", pct_start)
    require_choice("anneal_strategy", anneal_strategy, ("cos", "linear"))
    rise = pct_start * total_steps - 1
    ends = [rise, 2 * rise, total_steps - 1] if three_phase else [rise, total_steps - 1]
    if three_phase and 2 * rise >= total_steps - 1:
        raise ValueError(
            f"three_phase needs pct_start < 0.5, for rise and fall take it twice; got pct_start={pct_start!r} "
            f"of {total_steps} steps"
        )

    def formula(count: torch.Tensor) -> torch.Tensor:
        now = count.double()
        rate = torch.full_like(now, values[-1])
        for index in reversed(range(len(ends))):
            begin, end = (ends[index - 1] if index else 0.0), ends[index]
            # A phase of no length has no inner point; where() below never takes it but at its end.
            done = ((now - begin) / (end - begin if end != begin else 1.0)).clamp(max=1.0)
            if anneal_strategy == "cos":
                done = (1 - torch.cos(math.pi * done)) / 2
            here = values[index] + (values[index + 1] - values[index]) * done
            rate = torch.where(now <= end, here, rate)
        return rate

    return from_formula(formula)


def _begin(wave: torch.Tensor, first_steps: int, multiplier: int) -> torch.Tensor:
    return first_steps * (multiplier**wave - 1) / (multiplier - 1)
