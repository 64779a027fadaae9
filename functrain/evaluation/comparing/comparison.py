"""Reports of several models on the same examples, compared: numbers, figures, paired tests."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from functrain.evaluation import rankings
from functrain.evaluation.comparing import paired
from functrain.evaluation.comparing.paired import Outcome, Truths
from functrain.evaluation.comparing.replicates import Numbers, replicates
from functrain.evaluation.comparing.tables import PairedTest, numbers_table, tests_table
from functrain.evaluation.panels import Panel, curves, models
from functrain.evaluation.rankings import Ranking
from functrain.evaluation.reports import Number, Report, binary
from functrain.foundation.errors import DataError

# The arrays of a report that are the same for models that saw the same examples.
_TRUTH: Mapping[str, tuple[str, ...]] = {
    "classification": ("targets",),
    "binary_classification": ("targets", "counted"),
    "regression": ("targets",),
    "segmentation": ("support",),
    "language_modelling": ("tokens",),
}


@dataclass(frozen=True)
class Comparison:
    """Several models on the same examples. `print` shows the tables; `write_comparison` writes the files.

    Attributes:
        task: of the models, such as "classification".
        examples: how many were counted.
        numbers: of each model, name -> the numbers of its report.
        tests: for each metric of each pair of models.
        bars: a figure for each metric.
        roc: the ROC curves of all models; None for a task that has none.
    """

    task: str
    examples: int
    numbers: Mapping[str, tuple[Number, ...]]
    tests: tuple[PairedTest, ...]
    bars: tuple[Panel, ...]
    roc: Panel | None

    def __str__(self) -> str:
        """The tables as text."""
        return "\n".join(
            [f"{self.examples:,} examples", "", *numbers_table(self.numbers), "", *tests_table(self.tests)]
        )


def compare_reports(reports: Mapping[str, Report], metrics: Sequence[str] | None = None) -> Comparison:
    """Compare reports of several models on the same examples, in the same order.

    Args:
        reports: name -> a report of `evaluation_report`.
        metrics: names of the numbers to compare, in this order; None: all of the report.

    Raises:
        ValueError: for fewer than two reports, reports of unlike tasks, or a metric that they do not have.
        DataError: if the reports are not of the same examples.

    Example:
        >>> import torch, functrain as ft
        >>> batches = [(torch.randn(50, 2), torch.arange(50) % 3)]
        >>> states = [ft.init_state(torch.nn.Linear(2, 3), ft.classification(), ft.optim.sgd(0.1)) for _ in range(2)]
        >>> reports = {name: ft.evaluation_report(state, batches) for name, state in zip("ab", states)}
        >>> [(test.metric, test.test) for test in compare_reports(reports, ["accuracy"]).tests]
        [('accuracy', 'McNemar'), ('accuracy', 'bootstrap')]
    """
    first = _checked(reports)
    chosen = _chosen(first, metrics)
    numbers = {
        model: tuple(number for name in chosen for number in report.numbers if number.name == name)
        for model, report in reports.items()
    }
    bars = [
        models.metric_bars(name, {model: (values[i].value, values[i].interval) for model, values in numbers.items()})
        for i, name in enumerate(chosen)
    ]
    tests = tuple(test for family in _families(reports, numbers) for test in family)
    return Comparison(first.task, first.examples, numbers, tests, tuple(bars), _roc(reports, first))


def _checked(reports: Mapping[str, Report]) -> Report:
    """The first report, if all are of the same examples."""
    if len(reports) < 2:
        raise ValueError(f"a comparison needs two or more models; got {', '.join(reports) or 'none'}")
    (name, first), *others = reports.items()
    for other, report in others:
        if report.task != first.task:
            raise ValueError(
                f"models of one task can be compared; {name} is for {first.task}, {other} for {report.task}"
            )
        for key in _TRUTH[first.task]:
            ours, theirs = (np.asarray(one.scores[key]) for one in (first, report))
            if ours.shape[1:] != theirs.shape[1:]:
                raise DataError(
                    f"{name} and {other} have unlike targets: an example has {list(ours.shape[1:])} and "
                    f"{list(theirs.shape[1:])} values"
                )
            if not np.array_equal(ours, theirs, equal_nan=ours.dtype.kind == "f"):
                raise DataError(_unpaired(name, other, ours, theirs))
        if first.task == "classification":
            _check_classes(name, other, first, report)
    return first


def _check_classes(name: str, other: str, first: Report, report: Report) -> None:
    ours, theirs = (one.scores["probabilities"].shape[1] for one in (first, report))
    if ours != theirs:
        raise DataError(f"models of the same classes can be compared; {name} has {ours} classes, {other} has {theirs}")


def _unpaired(name: str, other: str, ours: Any, theirs: Any) -> str:
    if len(ours) != len(theirs):
        what = f"{name} was evaluated on {len(ours):,} examples and {other} on {len(theirs):,}"
    else:
        unlike = (ours != theirs).reshape(len(ours), -1).any(1)
        what = f"{int(unlike.sum()):,} of the {len(ours):,} targets of {name} and {other} differ"
    return (
        f"paired tests need the same examples in the same order, but {what}. Evaluate both on the same data, unshuffled"
    )


def _chosen(report: Report, metrics: Sequence[str] | None) -> list[str]:
    known = [number.name for number in report.numbers]
    if metrics is None:
        return known
    if isinstance(metrics, str):
        raise ValueError(f"metrics must be a list of names, such as metrics=[{metrics!r}]; got a text")
    strange = [name for name in metrics if name not in known]
    if strange or not metrics:
        given = f"{strange[0]!r} is none of them" if strange else "none is given"
        raise ValueError(f"metrics to compare must be some of {', '.join(known)}; {given}")
    return list(dict.fromkeys(metrics))


def _families(
    reports: Mapping[str, Report], numbers: Mapping[str, tuple[Number, ...]]
) -> Iterator[tuple[PairedTest, ...]]:
    """The tests of all pairs for one metric after another, corrected for their number."""
    drawn = {model: replicates(report) for model, report in reports.items()}
    pairs = list(combinations(reports, 2))
    for place, number in enumerate(next(iter(numbers.values()))):
        values = {model: each[place].value for model, each in numbers.items()}
        families: dict[str, list[Outcome]] = {}
        for model, other in pairs:
            for test, outcome in _tests(number.name, reports[model], reports[other]):
                families.setdefault(test, []).append(outcome)
            spread = _difference(drawn[model].get(number.name), drawn[other].get(number.name))
            families.setdefault("bootstrap", []).append(paired.bootstrap_test(spread))
        for test, outcomes in families.items():
            corrected = paired.holm([outcome.p for outcome in outcomes])
            yield tuple(
                PairedTest(number.name, test, a, b, values[a] - values[b], outcome.interval, outcome.p, p)
                for (a, b), outcome, p in zip(pairs, outcomes, corrected)
            )


def _difference(ours: Numbers | None, theirs: Numbers | None) -> Numbers:
    return np.empty(0) if ours is None or theirs is None else ours - theirs


def _tests(metric: str, report: Report, other: Report) -> Iterator[tuple[str, Outcome]]:
    """The tests that there are for one metric only."""
    if metric == "accuracy" and (right := _right(report)) is not None:
        yield "McNemar", paired.mcnemar(right, _counted_right(other))
    if metric == "auroc" and report.task == "binary_classification" and _labels(report) == 1:
        counted = report.scores["counted"][:, 0]
        ours, theirs = (one.scores["probabilities"][counted, 0] for one in (report, other))
        yield "DeLong", paired.delong(ours, theirs, report.scores["targets"][counted, 0])


def _labels(report: Report) -> int:
    return int(report.scores["targets"].shape[1])


def _right(report: Report) -> Truths | None:
    """Which examples are right; None where an example is more than right or wrong."""
    one_answer = report.task == "classification" or (report.task == "binary_classification" and _labels(report) == 1)
    return _counted_right(report) if one_answer else None


def _counted_right(report: Report) -> Truths:
    probabilities, targets = report.scores["probabilities"], report.scores["targets"]
    if report.task == "classification":
        return probabilities.argmax(1) == targets
    counted = report.scores["counted"]
    return (probabilities[counted] > binary.DEFAULT) == targets[counted]


def _roc(reports: Mapping[str, Report], first: Report) -> Panel | None:
    """Of classes the mean of their curves, of yes or no the curve."""
    if first.task == "classification":
        targets = first.scores["targets"]
        classes = [label for label in np.unique(targets) if 0 < (targets == label).sum() < len(targets)]
        if not classes:
            return None
        of_models = {
            model: [_ranking_of_class(report, label, targets == label) for label in classes]
            for model, report in reports.items()
        }
        return Panel("roc_comparison", "ROC, mean of the classes", "roc", {"curves": models.mean_roc(of_models)})
    if first.task == "binary_classification":
        panel = curves.roc([curves.curves_of(model, _ranking(report)) for model, report in reports.items()])
        return panel._replace(name="roc_comparison")
    return None


def _ranking_of_class(report: Report, label: int, positive: Truths) -> Ranking:
    return rankings.ranking(np.asarray(report.scores["probabilities"][:, label], float), positive)


def _ranking(report: Report) -> Ranking:
    counted = report.scores["counted"]
    return rankings.ranking(report.scores["probabilities"][counted], report.scores["targets"][counted])
