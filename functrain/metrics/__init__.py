"""Metrics as accumulators (init, update, merge, compute), and the sums that steps make of a loss.

They add over micro-batches, batches, epochs and ranks. Names load with first use: a step needs the sums alone.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from functrain.metrics.accumulating import Metric as Metric
    from functrain.metrics.accumulating import metric as metric
    from functrain.metrics.agreement import balanced_accuracy as balanced_accuracy
    from functrain.metrics.agreement import cohen_kappa as cohen_kappa
    from functrain.metrics.agreement import confusion_matrix as confusion_matrix
    from functrain.metrics.agreement import matthews_corrcoef as matthews_corrcoef
    from functrain.metrics.attention import attention_entropy as attention_entropy
    from functrain.metrics.classification import accuracy as accuracy
    from functrain.metrics.classification import f1 as f1
    from functrain.metrics.classification import precision as precision
    from functrain.metrics.classification import recall as recall
    from functrain.metrics.classification import specificity as specificity
    from functrain.metrics.measuring import Measured as Measured
    from functrain.metrics.measuring import Measures as Measures
    from functrain.metrics.modalities import modality_consistency as modality_consistency
    from functrain.metrics.overlap import dice as dice
    from functrain.metrics.overlap import iou as iou
    from functrain.metrics.probabilities import bits_per_byte as bits_per_byte
    from functrain.metrics.probabilities import brier as brier
    from functrain.metrics.probabilities import calibration_error as calibration_error
    from functrain.metrics.probabilities import perplexity as perplexity
    from functrain.metrics.ranking import auprc as auprc
    from functrain.metrics.ranking import auroc as auroc
    from functrain.metrics.ranking import recall_at_fpr as recall_at_fpr
    from functrain.metrics.registry import REGISTRY as REGISTRY
    from functrain.metrics.registry import measures as measures
    from functrain.metrics.regression import mae as mae
    from functrain.metrics.regression import mse as mse
    from functrain.metrics.regression import pearson as pearson
    from functrain.metrics.regression import r2 as r2
    from functrain.metrics.regression import rmse as rmse
    from functrain.metrics.regression import spearman as spearman
    from functrain.metrics.surfaces import hausdorff_distance as hausdorff_distance

_NAMES = {
    "agreement": ("balanced_accuracy", "cohen_kappa", "confusion_matrix", "matthews_corrcoef"),
    "classification": ("accuracy", "f1", "precision", "recall", "specificity"),
    "overlap": ("dice", "iou"),
    "attention": ("attention_entropy",),
    "modalities": ("modality_consistency",),
    "measuring": ("Measured", "Measures"),
    "accumulating": ("Metric", "metric"),
    "probabilities": ("bits_per_byte", "brier", "calibration_error", "perplexity"),
    "ranking": ("auprc", "auroc", "recall_at_fpr"),
    "registry": ("REGISTRY", "measures"),
    "regression": ("mae", "mse", "pearson", "r2", "rmse", "spearman"),
    "surfaces": ("hausdorff_distance",),
}
_HOMES = {name: module for module, names in _NAMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'functrain.metrics' has no attribute {name!r}")
    return getattr(import_module(f"functrain.metrics.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(_HOMES)
