"""Predictions and targets in the form that class metrics count in: a row for each label.

| task | predictions | targets |
|---|---|---|
| binary | `[B]`, `[B, 1]`, or `[B, ...]` and `[B, 1, ...]` of a mask | 0 or 1, `[B, ...]` |
| multilabel | `[B, L]`, or `[B, L, ...]` with `task="multilabel"` | 0 or 1, of the same shape |
| multiclass | `[B, C, ...]`, or class numbers `[B, ...]` with `num_classes` | class numbers `[B, ...]` |

The form is read from shapes and dtypes, never from values: a value must not depend on how the data were batched.
"""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor

from functrain.metrics.weighted_sums import wide

Task = Literal["binary", "multilabel", "multiclass"]
TASKS = ("binary", "multilabel", "multiclass")
REFUSED = ("NaN in the predictions", "a target that is no label")


@dataclass(frozen=True)
class Examples:
    """Labels with their predictions.

    Attributes:
        task: one of `TASKS`.
        scores: floating `[N, C]`, or `[N, L]` (L = 1 for a binary task); class numbers, int64 `[N]`.
        targets: int64 `[N]` of a multiclass task, else bool `[N, L]`.
        weight: float64 `[N]`, or `[N, L]`; 0 where anything is refused.
        refused: float64 `[2]`, how many are refused for each reason of `REFUSED`.
    """

    task: str
    scores: Tensor
    targets: Tensor
    weight: Tensor
    refused: Tensor

    @cached_property
    def predicted(self) -> Tensor:
        """Class numbers `[N]` of a multiclass task."""
        return self.scores if self.scores.ndim == 1 else self.scores.argmax(1)


@dataclass(frozen=True)
class Labels:
    """How predictions are read.

    Attributes:
        task: one of `TASKS`; None: as the shapes say, see the top of this file.
        from_logits: the predictions are logits; else probabilities.
        threshold: the least probability, exclusive, of a positive label (binary, multilabel).
        num_classes: needed for predictions that are class numbers.
    """

    task: str | None = None
    from_logits: bool = True
    threshold: float = 0.5
    num_classes: int | None = None

    def __post_init__(self) -> None:
        if self.task is not None and self.task not in TASKS:
            raise ValueError(f"task must be one of {', '.join(TASKS)}, or None; got {self.task!r}")
        if not 0.0 <= self.threshold <= 1.0:
            raise ValueError(f"threshold must be a probability, 0 to 1; got {self.threshold!r}")

    def read(self, predictions: Tensor, targets: Tensor, weight: Tensor | None) -> Examples:
        """The labels of a batch.

        Raises:
            ValueError: for shapes that do not fit.

        Example:
            >>> Labels().read(torch.zeros(4, 3), torch.tensor([0, 1, 2, 0]), None).task
            'multiclass'
        """
        predictions, targets = predictions.detach(), targets.detach()
        if predictions.ndim == targets.ndim + 1 and predictions.shape[1] == 1 and self.task in (None, "binary"):
            predictions = predictions.squeeze(1)
        task = self.task or _task(predictions, targets)
        weight = positions(weight, targets)
        if task == "multiclass":
            return _multiclass(self.num_classes, predictions, targets, weight)
        return _labels(task, predictions, targets, weight)

    def positive(self, scores: Tensor) -> Tensor:
        """Which labels of a binary or multilabel task are predicted."""
        if not scores.is_floating_point():
            return scores > 0
        if not self.from_logits:
            return scores > self.threshold
        inside = 0.0 < self.threshold < 1.0
        return scores > (
            math.log(self.threshold / (1 - self.threshold)) if inside else math.copysign(math.inf, self.threshold - 0.5)
        )

    def probabilities(self, examples: Examples) -> Tensor:
        """The scores as probabilities, float64: in float32 their last bits would depend on the batch's shape."""
        scores = examples.scores.double()
        if not self.from_logits:
            return scores
        return scores.softmax(1) if examples.task == "multiclass" else scores.sigmoid()


