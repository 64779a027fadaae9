"""Metrics of regions: Dice and IoU of the pixels of all images together."""

from functrain.metrics import class_scores
from functrain.metrics.accumulating import Metric
from functrain.metrics.averaging import Average, of_classes
from functrain.metrics.examples import Labels, Task


def dice(
    average: Average = "macro",
    *,
    include_background: bool = True,
    task: Task | None = None,
    from_logits: bool = True,
    threshold: float = 0.5,
    num_classes: int | None = None,
) -> Metric:
    """2 TP / (2 TP + FP + FN) of the pixels of all images together.

    Args:
        average: over classes, see `precision`.
        include_background: count class 0 among the classes.
        task: "binary", "multilabel" or "multiclass"; default: as the shapes say.
        from_logits: the predictions are logits; else probabilities.
        threshold: the probability above which a pixel is predicted (binary, multilabel).
        num_classes: needed where predictions are class numbers.

    Example:
        >>> import torch
        >>> masks = torch.tensor([[[1, 1], [0, 0]]])
        >>> dice()(torch.tensor([[[9.0, -9.0], [-9.0, -9.0]]]), masks)
        tensor(0.6667, dtype=torch.float64)
    """
    labels = Labels(task, from_logits, threshold, num_classes)
    return of_classes("dice", class_scores.dice, average, 1, labels, include_background)


def iou(
    average: Average = "macro",
    *,
    include_background: bool = True,
    task: Task | None = None,
    from_logits: bool = True,
    threshold: float = 0.5,
    num_classes: int | None = None,
) -> Metric:
    """TP / (TP + FP + FN), intersection over union of all images together (Jaccard index). Arguments as of `dice`.

    Example:
        >>> import torch
        >>> masks = torch.tensor([[[1, 1], [0, 0]]])
        >>> iou()(torch.tensor([[[9.0, -9.0], [-9.0, -9.0]]]), masks)
        tensor(0.5000, dtype=torch.float64)
    """
    labels = Labels(task, from_logits, threshold, num_classes)
    return of_classes("iou", class_scores.iou, average, 1, labels, include_background)
