"""The losses by name.

Tables by what the targets are: each is a contract, and the tests run over all of them. A new loss is an entry here.
"""

from collections.abc import Mapping

from functrain.metrics.weighted_sums import LossFunction
from functrain.objectives.losses.binary import binary_cross_entropy, binary_focal
from functrain.objectives.losses.classes import cross_entropy, focal
from functrain.objectives.losses.contrastive import info_nce
from functrain.objectives.losses.difference import absolute_error, huber, smooth_l1, squared_error
from functrain.objectives.losses.overlap import binary_dice, binary_iou, dice, iou
from functrain.objectives.losses.teachers import distillation

CLASSES: Mapping[str, LossFunction] = {"cross_entropy": cross_entropy, "focal": focal, "dice": dice, "iou": iou}
"""Logits `[B, C, ...]`, targets int64 `[B, ...]`; take `ignore_index`."""

BINARY: Mapping[str, LossFunction] = {
    "binary_cross_entropy": binary_cross_entropy,
    "binary_focal": binary_focal,
    "binary_dice": binary_dice,
    "binary_iou": binary_iou,
}
"""Logits `[B, ...]`, targets 0 to 1 of the same shape; take `ignore_index`."""

VALUES: Mapping[str, LossFunction] = {
    "squared_error": squared_error,
    "absolute_error": absolute_error,
    "huber": huber,
    "smooth_l1": smooth_l1,
}
"""Predictions and targets `[B, ...]` of one shape."""

PAIRS: Mapping[str, LossFunction] = {"info_nce": info_nce}
"""Two embeddings `[B, D]` of each example; take `weight` and `groups`."""

TEACHERS: Mapping[str, LossFunction] = {"distillation": distillation}
"""Logits of a student and of its teacher, `[B, C, ...]` of one shape."""

REGISTRY: Mapping[str, LossFunction] = {**CLASSES, **BINARY, **VALUES, **PAIRS, **TEACHERS}
"""All of them: what a configuration can name."""
