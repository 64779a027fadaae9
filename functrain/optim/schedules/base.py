"""What a schedule is, and how one is made from a formula."""

from collections.abc import Callable
from typing import Any

import torch

from functrain.foundation.numbers import MemberValue
from functrain.optim.checks import require_steps

Schedule = Callable[[Any], Any]
Hyperparameter = float | Schedule


def from_formula(formula: Callable[[torch.Tensor], torch.Tensor]) -> Schedule:
    """Let a formula on 0-d tensors take Python ints too, so that both ways agree to the last bit.

    Example:
        >>> halving = from_formula(lambda count: 0.5 ** count.double())
        >>> halving(2), halving(torch.tensor(3))
        (0.25, tensor(0.1250, dtype=torch.float64))
    """

    def schedule(step: Any) -> Any:
        if isinstance(step, torch.Tensor):
            return formula(step)
        require_steps("step", step, least=0)
        return formula(torch.tensor(step, device="cpu")).item()

    return schedule


def rate_at(schedule: Schedule, count: torch.Tensor) -> torch.Tensor:
    """What a schedule, anybody's, gives for a 0-d count, made a float64 0-d tensor on the count's device.

    Example:
        >>> rate_at(lambda step: 0.5, torch.tensor(3))
        tensor(0.5000, dtype=torch.float64)
    """
    rate = schedule(count)
    if isinstance(rate, torch.Tensor):
        return rate.to(device=count.device, dtype=torch.float64)
    try:
        return torch.full_like(count, rate, dtype=torch.float64)
    except TypeError:
        raise TypeError(
            f"a schedule is a function from step to a number or a 0-d tensor; this one gave {rate!r} "
            f"({type(rate).__name__})"
        ) from None


def value_at(value: Hyperparameter, count: torch.Tensor) -> float | torch.Tensor:
    """A hyperparameter after `count` updates: a number stays a number, a schedule gives a 0-d tensor.

    Example:
        >>> value_at(0.9, torch.tensor(3)), value_at(lambda step: step / 4, torch.tensor(3))
        (0.9, tensor(0.7500, dtype=torch.float64))
    """
    return rate_at(value, count) if callable(value) else number_of(value)


def number_of(value: Any) -> float | torch.Tensor:
    """A hyperparameter that is a number, to reckon with: each member's own tensor where members differ in it.

    Example:
        >>> number_of(0.9), number_of(MemberValue(0.9, torch.tensor(0.5)))
        (0.9, tensor(0.5000))
    """
    number: float | torch.Tensor = value.tensor if isinstance(value, MemberValue) else value
    return number
