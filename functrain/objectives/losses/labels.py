"""Labels of examples, checked on the device.

What is predicted where a label is ignored is replaced before anything is computed from it: NaN there reaches neither
the loss nor the gradient.

A label that is neither allowed nor ignored makes the loss of its position NaN, on every device and compiled or
not, so that the step refuses the update instead of reading memory out of range or training on nonsense.
"""

from collections.abc import Mapping, Sequence, Set
from typing import Any

import torch
from torch import Tensor

from functrain.foundation.numbers import is_number
from functrain.foundation.torch_internals import is_readable
from functrain.metrics.ones import ones
from functrain.metrics.weighted_sums import wide

ROUNDING = 0.02  # of a sum of shares in half precision


class Labels:
    """Labels without surprises.

    Args:
        value: the label, or 0 where it is not valid.
        counted: bool, not the ignored index; None: all are known to be.
        valid: bool, a class (a probability, of a binary label); None: all are known to be.
    """

    def __init__(self, value: Tensor, counted: Tensor | None = None, valid: Tensor | None = None) -> None:
        self.value, self._counted, self._valid = value, counted, valid

    @property
    def counted(self) -> Tensor:
        """Where the label is not the ignored index."""
        return torch.ones_like(self.value, dtype=torch.bool) if self._counted is None else self._counted

    @property
    def valid(self) -> Tensor:
        """Where it is a class (a probability, of a binary label)."""
        return torch.ones_like(self.value, dtype=torch.bool) if self._valid is None else self._valid

    def weights(self, dtype: torch.dtype) -> Tensor:
        """1 where the label is not the ignored index, else 0."""
        if self._counted is None and dtype == torch.float32:
            return ones(self.value.shape, self.value.device)
        return self.counted.to(dtype)

    def refused(self, values: Tensor) -> Tensor:
        """`values` with 0 where a label is ignored and NaN where it is out of range."""
        if self._valid is None:
            return values
        return torch.where(self.valid, values, torch.where(self.counted, float("nan"), 0.0).to(values.dtype))


def class_labels(name: str, logits: Tensor, targets: Tensor, ignore_index: int) -> tuple[Tensor, Labels]:
    """Logits `[B, C, ...]`, 0 where the label is ignored, and labels of one of several classes, int64 `[B, ...]`."""
    if (
        targets.dtype.is_floating_point
        or logits.ndim != targets.ndim + 1
        or (logits.shape[0], *logits.shape[2:]) != targets.shape
    ):
        raise ValueError(
            f"{name} takes logits [B, C, ...] and integer targets [B, ...]; got logits "
            f"{list(logits.shape)} and targets {list(targets.shape)} of {targets.dtype}{_way_out(logits, targets)}"
        )
    targets = targets.long()
    classes = logits.shape[1]
    if _all_count(targets, classes, ignore_index):
        return logits, Labels(targets)
    counted = targets != ignore_index
    valid = (targets >= 0) & (targets < classes)
    if 0 <= ignore_index < classes:
        valid = valid & counted
    return torch.where(counted.unsqueeze(1), logits, 0.0), Labels(targets * valid, counted, valid)


def _all_count(targets: Tensor, classes: int, ignore_index: int) -> bool:
    """Whether all labels are known to be classes that count. An eager step on a CPU reads the least and the largest:
    then nothing need be replaced, which would take more than ten operations.
    """
    if not is_readable(targets) or not targets.numel():
        return False
    least, largest = (int(value) for value in targets.aminmax())
    return least >= 0 and largest < classes and not least <= ignore_index <= largest


def are_shares(targets: Tensor) -> Tensor:
    """bool `[B, ...]`: whether soft targets `[B, C, ...]` are shares: each 0 or more, in all 1 or less; NaN is none."""
    return (targets >= 0).all(1) & (targets.sum(1) <= 1.0 + ROUNDING)


def are_soft(logits: Tensor, targets: Tensor) -> bool:
    """Whether targets are the share of each class: floating-point numbers of the logits' shape, `[B, C, ...]`."""
    return targets.is_floating_point() and targets.shape == logits.shape and targets.ndim >= 2


def likeliest(shares: Tensor, ignore_index: int) -> Tensor:
    """The class with the greatest share, int64 `[B, ...]`; `ignore_index` where no class has any.

    Example:
        >>> likeliest(torch.tensor([[0.2, 0.8], [0.0, 0.0]]), -100)
        tensor([   1, -100])
    """
    return torch.where((shares != 0).any(1), shares.argmax(1), ignore_index)


