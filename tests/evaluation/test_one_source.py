"""Reports and `ft.metrics` have the same numbers under the same names."""

import numpy as np
import pytest
import torch

from functrain import metrics
from functrain.evaluation.reports.binary import BinaryClassification
from functrain.evaluation.reports.classification import Classification
from functrain.evaluation.reports.language import LanguageModelling
from functrain.evaluation.reports.regression import Regression
from functrain.evaluation.reports.segmentation import Segmentation

CLOSE = {"rel": 1e-12, "abs": 1e-12}  # float64, some hundred additions in two orders


def data(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def classes(count, *shape):
    return torch.randint(0, count, shape, generator=torch.Generator().manual_seed(1))


def labels(*shape):
    return (torch.rand(*shape, generator=torch.Generator().manual_seed(1)) < 0.3).double()


# collector, scores, targets; the report's name -> a metric
REPORTS = {
    "classes": (
        Classification(),
        data(300, 5).round(decimals=1),
        classes(4, 300),  # one class never occurs
        {
            **{
                name: metrics.REGISTRY[name]()
                for name in ("accuracy", "balanced_accuracy", "precision", "recall", "f1")
            },
            **{name: metrics.REGISTRY[name]() for name in ("matthews_corrcoef", "cohen_kappa", "auroc", "auprc")},
            "brier_score": metrics.brier(),
            "calibration_error": metrics.calibration_error(15),
        },
    ),
    "yes or no": (
        BinaryClassification(),
        data(300).round(decimals=1),
        labels(300),
        {
            **{
                name: metrics.REGISTRY[name]()
                for name in ("accuracy", "balanced_accuracy", "precision", "recall", "f1")
            },
            **{name: metrics.REGISTRY[name]() for name in ("matthews_corrcoef", "specificity", "auroc", "auprc")},
            "brier_score": metrics.brier(),
            "calibration_error": metrics.calibration_error(15),
        },
    ),
    "regions": (
        Segmentation(),
        data(6, 4, 5, 5),
        classes(3, 6, 5, 5),
        {
            "mean_dice": metrics.dice(),
            "mean_iou": metrics.iou(),
            "mean_dice_without_class_0": metrics.dice(include_background=False),
            "mean_iou_without_class_0": metrics.iou(include_background=False),
            "pixel_accuracy": metrics.accuracy(),
            "hausdorff_distance": metrics.hausdorff_distance(),
        },
    ),
    "values": (
        Regression(),
        data(200),
        data(200) + labels(200),
        {name: metrics.REGISTRY[name]() for name in ("mae", "mse", "rmse", "r2", "pearson")},
    ),
    "tokens": (
        LanguageModelling(),
        data(4, 9, 6),
        classes(9, 4, 6),
        {"perplexity": metrics.perplexity(), "accuracy": metrics.accuracy()},
    ),
}


@pytest.mark.parametrize("name", REPORTS)
def test_a_number_of_a_report_is_the_metric_of_its_name(name):
    collector, scores, targets, same = REPORTS[name]
    collector.add(scores[:150], targets[:150])
    if len(scores) > 150:
        collector.add(scores[150:], targets[150:])
    found = {number.name: number.value for number in collector.report().numbers}
    for each, metric in same.items():
        value = metric(scores, targets)
        assert found[each] == pytest.approx(float(value), **CLOSE), each


def test_the_table_of_classes_has_the_metrics_of_each_class():
    scores, targets = data(300, 5), classes(4, 300)
    collector = Classification()
    collector.add(scores, targets)
    [table] = collector.report().tables
    for name in ("precision", "recall", "f1", "specificity", "auroc"):
        column = table.header.index(name)
        expected = metrics.REGISTRY[name]("none")(scores, targets)["class"].tolist()
        for row, value in zip(table.rows, expected):
            if not np.isnan(value):
                assert row[column] == pytest.approx(value, **CLOSE), (name, row[0])
