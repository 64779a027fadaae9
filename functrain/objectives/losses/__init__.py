"""Losses that are not reduced: values and weights.

Every loss is a function `(predictions, targets, **options) -> PerExample`. The sum of values times weights
and the sum of the weights add up over micro-batches; their quotient, taken once, is the mean. Predictions of half
precision are taken in float32.
"""

from functrain.metrics.weighted_sums import LossFunction as LossFunction
from functrain.metrics.weighted_sums import PerExample as PerExample
from functrain.metrics.weighted_sums import per_example as per_example
from functrain.objectives.losses.binary import binary_cross_entropy as binary_cross_entropy
from functrain.objectives.losses.binary import binary_focal as binary_focal
from functrain.objectives.losses.classes import cross_entropy as cross_entropy
from functrain.objectives.losses.classes import focal as focal
from functrain.objectives.losses.contrastive import info_nce as info_nce
from functrain.objectives.losses.difference import absolute_error as absolute_error
from functrain.objectives.losses.difference import huber as huber
from functrain.objectives.losses.difference import smooth_l1 as smooth_l1
from functrain.objectives.losses.difference import squared_error as squared_error
from functrain.objectives.losses.overlap import binary_dice as binary_dice
from functrain.objectives.losses.overlap import binary_iou as binary_iou
from functrain.objectives.losses.overlap import dice as dice
from functrain.objectives.losses.overlap import iou as iou
from functrain.objectives.losses.registry import BINARY as BINARY
from functrain.objectives.losses.registry import CLASSES as CLASSES
from functrain.objectives.losses.registry import PAIRS as PAIRS
from functrain.objectives.losses.registry import REGISTRY as REGISTRY
from functrain.objectives.losses.registry import TEACHERS as TEACHERS
from functrain.objectives.losses.registry import VALUES as VALUES
from functrain.objectives.losses.teachers import distillation as distillation