def _way_out(logits: Tensor, targets: Tensor) -> str:
    """What to do about targets of another form, where it can be told."""
    places = (logits.shape[0], *logits.shape[2:])
    if targets.shape == places:
        return "; write targets.long() if they are classes"
    if targets.shape == logits.shape and targets.dtype.is_floating_point:
        return (
            "; probabilities of the classes (mixup, distillation) are taken by cross_entropy, "
            "as in functrain.classification()"
        )
    if targets.numel() == logits.numel() // logits.shape[1] and targets.ndim == logits.ndim and targets.shape[1] == 1:
        return "; take their dimension of size 1 off: targets.squeeze(1)"
    return ""


def binary_labels(name: str, logits: Tensor, targets: Tensor, ignore_index: int) -> tuple[Tensor, Labels]:
    """Logits, float32 or wider and 0 where the label is ignored, and labels 0 to 1, of one shape.

    A single channel, `[B, 1, ...]` for `[B, ...]`, is taken off.
    """
    if logits.ndim == targets.ndim + 1 > 1 and logits.shape[1] == 1:
        logits = logits.squeeze(1)
    if logits.shape != targets.shape or not targets.ndim:
        raise ValueError(
            f"{name} takes logits and targets of one shape, [B, ...]; got logits {list(logits.shape)} and targets "
            f"{list(targets.shape)}"
        )
    # Before the comparison: an unsigned 156 would equal -100.
    targets = targets if targets.dtype.is_floating_point else targets.to(torch.float32)
    counted = targets != ignore_index
    logits = torch.where(counted, wide(logits), 0.0)
    valid = (targets >= 0) & (targets <= 1) & counted
    return logits, Labels(torch.where(valid, targets, 0.0).to(logits.dtype), counted, valid)


def check_label_smoothing(label_smoothing: float) -> None:
    """Raise unless it is a number from 0 to 1."""
    if not is_number(label_smoothing):
        raise TypeError(f"label_smoothing must be a number between 0 and 1, got {label_smoothing!r}")
    if not 0.0 <= label_smoothing <= 1.0:
        raise ValueError(f"label_smoothing must be between 0 and 1, got {label_smoothing}")


def one_hot(classes: Tensor, count: int) -> Tensor:
    """Classes `[B, ...]` as bool `[B, count, ...]`, by comparison: no scatter, whose order a GPU may vary."""
    numbers = torch.arange(count, device=classes.device).view(1, -1, *[1] * (classes.ndim - 1))
    return classes.unsqueeze(1) == numbers


def class_numbers(class_weights: Any) -> tuple[float, ...]:
    """The weights of the classes as numbers, by which an objective can be compared and hashed; of an array too.

    Raises:
        TypeError: for anything else than a sequence of numbers.
        ValueError: for a number that is no weight.
    """
    try:
        if isinstance(class_weights, str | Mapping | Set):
            raise TypeError
        numbers = tuple(float(weight) for weight in class_weights)
    except (TypeError, ValueError):
        raise TypeError(
            f"class_weights must be a sequence of numbers, one for each class in order; got {class_weights!r}"
        ) from None
    _check_weights(numbers)
    return numbers


def _check_weights(numbers: Sequence[float]) -> None:
    for number, weight in enumerate(numbers):
        if not 0 <= weight < float("inf"):
            raise ValueError(f"class_weights must be finite and 0 or more; class {number} has {weight!r}")


def per_class(class_weights: Sequence[float] | Tensor, logits: Tensor) -> Tensor:
    """The weights of the classes as a tensor `[C]` beside the logits `[B, C, ...]`.

    Raises:
        TypeError: for a tensor; numbers can be compared, hashed and written to a configuration.
        ValueError: if there is not one finite weight of 0 or more for each class.
    """
    if isinstance(class_weights, Tensor):
        raise TypeError("class_weights are plain numbers, one for each class; got a tensor: give its .tolist()")
    if len(class_weights) != logits.shape[1]:
        raise ValueError(
            f"class_weights has {len(class_weights)} numbers, but the logits {list(logits.shape)} are of "
            f"{logits.shape[1]} classes; give one for each class"
        )
    _check_weights(class_weights)
    return torch.tensor(class_weights, dtype=logits.dtype, device=logits.device)
