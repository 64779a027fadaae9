"""What metrics compare: an objective's predictions and targets, position by position."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from functrain.metrics.examples import positions
from functrain.objectives.batch import unpack
from functrain.objectives.losses.labels import are_soft, likeliest
from functrain.objectives.tasks import compared_by, ignored_by, task_of

CHOICES = ("classification", "segmentation", "language_modelling")  # one class among several


class Judged(NamedTuple):
    """What metrics get.

    Attributes:
        predictions: such as logits `[B, C, ...]`.
        targets: `[B, ...]`.
        weight: `[B]`, or of the targets' shape, 0 where a label is ignored; None: 1 each.
    """

    predictions: Any
    targets: Any
    weight: Tensor | None


def judged(objective: Any, outputs: Any, batch: Any) -> Judged:
    """What metrics compare: as `compared_by` says; a label that the objective ignores weighs nothing.

    Of soft targets, the share of each class, metrics compare the class with the greatest share, as `accuracy` does.

    Example:
        >>> judged(None, torch.zeros(2, 3), (torch.zeros(2, 5), torch.tensor([1, -100]))).weight
        tensor([1., 0.], dtype=torch.float64)
    """
    _, targets, weight = unpack(batch)
    predictions, targets = compared_by(objective, outputs, targets)
    if task_of(objective) in CHOICES and are_soft(predictions, targets):
        targets = likeliest(targets, ignored_by(objective))
    whole = not targets.is_floating_point() and targets.dtype != torch.bool
    if whole:
        targets = targets.long()  # before the comparison: an unsigned 156 would equal -100
    if task_of(objective) == "binary_classification" and predictions.numel() == targets.numel():
        predictions = predictions.reshape(targets.shape)
    if whole or task_of(objective) == "binary_classification":
        weight = torch.where(targets != ignored_by(objective), positions(weight, targets), 0.0)
    return Judged(predictions, targets, weight)
