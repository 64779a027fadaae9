"""The metrics by name, and what a user may give for them.

The tests run over the table: a new metric is an entry here.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from functrain.metrics.accumulating import Metric
from functrain.metrics.agreement import balanced_accuracy, cohen_kappa, confusion_matrix, matthews_corrcoef
from functrain.metrics.attention import attention_entropy
from functrain.metrics.classification import accuracy, f1, precision, recall, specificity
from functrain.metrics.measuring import Measures, as_metric
from functrain.metrics.modalities import modality_consistency
from functrain.metrics.overlap import dice, iou
from functrain.metrics.probabilities import bits_per_byte, brier, calibration_error, perplexity
from functrain.metrics.ranking import auprc, auroc, recall_at_fpr
from functrain.metrics.regression import mae, mse, pearson, r2, rmse, spearman
from functrain.metrics.surfaces import hausdorff_distance

REGISTRY: Mapping[str, Callable[..., Metric]] = {
    "accuracy": accuracy,
    "attention_entropy": attention_entropy,
    "auprc": auprc,
    "auroc": auroc,
    "balanced_accuracy": balanced_accuracy,
    "bits_per_byte": bits_per_byte,
    "brier": brier,
    "calibration_error": calibration_error,
    "cohen_kappa": cohen_kappa,
    "confusion_matrix": confusion_matrix,
    "dice": dice,
    "f1": f1,
    "hausdorff_distance": hausdorff_distance,
    "iou": iou,
    "mae": mae,
    "matthews_corrcoef": matthews_corrcoef,
    "modality_consistency": modality_consistency,
    "mse": mse,
    "pearson": pearson,
    "perplexity": perplexity,
    "precision": precision,
    "r2": r2,
    "recall": recall,
    "recall_at_fpr": recall_at_fpr,
    "rmse": rmse,
    "spearman": spearman,
    "specificity": specificity,
}


def measures(given: Any) -> Measures | None:
    """The metrics that a user asks for.

    Args:
        given: one metric, a sequence of some, or a mapping of the names of their records to them. Each is a name, such
            as "auroc"; a mapping `{"name": "recall_at_fpr", "fpr": 0.05}` of a name and arguments, and perhaps the
            "label" of its records; a `Metric`; or a tuple of functions. None, or nothing: none.

    Raises:
        ValueError: for a name or an argument that does not exist, or two metrics of one name.
        TypeError: for anything else.

    Example:
        >>> found = measures(["accuracy", {"name": "f1", "average": "weighted"}])
        >>> [each.name for each in found.metrics]
        ['accuracy', 'f1']
    """
    if given is None:
        return None
    if isinstance(given, Measures):
        return given if given.metrics else None
    if isinstance(given, Mapping) and "name" not in given:
        found = [_one(each, str(name)) for name, each in given.items()]
    elif isinstance(given, (str, Metric, Mapping)):
        found = [_one(given)]
    elif isinstance(given, Sequence):
        found = [_one(each) for each in given]
    else:
        raise TypeError(f"metrics are names, functrain.metrics.Metric or tuples of functions; got {given!r}")
    return Measures(tuple(found)) if found else None


def _one(given: Any, name: str | None = None) -> Metric:
    if isinstance(given, str):
        return as_metric(_named(given, {}), name)
    if isinstance(given, Mapping):
        arguments = dict(given)
        name = arguments.pop("label", name)
        if not isinstance(kind := arguments.pop("name", None), str):
            raise ValueError(f"a metric with arguments is {{'name': 'f1', 'average': 'weighted'}}; got {given!r}")
        return as_metric(_named(kind, arguments), name)
    return as_metric(given, name)


def _named(kind: str, arguments: Mapping[str, Any]) -> Metric:
    if kind not in REGISTRY:
        raise ValueError(f"there is no metric {kind!r}; known: {', '.join(REGISTRY)}. Or give a Metric of your own")
    try:
        return REGISTRY[kind](**arguments)
    except TypeError as error:
        raise ValueError(f"metric {kind!r}: {error}") from None
