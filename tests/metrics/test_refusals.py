"""NaN, targets that are no labels and shapes that do not fit are refused in words."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch

from functrain import metrics
from functrain.errors import MetricError


@pytest.mark.parametrize("name", sorted(metrics.REGISTRY))
def test_nan_in_the_predictions_is_refused_by_name(name: str) -> None:
    metric = metrics.REGISTRY[name]()
    values = name in ("mae", "mse", "rmse", "r2", "pearson", "spearman")
    predictions = torch.zeros(3) if values else torch.zeros(3, 2, 4, 4) if "hausdorff" in name else torch.zeros(3, 2)
    targets = torch.zeros(3) if values else torch.zeros(3, *predictions.shape[2:], dtype=torch.int64)
    predictions[1] = math.nan
    if names := metric.statistic.outputs:
        predictions = dict.fromkeys(names, predictions)
    with pytest.raises(MetricError, match=rf"{name} found NaN in the predictions"):
        metric(predictions, targets)
    weight = torch.tensor([1.0, 0.0, 1.0])
    metric(predictions, targets, weight)  # an example that does not count is not looked at


@pytest.mark.parametrize("label", [-1, 2, 7])
def test_a_target_that_is_no_label_is_refused(label: int) -> None:
    with pytest.raises(MetricError, match=r"accuracy found a target that is no label \(1 times\)"):
        metrics.accuracy()(torch.zeros(2, 2), torch.tensor([0, label]))
    with pytest.raises(MetricError, match="a target that is no label"):
        metrics.f1()(torch.zeros(2), torch.tensor([0, label]))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: metrics.f1("mean"), "average must be one of macro, micro, weighted, none; got 'mean'"),  # type: ignore[arg-type]
        (lambda: metrics.accuracy(top_k=0), "top_k must be a whole number"),
        (lambda: metrics.accuracy(top_k=9)(torch.zeros(1, 2), torch.tensor([0])), "top_k must be 1 to 2"),
        (lambda: metrics.recall_at_fpr(2), "fpr must be a false positive rate"),
        (lambda: metrics.f1(threshold=3), "threshold must be a probability"),
        (lambda: metrics.f1()(torch.zeros(2, 3), torch.zeros(2)), "targets of a multiclass metric are class numbers"),
        (lambda: metrics.f1()(torch.zeros(2, 3), torch.zeros(3).long()), r"predictions \[B, C, ...\]"),
        (lambda: metrics.f1()(torch.zeros(3).long(), torch.zeros(3).long()), "needs num_classes"),
        (
            lambda: metrics.auroc()(torch.zeros(2, 3), torch.zeros(2).long(), torch.ones(3)),
            "one number for each example",
        ),
        (lambda: metrics.mae()(torch.zeros(2, 3), torch.zeros(2)), "predictions and targets of one shape"),
        (lambda: metrics.measures(["f2"]), "there is no metric 'f2'; known: accuracy, attention_entropy"),
        (lambda: metrics.measures(["f1", "f1"]), "two metrics have the name f1"),
        (lambda: metrics.measures([{"name": "f1", "beta": 2}]), "metric 'f1': .*beta"),
    ],
)
def test_what_does_not_fit_is_refused_in_words(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
