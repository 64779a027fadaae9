"""Dropout whose rate is each member's, within one vectorised step."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

_PREFIX = "dropout of "


@dataclass(frozen=True)
class Rate:
    """The rate of a dropout module, each member's own, in the place of a number.

    Attributes:
        name: among the hyperparameters.
    """

    name: str


def is_dropout(module: nn.Module) -> bool:
    """Whether a module is torch's dropout of single elements and drops some of them, but not all."""
    return type(module) is nn.Dropout and isinstance(module.p, float) and 0 < module.p < 1


def rate_of(path: str) -> Rate:
    """That of the dropout module at a path."""
    return Rate(f"{_PREFIX}{path or 'the model'}")


def has_rates(names: Iterable[str]) -> bool:
    """Whether hyperparameters of these names have any."""
    return any(name.startswith(_PREFIX) for name in names)


class OwnRates(TorchFunctionMode):
    """Within it `F.dropout` understands a `Rate`.

    Args:
        values: of the member's hyperparameters, 0-d tensors.
    """

    def __init__(self, values: Mapping[str, Tensor]) -> None:
        super().__init__()
        self._values = values

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run `func`, or drop with the member's rate."""
        kwargs = kwargs or {}
        if func is F.dropout and isinstance(rate := kwargs.get("p"), Rate):
            return _dropped(args[0], self._values[rate.name], kwargs["training"], kwargs["inplace"])
        return func(*args, **kwargs)


def _dropped(inputs: Tensor, rate: Tensor, training: bool, inplace: bool) -> Tensor:
    """As torch's, operation by operation. What is drawn here is given by the step, drawn with the member's rate."""
    if not training:
        return inputs
    kept = (1 - rate).to(inputs.dtype)
    mask = kept.expand(inputs.shape).clone().bernoulli_(0.5).div_(kept)
    return inputs.mul_(mask) if inplace else inputs * mask
