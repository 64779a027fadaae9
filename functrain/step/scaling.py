"""Loss scaling for fp16, dynamic or constant, as state. Imports foundation and torch.

float16 gradients below 6e-8 vanish, so the loss is multiplied by a scale before the backward pass
and the gradients are divided by it after. Values as in torch.amp.GradScaler.

References:
    Micikevicius et al. 2018, "Mixed Precision Training", section 3.2.
"""

import torch
from torch import Tensor

from functrain.foundation.trees import node

INITIAL_SCALE = 2.0**16
GROWTH_FACTOR = 2.0
BACKOFF_FACTOR = 0.5
GROWTH_INTERVAL = 2000
LARGEST_SCALE = 2.0**120  # stays finite in float32, times any loss that is
SMALLEST_SCALE = 2.0**-24  # a scale that reached 0 could never grow again


@node
class LossScale:
    """The scale and the number of good steps since it last changed.

    Attributes:
        scale: float32 0-d; a power of two changes no bit but the exponent, and a dynamic one stays such.
        good_steps: int32 0-d.
    """

    scale: Tensor
    good_steps: Tensor


def initial_loss_scale(device: torch.device, scale: float = INITIAL_SCALE) -> LossScale:
    """The scale before the first step."""
    return LossScale(
        scale=torch.tensor(scale, dtype=torch.float32, device=device),
        good_steps=torch.tensor(0, dtype=torch.int32, device=device),
    )


def next_loss_scale(state: LossScale, finite: Tensor) -> LossScale:
    """Back off after an overflow, grow after `GROWTH_INTERVAL` good steps in a row."""
    good = torch.where(finite, state.good_steps + 1, 0)
    grows = good >= GROWTH_INTERVAL
    grown = (state.scale * GROWTH_FACTOR).clamp(max=LARGEST_SCALE)
    shrunk = (state.scale * BACKOFF_FACTOR).clamp(min=SMALLEST_SCALE)
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
