"""Loss scaling for fp16, dynamic or constant, as state.

float16 gradients below 6e-8 vanish, so the loss is multiplied by a scale before the backward pass
and the gradients are divided by it after. Values as in torch.amp.GradScaler.

References:
    Micikevicius et al. 2018, "Mixed Precision Training", section 3.2.
"""

import dataclasses

import torch
from torch import Tensor

from functrain.foundation.numbers import is_integer, is_number
from functrain.foundation.trees import node

INITIAL_SCALE = 2.0**16
GROWTH_FACTOR = 2.0
BACKOFF_FACTOR = 0.5
GROWTH_INTERVAL = 2000
LARGEST_SCALE = 2.0**120  # stays finite in float32, times any loss that is
SMALLEST_SCALE = 2.0**-24  # a scale that reached 0 could never grow again


@dataclasses.dataclass(frozen=True)
class LossScaling:
    """How a loss scale adapts itself; names and defaults of torch.amp.GradScaler's arguments.

    Powers of two change no bit of an update but where a number overflows or becomes subnormal.

    Args:
        init_scale: the first scale, > 0.
        growth_factor: of the scale after `growth_interval` good updates in a row, > 1.
        backoff_factor: of the scale after an overflow, in (0, 1).
        growth_interval: in updates, >= 1.

    Raises:
        TypeError: an argument is no number.
        ValueError: an argument is out of range.

    Example:
        >>> LossScaling(growth_interval=100).growth_factor
        2.0
    """

    init_scale: float = INITIAL_SCALE
    growth_factor: float = GROWTH_FACTOR
    backoff_factor: float = BACKOFF_FACTOR
    growth_interval: int = GROWTH_INTERVAL

    def __post_init__(self) -> None:
        """Refuse what cannot work."""
        for name in ("init_scale", "growth_factor", "backoff_factor"):
            value = getattr(self, name)
            if not is_number(value):
                raise TypeError(f"{name} must be a number, got {value!r}")
        allowed = {
            "init_scale": ("a number in (0, 2^120]", 0 < self.init_scale <= LARGEST_SCALE),
            "growth_factor": ("a finite number > 1", 1 < self.growth_factor < float("inf")),
            "backoff_factor": ("in (0, 1)", 0 < self.backoff_factor < 1),
            "growth_interval": ("a whole number >= 1", is_integer(self.growth_interval, 1)),
        }
        for name, (range_, holds) in allowed.items():
            if not holds:
                raise ValueError(f"{name} must be {range_}, got {getattr(self, name)!r}")


DEFAULT = LossScaling()


@node
class LossScale:
    """The scale and the number of good steps since it last changed.

    Attributes:
        scale: float32 0-d; a power of two changes no bit but the exponent, and a dynamic one stays such.
        good_steps: int32 0-d.
    """

    scale: Tensor
    good_steps: Tensor


def initial_loss_scale(
    precision: str, loss_scale: float | LossScaling | None, device: torch.device
) -> LossScale | None:
    """The scale before the first step: a constant one, one that adapts itself, or none (not fp16, not asked for)."""
    if loss_scale is None and precision != "fp16":
        return None
    rule = DEFAULT if loss_scale is None else loss_scale
    return LossScale(
        scale=torch.tensor(
            rule.init_scale if isinstance(rule, LossScaling) else rule, dtype=torch.float32, device=device
        ),
        good_steps=torch.tensor(0, dtype=torch.int32, device=device),
    )


def next_loss_scale(state: LossScale, finite: Tensor, rule: LossScaling = DEFAULT) -> LossScale:
    """Back off after an overflow, grow after `growth_interval` good steps in a row."""
    good = torch.where(finite, state.good_steps + 1, 0)
    grows = good >= rule.growth_interval
    grown = (state.scale * rule.growth_factor).clamp(max=LARGEST_SCALE)
    shrunk = (state.scale * rule.backoff_factor).clamp(min=SMALLEST_SCALE)
    scale = torch.where(finite, torch.where(grows, grown, state.scale), shrunk)
    return LossScale(scale, torch.where(grows, 0, good).to(torch.int32))


def weight_normaliser(weight: Tensor) -> Tensor:
    """A power of two next to `weight`, float32 0-d.

    The step differentiates the *sum* of the losses. In float16 that sum's gradient would overflow where the
    mean's does not, so it is divided by this before the backward pass and multiplied again after:
    exactly, being a power of two.
    """
    mantissa_and_exponent = torch.frexp(weight.detach().float().clamp(min=1.0))
    return torch.ldexp(torch.ones_like(mantissa_and_exponent.mantissa), mantissa_and_exponent.exponent)
