"""Accumulators merge: any split, order, padding and number of ranks gives the same value."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from functrain import metrics
from functrain.metrics.measuring import Collected, Measured, Measures, received, sent

CLASSES = 4
BY_TASK = {
    "multiclass": [
        *(metrics.accuracy(average) for average in ("micro", "macro", "weighted", "none")),
        metrics.accuracy(top_k=2),
        *(make("none") for make in (metrics.precision, metrics.recall, metrics.f1, metrics.specificity, metrics.iou)),
        metrics.dice(include_background=False),
        metrics.balanced_accuracy(),
        metrics.matthews_corrcoef(),
        metrics.cohen_kappa("quadratic"),
        metrics.confusion_matrix(),
        metrics.calibration_error(5),
        metrics.brier(),
        metrics.perplexity(),
        metrics.bits_per_byte([1, 2, 3, 4]),
        metrics.auroc("none"),
        metrics.auprc(),
        metrics.recall_at_fpr(0.2),
    ],
    "multilabel": [metrics.accuracy("none"), metrics.f1("none"), metrics.confusion_matrix(), metrics.auroc("none")],
    "binary": [metrics.f1(), metrics.matthews_corrcoef(), metrics.auroc(), metrics.auprc(), metrics.recall_at_fpr(0.1)],
    "values": [metrics.mae(), metrics.mse(), metrics.rmse(), metrics.r2(), metrics.pearson(), metrics.spearman()],
}
CASES = [(task, metric) for task, found in BY_TASK.items() for metric in found]


def batch(task: str, rows: int, seed: int, *, whole: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Predictions with ties, targets, and weights, some of them 0."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return (torch.randn(*shape, generator=generator) * 3).round() / 3

    weight = torch.randint(0, 3, (rows,), generator=generator).float()
    weight = weight if whole else weight * torch.rand(rows, generator=generator)
    if task == "multiclass":
        return normal(rows, CLASSES), torch.randint(0, CLASSES, (rows,), generator=generator), weight
    if task == "multilabel":
        return normal(rows, 3), torch.randint(0, 2, (rows, 3), generator=generator), weight
    if task == "binary":
        return normal(rows), torch.randint(0, 2, (rows,), generator=generator), weight
    return normal(rows), normal(rows), weight


def padded(part: tuple[Tensor, ...], rows: int) -> tuple[Tensor, ...]:
    """The part with rows of weight 0, and of any content, at its end."""
    predictions, targets, weight = part
    more = rows - len(weight)
    predictions = torch.cat([predictions, torch.full((more, *predictions.shape[1:]), math.nan)])
    filler = math.nan if targets.is_floating_point() else 99
    targets = torch.cat([targets, torch.full((more, *targets.shape[1:]), filler, dtype=targets.dtype)])
    return predictions, targets, torch.cat([weight, torch.zeros(more)])


def parts(whole: tuple[Tensor, ...], sizes: list[int], order: list[int]) -> list[tuple[Tensor, ...]]:
    """The rows in another order, in parts of these sizes (and the rest), each padded to one size."""
    shuffled = tuple(leaf[torch.tensor(order)] for leaf in whole)
    ends = [0]
    for size in sizes:
        ends.append(min(ends[-1] + size, len(order)))
    ends.append(len(order))
    cut = [tuple(leaf[start:end] for leaf in shuffled) for start, end in itertools.pairwise(ends)]
    largest = max(len(part[2]) for part in cut)
    return [padded(part, largest) for part in cut]


def assert_same(left: Measured, right: Measured, *, exact: bool) -> None:
    found, wanted = left.values(), right.values()
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        tolerance = 0.0 if exact else 1e-12
        torch.testing.assert_close(found[name], value, rtol=tolerance, atol=tolerance, equal_nan=True, msg=name)


@pytest.mark.parametrize("task", BY_TASK)
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_any_split_order_and_padding_gives_the_same_value(task: str, data: st.DataObject) -> None:
    rows = data.draw(st.integers(1, 30))
    whole = batch(task, rows, data.draw(st.integers(0, 2**31)), whole=data.draw(st.booleans()))
    cut = parts(whole, data.draw(st.lists(st.integers(1, 9), max_size=6)), data.draw(st.permutations(range(rows))))
    for metric in BY_TASK[task]:
        measures = Measures((metric,))
        collected = Collected()
        for part in cut:
            collected.add(measures.of(*part))
        total = collected.total()
        assert total is not None
        # The weights are whole numbers or float32: sums of counts are exact, sums of fractions are to rounding.
        exact = metric.name in ("confusion_matrix", "matthews_corrcoef") and bool((whole[2] == whole[2].round()).all())
        assert_same(total, measures.of(*whole), exact=exact)


@pytest.mark.parametrize("ranks", [1, 2, 3, 5])
@pytest.mark.parametrize("task", BY_TASK)
def test_any_number_of_ranks_gives_the_same_value(task: str, ranks: int) -> None:
    measures = Measures(tuple(each for each in BY_TASK[task] if not each.statistic.grows)[:1])
    for metric in [each for each in BY_TASK[task] if not each.statistic.grows]:
        measures = Measures((metric,))
        whole = batch(task, 15, 3, whole=True)
        shares = [tuple(leaf[rank::ranks] for leaf in whole) for rank in range(ranks)]
        of_rank = [measures.of(*share) for share in shares]
        sums = [sent(each, rank, ranks) for rank, each in enumerate(of_rank)]
        key = next(iter(measures.statistics))
        summed = {key: {name: sum(each[key][name] for each in sums) for name in sums[0][key]}}
        assert_same(received(of_rank[0], summed, ranks), measures.of(*whole), exact=False)


@pytest.mark.parametrize(("task", "metric"), CASES, ids=lambda case: getattr(case, "name", case))
def test_an_empty_accumulator_changes_nothing(task: str, metric: metrics.Metric) -> None:
    part = batch(task, 9, 0, whole=True)
    accumulator = metric.update(None, *part)
    empty = metric.init(*part[:2])
    merged = Measured({"": metric.merge(empty, accumulator)}, Measures((metric,)))
    for key in metric.statistic.of(*part):
        torch.testing.assert_close(merged.accumulators[""][key], accumulator[key], rtol=0, atol=0)


@pytest.mark.parametrize(("task", "metric"), CASES, ids=lambda case: getattr(case, "name", case))
def test_nothing_counted_gives_no_number(task: str, metric: metrics.Metric) -> None:
    predictions, targets, weight = batch(task, 5, 0, whole=True)
    value = (
        Measures((metric,)).of(predictions, targets, torch.zeros_like(weight)).values()[metric.name.split("/")[0]]
        if metric.name != "confusion_matrix"
        else torch.tensor(math.nan)
    )
    assert value.isnan()


def test_counts_are_whole_numbers_beyond_float32() -> None:
    metric = metrics.accuracy()
    counts = {"multiclass": torch.tensor([2.0**24, 2.0**24], dtype=torch.float64), "refused": torch.zeros(2).double()}
    more = metric.update(counts, torch.eye(2), torch.tensor([0, 1]))
    assert more["multiclass"].tolist() == [2**24 + 2, 2**24 + 2]


@pytest.mark.parametrize("task", ["multiclass", "multilabel", "binary"])
@pytest.mark.parametrize("whole", [True, False])
def test_a_metric_has_one_value_whatever_else_is_measured(task: str, whole: bool) -> None:
    of_classes = (metrics.accuracy(), *(make("none") for make in (metrics.f1, metrics.recall, metrics.specificity)))
    given_ = batch(task, 40, 3, whole=whole)
    together = Measures((*of_classes, metrics.confusion_matrix())).of(*given_)
    assert len(together.accumulators) == 1  # the confusion matrix tells the others
    found, stacked = together.values(), together.stacked()
    assert stacked.named() == found
    for metric in of_classes:
        for name, value in Measures((metric,)).of(*given_).values().items():
            torch.testing.assert_close(found[name], value, rtol=0 if whole else 1e-12, atol=0, equal_nan=True)
