"""Schedules with a ramp of a shape of its own, and a fall behind it."""

import math
from typing import Literal

import torch

from functrain.optim.checks import require_choice, require_non_negative, require_steps
from functrain.optim.schedules.base import Schedule, from_formula

Ramp = Literal["linear", "log"]
Decay = Literal["none", "linear", "cosine"]


def warmup_decay(
    lr: float,
    total_steps: int,
    *,
    warmup_steps: int = 0,
    start: float = 0.0,
    ramp: Ramp = "linear",
    decay: Decay = "linear",
    end: float = 0.0,
) -> Schedule:
    """A ramp from `start` to `lr`, and a fall from `lr` to `end`, each of a shape that is chosen.

    With `ramp="log"` these are the rates of DeepSpeed's WarmupLR (`decay="none"`), WarmupDecayLR (`"linear"`) and
    WarmupCosineLR (`"cosine"`), whose update n + 1 has the rate of step n here.

    Args:
        lr: rate at the end of the ramp.
        total_steps: length in updates, the ramp included; without a decay it does not matter.
        warmup_steps: length of the ramp in updates; 0 for none.
        start: rate of the first update, if there is a ramp.
        ramp: "linear", or "log" for `log(t + 1) / log(warmup_steps)`, which rises fast at first.
        decay: "none", "linear" or "cosine".
        end: rate from `total_steps` on.

    Raises:
        TypeError: an argument is not a number, a length not an int.
        ValueError: a rate is negative, a length out of range, or a shape unknown.

    Example:
        >>> [warmup_decay(1.0, 6, warmup_steps=2)(step) for step in range(7)]
        [0.0, 0.5, 1.0, 0.75, 0.5, 0.25, 0.0]
        >>> [round(warmup_decay(1.0, 6, warmup_steps=4, ramp="log")(step), 2) for step in range(7)]
        [0.0, 0.5, 0.79, 1.0, 1.0, 0.5, 0.0]
    """
    for name, rate in (("lr", lr), ("start", start), ("end", end)):
        require_non_negative(name, rate)
    require_choice("ramp", ramp, ("linear", "log"))
    require_choice("decay", decay, ("none", "linear", "cosine"))
    require_steps("total_steps", total_steps)
    require_steps("warmup_steps", warmup_steps, least=0)
    if decay != "none" and warmup_steps >= total_steps:
        raise ValueError(
            f"warmup_steps must be smaller than total_steps, which includes them, "
            f"got warmup_steps={warmup_steps} and total_steps={total_steps}"
        )
    length, scale = max(warmup_steps, 1), 1 / math.log(max(warmup_steps, 2))

    def formula(count: torch.Tensor) -> torch.Tensor:
        time = count.double()
        rising = torch.log1p(time) * scale if ramp == "log" else time / length
        past = ((time - warmup_steps) / max(total_steps - warmup_steps, 1)).clamp(0.0, 1.0)
        left = {"none": torch.ones_like(past), "linear": 1 - past, "cosine": (1 + torch.cos(math.pi * past)) / 2}[decay]
        return torch.where(count < warmup_steps, start + (lr - start) * rising, end + (lr - end) * left)

    return from_formula(formula)
