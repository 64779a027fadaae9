"""The report of a class for each pixel."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from functrain.evaluation import bootstrap, class_counts
from functrain.evaluation.class_counts import ClassCounts
from functrain.evaluation.kept_rows import BatchRows, as_array
from functrain.evaluation.panels import classes as class_panels
from functrain.evaluation.panels import confusion
from functrain.evaluation.quotients import ratio
from functrain.evaluation.reports.report import Collector, Report, Table, names_of, numbers_of, refuse_strangers
from functrain.foundation.errors import DataError
from functrain.metrics import class_scores
from functrain.metrics.classes import confusion_matrix
from functrain.metrics.surfaces import distance

Numbers = NDArray[np.float64]
SUMS = 5  # of a class: hits, support, predicted, the Hausdorff distance, whether it is defined
KEPT = ("hits", "support", "predicted", "distance", "measured")  # these, as a report has them for each image
DISTANCES_UP_TO = 128  # pixels of a side: the work grows with its third power, 10 ms for each class here
DISTANCE = "hausdorff_distance"
_OVERLAPS = {"dice": class_scores.dice, "iou": class_scores.iou}


class Segmentation(Collector):
    """Collects counts of pixels from logits `[B, C, ...]` and classes `[B, ...]`; no image is kept."""

    def of_batch(self, scores: Tensor, targets: Tensor) -> BatchRows:
        """Of each image sums of each class, `[B, SUMS, C]`; the confusion matrix of all images."""
        if scores.ndim < 3 or targets.shape != (len(scores), *scores.shape[2:]):
            raise DataError(
                f"a report of regions takes logits [B, C, ...] and classes [B, ...]; got {list(scores.shape)} and "
                f"{list(targets.shape)}"
            )
        classes, found, targets = scores.shape[1], scores.argmax(1), targets.long()
        counted = targets != self._ignore
        refuse_strangers(as_array(targets[counted]), classes, self._ignore)
        sums = torch.zeros(len(scores), SUMS, classes, dtype=torch.float64)
        confused = torch.zeros(classes, classes, dtype=torch.float64)
        for number, (said, true, which) in enumerate(zip(found, targets, counted)):
            matrix = confusion_matrix(said[which], true[which], classes)
            sums[number, :3] = torch.stack([matrix.diagonal(), matrix.sum(1), matrix.sum(0)])
            confused += matrix
        if targets.ndim == 3 and max(targets.shape[1:]) <= DISTANCES_UP_TO:
            numbers = torch.arange(classes).view(-1, 1, 1, 1)
            predicted, truth = ((each == numbers) & counted for each in (found, targets))
            distances, valid = distance(predicted, truth, (1.0, 1.0))
            sums[:, 3], sums[:, 4] = torch.where(valid, distances, 0.0).T, valid.T
        return BatchRows({"sums": as_array(sums)}, {"confusion": as_array(confused)})

    def report(self, tuned: float | None = None, labels: Sequence[str] | None = None) -> Report:  # noqa: ARG002
        """The report over all batches."""
        _, classes = self.rows.row_shape("sums")
        names = names_of(classes, labels, "classes", self._known)
        blocks = bootstrap.BlockSums(len(self.rows), SUMS * classes)
        for (part,) in self.rows.parts("sums"):
            blocks.add(part.reshape(len(part), -1))
        total, spread = blocks.total.reshape(SUMS, classes), blocks.replicates().reshape(-1, SUMS, classes)
        each, intervals = _of_classes(total), _of_classes(spread)
        support = total[1].astype(int).tolist()
        rows = [
            [
                name,
                support[i],
                *(p for key in each for p in (float(each[key][i]), bootstrap.interval(intervals[key][:, i]))),
            ]
            for i, name in enumerate(names)
        ]
        header = [part for key in each for part in (key, f"{key} 95 %")]
        shown = {key: each[key].tolist() for key in ("dice", "iou")}
        sums = self.rows.array("sums")
        return Report(
            task="segmentation",
            examples=len(sums),
            numbers=numbers_of(means_of(total), means_of(spread)),
            tables=(Table("classes", "Classes", ("class", "pixels", *header), rows),),
            panels=(
                class_panels.class_scores("classes", "Overlap of each class", names, shown),
                confusion.confusion_matrix(self.rows.sums["confusion"], names),
            ),
            scores={name: sums[:, place] for place, name in enumerate(KEPT)},
        )


def _counts(sums: Numbers) -> ClassCounts:
    return ClassCounts(*np.moveaxis(sums, -2, 0)[:3])


def _of_classes(all_sums: Numbers) -> dict[str, Numbers]:
    """Of each class, over all images, `[..., C]`; NaN for a class that is neither true nor predicted.

    Args:
        all_sums: `[..., SUMS, C]`.
    """
    counts = _counts(all_sums)
    sums, scores = class_counts.sums_of(counts), class_counts.per_class(counts)
    absent = sums[1] + sums[2] == 0
    found = {name: formula(sums).masked_fill(absent, torch.nan) for name, formula in _OVERLAPS.items()}
    result = {
        **{name: np.moveaxis(values.numpy(), 0, -1) for name, values in found.items()},
        "precision": scores["precision"],
        "recall": scores["recall"],
    }
    return {**result, DISTANCE: ratio(all_sums[..., 3, :], all_sums[..., 4, :])} if _measured(all_sums) else result


def means_of(all_sums: Numbers) -> dict[str, Numbers]:
    """Means over the classes that occur; without class 0 where that is called the background."""
    sums = class_counts.sums_of(_counts(all_sums))
    result = {}
    for name, formula in _OVERLAPS.items():
        for end, chosen in (("", sums), ("_without_class_0", sums[:, 1:])):
            mean = class_scores.macro(formula(chosen), chosen[1] + chosen[2] > 0)
            result[f"mean_{name}{end}"] = mean.nan_to_num(0.0).numpy()
    result["pixel_accuracy"] = class_scores.accuracy(sums).numpy()
    if _measured(all_sums):
        result[DISTANCE] = ratio(all_sums[..., 3, 1:].sum(-1), all_sums[..., 4, 1:].sum(-1))
    return result


def _measured(all_sums: Numbers) -> bool:
    """Whether distances were measured."""
    return bool(all_sums[..., 4, :].any())
