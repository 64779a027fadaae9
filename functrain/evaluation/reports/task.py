"""Which report an objective asks for."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from functrain.evaluation.kept_rows import KeptRows
from functrain.evaluation.reports.binary import BinaryClassification
from functrain.evaluation.reports.classification import Classification
from functrain.evaluation.reports.language import LanguageModelling
from functrain.evaluation.reports.regression import Regression
from functrain.evaluation.reports.report import Collector
from functrain.evaluation.reports.segmentation import Segmentation
from functrain.objectives.tasks import compared_by, ignored_by, task_of

REPORTS: dict[str, type[Collector]] = {
    "classification": Classification,
    "binary_classification": BinaryClassification,
    "regression": Regression,
    "segmentation": Segmentation,
    "language_modelling": LanguageModelling,
}


class TaskCollector:
    """Collects the report that an objective names, from a model's outputs and the targets.

    Labels of pixels make a report of regions, whether there is a choice of classes or a yes or no.

    Args:
        objective: with a `task`.
        rows: where rows are kept.
        known: names of the classes that the data set knows.

    Attributes:
        rows: likewise.

    Raises:
        ValueError: if the objective names a task that does not exist.
    """

    def __init__(self, objective: Any, rows: KeptRows, known: Sequence[str] = ()) -> None:
        self.rows, self._known = rows, known
        self._objective, self._task = objective, task_of(objective)
        if self._task not in REPORTS:
            raise ValueError(f"an objective's task must be one of {', '.join(REPORTS)}; got {self._task!r}")

    @property
    def chosen(self) -> Collector:
        """What makes the report, after the first batch."""
        return self._made(str(self.rows.kind))

    def add(self, outputs: Any, targets: Any) -> None:
        """Take a batch's outputs and targets."""
        self.add_compared(*self.compared(outputs, targets))

    def add_compared(self, kind: str, scores: Tensor, targets: Tensor) -> None:
        """Take what `compared` gives of a batch."""
        self.rows.kind = self.rows.kind or kind
        self.chosen.add(scores, targets)

    def begins_with(self, outputs: Any, targets: Any) -> bool:
        """Whether a batch has the bits of the first one that was kept."""
        kind, scores, targets = self.compared(outputs, targets)
        return self.rows.kind == kind and self.rows.begins_with(self._made(kind).of_batch(scores, targets))

    def _made(self, kind: str) -> Collector:
        return REPORTS[kind](ignored_by(self._objective), self.rows, self._known)

    def compared(self, outputs: Any, targets: Any) -> tuple[str, Tensor, Tensor]:
        """The kind of report, and what it compares."""
        scores, targets = compared_by(self._objective, outputs, targets)
        task = str(self._task)
        if task == "classification" and scores.ndim > 2:
            task = "segmentation"
        if task == "binary_classification" and targets.ndim > 2:
            task = "segmentation"
            scores, targets = _two_classes(scores.reshape(targets.shape), targets, ignored_by(self._objective))
        return task, scores, targets


def _two_classes(logits: Tensor, targets: Tensor, ignored: int) -> tuple[Tensor, Tensor]:
    """Yes or no as a choice of two classes, with the channel of a mask `[B, 1, H, W]` left out."""
    if targets.ndim == 4 and targets.shape[1] == 1:
        logits, targets = logits[:, 0], targets[:, 0]
    classes = torch.where(targets == ignored, ignored, (targets >= 0.5).long())
    return torch.stack([torch.zeros_like(logits), logits], 1), classes