def positions(weight: Tensor | None, targets: Tensor) -> Tensor:
    """The weight of each target, float64, of the targets' shape.

    Args:
        weight: `[B]`, or of the targets' shape; None: 1 each.
        targets: `[B, ...]`.

    Raises:
        ValueError: for another shape.

    Example:
        >>> positions(torch.tensor([1.0, 0.0]), torch.zeros(2, 2))
        tensor([[1., 1.],
                [0., 0.]], dtype=torch.float64)
    """
    if weight is None:
        return torch.ones(targets.shape, dtype=torch.float64, device=targets.device)
    weight = weight.detach().double()
    if weight.shape == targets.shape:
        return weight
    if weight.shape != targets.shape[:1]:
        raise ValueError(
            f"a metric's weight has one number for each example, [{len(targets)}] here, or one for each target, "
            f"{list(targets.shape)}; got {list(weight.shape)}"
        )
    return weight.view(-1, *[1] * (targets.ndim - 1)).expand(targets.shape)


def _task(predictions: Tensor, targets: Tensor) -> str:
    if predictions.shape == targets.shape and targets.ndim:
        if not predictions.is_floating_point() and predictions.dtype != torch.bool:
            return "multiclass"
        return "multilabel" if predictions.ndim == 2 and predictions.shape[1] > 1 else "binary"
    return "multiclass"


def _multiclass(num_classes: int | None, predictions: Tensor, targets: Tensor, weight: Tensor) -> Examples:
    if targets.is_floating_point():
        raise ValueError(f"the targets of a multiclass metric are class numbers; got {targets.dtype}")
    if predictions.shape == targets.shape and not predictions.is_floating_point():
        if num_classes is None:
            raise ValueError("a metric of predicted class numbers needs num_classes; or give it the model's scores")
        scores, classes = predictions.reshape(-1).long(), num_classes
        unknown = (scores < 0) | (scores >= classes)
    elif predictions.ndim > 1 and (len(predictions), *predictions.shape[2:]) == tuple(targets.shape):
        classes = predictions.shape[1]
        if num_classes not in (None, classes):
            raise ValueError(f"num_classes is {num_classes}, but the predictions have {classes} classes")
        scores = wide(predictions).movedim(1, -1).reshape(-1, classes)
        unknown = scores.isnan().any(1)
    else:
        raise ValueError(_unfit("[B, C, ...] and integer targets [B, ...]", predictions, targets))
    targets, weight = targets.reshape(-1).long(), weight.reshape(-1)
    counted = weight != 0
    wrong = (targets < 0) | (targets >= classes)
    refused = torch.stack([(unknown & counted).sum(), (wrong & counted).sum()]).double()
    kept = counted & ~unknown & ~wrong
    zero = scores.new_zeros(())
    scores = torch.where(kept if scores.ndim == 1 else kept[:, None], scores, zero)
    return Examples("multiclass", scores, torch.where(kept, targets, 0), torch.where(kept, weight, 0.0), refused)


def _labels(task: str, predictions: Tensor, targets: Tensor, weight: Tensor) -> Examples:
    if predictions.shape != targets.shape or not targets.ndim:
        raise ValueError(_unfit("and targets of one shape, [B, ...]", predictions, targets))
    if task == "multilabel" and targets.ndim < 2:
        raise ValueError(f"a multilabel metric takes predictions and targets [B, L, ...]; got {list(targets.shape)}")
    scores = wide(predictions) if predictions.is_floating_point() else predictions.long()
    values = targets.double()

    def rows(tensor: Tensor) -> Tensor:
        return tensor.movedim(1, -1).reshape(-1, tensor.shape[1]) if task == "multilabel" else tensor.reshape(-1, 1)

    scores, values, weight = rows(scores), rows(values), rows(weight)
    counted = weight != 0
    unknown, wrong = scores.isnan(), ~((values >= 0) & (values <= 1))
    refused = torch.stack([(unknown & counted).sum(), (wrong & counted).sum()]).double()
    kept = counted & ~unknown & ~wrong
    scores = torch.where(kept, scores, scores.new_zeros(()))
    return Examples(task, scores, kept & (values >= 0.5), torch.where(kept, weight, 0.0), refused)


def _unfit(wanted: str, predictions: Tensor, targets: Tensor) -> str:
    return (
        f"a metric takes predictions {wanted}; got predictions {list(predictions.shape)} of {predictions.dtype} and "
        f"targets {list(targets.shape)} of {targets.dtype}"
    )
