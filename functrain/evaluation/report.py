"""Numbers per class."""

from dataclasses import dataclass

import torch
from torch import Tensor

from functrain.metrics.classes import confusion_matrix


@dataclass(frozen=True)
class ClassScores:
    """Scores of one class.

    Attributes:
        label: the class.
        precision: share of the examples predicted as it that are it; 0 if none was.
        recall: share of its examples that were found; 0 if it has none.
        f1: harmonic mean of the two.
        support: its examples.
    """

    label: int
    precision: float
    recall: float
    f1: float
    support: int


@dataclass(frozen=True)
class ClassificationReport:
    """Scores of all classes.

    Attributes:
        classes: one entry for each class of the model, in order.
        macro: plain means over the classes; its label is -1 and its support the number of examples.
        accuracy: share of the examples whose most probable class is theirs.
    """

    classes: tuple[ClassScores, ...]
    macro: ClassScores
    accuracy: float


def classification_report(logits: Tensor, targets: Tensor, *, ignore_index: int = -100) -> ClassificationReport:
    """Precision, recall, F1 and support of each class.

    Args:
        logits: floating `[N, C]`.
        targets: integer `[N]`, classes 0 to C - 1, or `ignore_index`, which is left out.
        ignore_index: as in the objective.

    Raises:
        ValueError: if the shapes do not fit, a target is no class of the model, or no target counts.

    Example:
        >>> report = classification_report(torch.eye(2)[[0, 1, 1]], torch.tensor([0, 0, 1]))
        >>> report.classes[0]
        ClassScores(label=0, precision=1.0, recall=0.5, f1=0.6666666666666666, support=2)
    """
    if logits.ndim != 2 or targets.shape != logits.shape[:1] or targets.dtype.is_floating_point:
        raise ValueError(
            f"classification_report takes logits [N, C] and integer targets [N]; got {list(logits.shape)} and "
            f"{list(targets.shape)} of {targets.dtype}"
        )
    counted = targets != ignore_index
    truth, found = targets[counted].cpu().long(), logits[counted].argmax(1).cpu()
    if not len(truth):
        raise ValueError("there is no target to report on: the data are empty, or every target is ignore_index")
    count = logits.shape[1]
    strangers = truth[(truth < 0) | (truth >= count)]
    if len(strangers):
        raise ValueError(
            f"targets must be classes 0 to {count - 1}, the columns of the logits, or ignore_index ({ignore_index}); "
            f"got {int(strangers[0])}"
        )
    confusion = confusion_matrix(found, truth, count)
    hits, support, predicted = confusion.diagonal(), confusion.sum(1), confusion.sum(0)
    columns = _ratio(hits, predicted), _ratio(hits, support), _ratio(2 * hits, support + predicted)
    rows = zip(*(column.tolist() for column in columns), support.long().tolist())
    classes = tuple(ClassScores(label, *row) for label, row in enumerate(rows))
    precision, recall, f1 = (float(column.mean()) for column in columns)
    macro = ClassScores(-1, precision, recall, f1, len(truth))
    return ClassificationReport(classes, macro, float(hits.sum() / support.sum()))


def _ratio(part: Tensor, whole: Tensor) -> Tensor:
    """0 where there is nothing to have a share of."""
    return torch.where(whole > 0, part / whole.clamp(min=1), 0.0)
