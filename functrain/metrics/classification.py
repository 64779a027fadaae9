"""Metrics of classes: accuracy, precision, recall, specificity, F1.

TP, FP, FN and TN are the weights of one class against the rest.
"""

from torch import Tensor

from functrain.metrics import class_scores
from functrain.metrics.accumulating import Accumulator, Metric
from functrain.metrics.averaging import Average, Averaged, check, of_classes
from functrain.metrics.counts import OneVersusRest, Right, task_and_sums
from functrain.metrics.examples import Labels, Task


def accuracy(
    average: Average = "micro",
    *,
    top_k: int = 1,
    task: Task | None = None,
    from_logits: bool = True,
    threshold: float = 0.5,
    num_classes: int | None = None,
) -> Metric:
    """The share of right predictions.

    Args:
        average: "micro" counts examples (several labels of one: each of them). "macro" is the mean over classes of
            their recall, "weighted" weighs it by the targets, "none" gives one for each. Of several labels they are
            means of each label's share of right predictions.
        top_k: a prediction is right if the class is among so many with the largest scores.
        task: "binary", "multilabel" or "multiclass"; default: as the shapes say.
        from_logits: the predictions are logits; else probabilities.
        threshold: the probability above which a label is predicted (binary, multilabel).
        num_classes: needed where predictions are class numbers.

    Example:
        >>> import torch
        >>> accuracy()(torch.eye(3), torch.tensor([0, 1, 1]))
        tensor(0.6667, dtype=torch.float64)
    """
    check(average, top_k)
    labels = Labels(task, from_logits, threshold, num_classes)
    if average == "micro":
        return Metric("accuracy", Right(labels, top_k), _share)
    return Metric(
        "accuracy",
        OneVersusRest(labels, top_k),
        Averaged(class_scores.recall, average, of_labels=class_scores.right_labels),
    )


def precision(
    average: Average = "macro",
    *,
    top_k: int = 1,
    task: Task | None = None,
    from_logits: bool = True,
    threshold: float = 0.5,
    num_classes: int | None = None,
) -> Metric:
    """TP / (TP + FP), the share of predictions of a class that are right.

    Args:
        average: over classes: "macro" (their mean), "micro" (of their sums), "weighted" (by the targets of each), or
            "none": a number for each class, and their macro mean. A binary task has the positive class alone.
        top_k: so many classes with the largest scores are predicted.
        task: "binary", "multilabel" or "multiclass"; default: as the shapes say.
        from_logits: the predictions are logits; else probabilities.
        threshold: the probability above which a label is predicted (binary, multilabel).
        num_classes: needed where predictions are class numbers.

    Example:
        >>> import torch
        >>> precision()(torch.eye(3), torch.tensor([0, 1, 1]))
        tensor(0.6667, dtype=torch.float64)
    """
    return of_classes(
        "precision", class_scores.precision, average, top_k, Labels(task, from_logits, threshold, num_classes)
    )


def recall(
    average: Average = "macro",
    *,
    top_k: int = 1,
    task: Task | None = None,
    from_logits: bool = True,
    threshold: float = 0.5,
    num_classes: int | None = None,
) -> Metric:
    """TP / (TP + FN), the share of a class's examples that are found (sensitivity). Arguments as of `precision`.

    Example:
        >>> import torch
        >>> recall()(torch.eye(3), torch.tensor([0, 1, 1]))
        tensor(0.5000, dtype=torch.float64)
    """
    return of_classes("recall", class_scores.recall, average, top_k, Labels(task, from_logits, threshold, num_classes))


def specificity(
    average: Average = "macro",
    *,
    task: Task | None = None,
    from_logits: bool = True,
    threshold: float = 0.5,
    num_classes: int | None = None,
) -> Metric:
    """TN / (TN + FP), the share of the others that are not taken for the class. Arguments as of `precision`.

    Example:
        >>> import torch
        >>> specificity()(torch.tensor([2.0, 1.0, -1.0]), torch.tensor([1, 0, 0]))
        tensor(0.5000, dtype=torch.float64)
    """
    return of_classes(
        "specificity", class_scores.specificity, average, 1, Labels(task, from_logits, threshold, num_classes)
    )


def f1(
    average: Average = "macro",
    *,
    top_k: int = 1,
    task: Task | None = None,
    from_logits: bool = True,
    threshold: float = 0.5,
    num_classes: int | None = None,
) -> Metric:
    """2 TP / (2 TP + FP + FN), the harmonic mean of precision and recall. Arguments as of `precision`.

    Example:
        >>> import torch
        >>> f1("none")(torch.eye(3), torch.tensor([0, 1, 1]))["class"]
        tensor([1.0000, 0.6667, 0.0000], dtype=torch.float64)
    """
    return of_classes("f1", class_scores.dice, average, top_k, Labels(task, from_logits, threshold, num_classes))


def _share(counts: Accumulator) -> Tensor:
    _, (right, every) = task_and_sums(counts)
    return right / every
