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
from functrain.evaluation.quotients import ratio, share
from functrain.evaluation.reports.report import Collector, Report, Table, names_of, numbers_of, refuse_strangers
from functrain.foundation.errors import DataError
from functrain.metrics.classes import confusion_matrix

Numbers = NDArray[np.float64]


class Segmentation(Collector):
    """Collects counts of pixels from logits `[B, C, ...]` and classes `[B, ...]`; no image is kept."""

    def of_batch(self, scores: Tensor, targets: Tensor) -> BatchRows:
        """Of each image hits, support and predictions of each class, `[B, 3, C]`; the confusion matrix of all."""
        if scores.ndim < 3 or targets.shape != (len(scores), *scores.shape[2:]):
            raise DataError(
                f"a report of regions takes logits [B, C, ...] and classes [B, ...]; got {list(scores.shape)} and "
                f"{list(targets.shape)}"
            )
        classes = scores.shape[1]
        counts = torch.zeros(len(scores), 3, classes, dtype=torch.float64)
        confused = torch.zeros(classes, classes, dtype=torch.float64)
        for number, (found, truth) in enumerate(zip(scores.argmax(1), targets.long())):
            counted = truth != self._ignore
            refuse_strangers(as_array(truth[counted]), classes, self._ignore)
            matrix = confusion_matrix(found[counted], truth[counted], classes)
            counts[number] = torch.stack([matrix.diagonal(), matrix.sum(1), matrix.sum(0)])
            confused += matrix
        return BatchRows({"counts": as_array(counts)}, {"confusion": as_array(confused)})

    def report(self, tuned: float | None = None, labels: Sequence[str] | None = None) -> Report:  # noqa: ARG002
        """The report over all batches."""
        _, classes = self.rows.row_shape("counts")
        names = names_of(classes, labels, "classes")
        blocks = bootstrap.BlockSums(len(self.rows), 3 * classes)
        for (part,) in self.rows.parts("counts"):
            blocks.add(part.reshape(len(part), -1))
        total = ClassCounts(*blocks.total.reshape(3, classes))
        spread = ClassCounts(*np.moveaxis(blocks.replicates().reshape(-1, 3, classes), 1, 0))
        counts = self.rows.array("counts")
        each, intervals = _overlaps(total), _overlaps(spread)
        rows = [
            [
                name,
                int(total.support[i]),
                *(p for key in each for p in (float(each[key][i]), bootstrap.interval(intervals[key][:, i]))),
            ]
            for i, name in enumerate(names)
        ]
        header = [part for key in each for part in (key, f"{key} 95 %")]
        return Report(
            task="segmentation",
            examples=len(counts),
            numbers=numbers_of(_means(total), _means(spread)),
            tables=(Table("classes", "Classes", ("class", "pixels", *header), rows),),
            panels=(
                class_panels.class_scores(
                    "classes", "Overlap of each class", names, {key: each[key].tolist() for key in ("dice", "iou")}
                ),
                confusion.confusion_matrix(self.rows.sums["confusion"], names),
            ),
            scores={"hits": counts[:, 0], "support": counts[:, 1], "predicted": counts[:, 2]},
        )


def _overlaps(counts: ClassCounts) -> dict[str, Numbers]:
    """Of each class, over the pixels of all images, `[..., C]`; NaN for a class that is neither true nor predicted."""
    hits, support, predicted = counts
    scores = class_counts.per_class(counts)
    return {
        "dice": ratio(2 * hits, support + predicted),
        "iou": ratio(hits, support + predicted - hits),
        "precision": scores["precision"],
        "recall": scores["recall"],
    }


def _means(counts: ClassCounts) -> dict[str, Numbers]:
    """Means over the classes that occur; without class 0 where that is called the background."""
    each, there = _overlaps(counts), counts.support + counts.predicted > 0
    result = {}
    for name in ("dice", "iou"):
        values = np.where(there, each[name], 0.0)
        result[f"mean_{name}"] = share(values.sum(-1), there.sum(-1))
        result[f"mean_{name}_without_class_0"] = share(values[..., 1:].sum(-1), there[..., 1:].sum(-1))
    return {**result, "pixel_accuracy": share(counts.hits.sum(-1), counts.support.sum(-1))}
