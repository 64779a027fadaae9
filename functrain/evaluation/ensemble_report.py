"""The report of several members: that of their mean prediction, with a table of the members and their disagreement."""

from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import Any

import torch

from functrain.data.preprocessing import class_names
from functrain.evaluation.ensemble_sums import EnsembleResult, EnsembleSums, mean_prediction
from functrain.evaluation.kept_rows import KeptRows
from functrain.evaluation.panels import Panel, ensembles
from functrain.evaluation.prediction import answers_of_all
from functrain.evaluation.rankings import best_threshold
from functrain.evaluation.reports import Report, TaskCollector
from functrain.evaluation.reports.binary import BinaryClassification
from functrain.evaluation.reports.report import Collector, Number, Table
from functrain.step.state import TrainState

DRAWN = 2  # metrics of members that a figure shows


def ensemble_report(
    states: Sequence[TrainState],
    loader: Any,
    *,
    ema: bool,
    compile: bool,
    tuning: Any = None,
    labels: Sequence[str] | None = None,
) -> Report:
    """The report; arguments and errors as of `evaluation_report`.

    Raises:
        FunctrainError: the objective's task has no mean prediction.
    """
    sums = EnsembleSums(states)
    chosen, tuned = _collected(states, loader, ema, compile, sums), None
    if tuning is not None and isinstance(chosen, BinaryClassification):
        other = _collected(states, tuning, ema, compile)
        assert isinstance(other, BinaryClassification)
        tuned = best_threshold(other.ranking())
    report, found = chosen.report(tuned, labels), sums.result()
    return report._replace(
        numbers=(*report.numbers, *(Number(_named(name), value) for name, value in found.uncertainty.items())),
        tables=(*report.tables, _table(found)),
        panels=(*report.panels, *_panels(found, sums)),
    )


def _collected(
    states: Sequence[TrainState], loader: Any, ema: bool, compile: bool, sums: EnsembleSums | None = None
) -> Collector:
    """The mean predictions of a loader's examples."""
    collector = TaskCollector(states[0].recipe.objective, KeptRows(), class_names(loader))
    answers = answers_of_all(states, loader, ema=ema, compile=compile, with_targets=True)
    with closing(answers):
        for each in answers:
            compared = [collector.compared(outputs, targets) for outputs, targets in each]
            kind, _, targets = compared[0]
            mean = mean_prediction(torch.stack([scores.double() for _, scores, _ in compared]), kind)
            collector.add_compared(kind, mean, targets)
            if sums is not None:
                sums.add(each)
    return collector.chosen


def _named(name: str) -> str:
    """An uncertainty among other numbers."""
    return name if name == "disagreement" else f"{name}_uncertainty"


def _table(found: EnsembleResult) -> Table:
    names = list(found.ensemble)
    rows = [["mean prediction", *(found.ensemble[name] for name in names)]]
    rows += [[f"member {number}", *(one[name] for name in names)] for number, one in enumerate(found.members)]
    return Table("members", "Members", ("member", *names), rows)


def _panels(found: EnsembleResult, sums: EnsembleSums) -> Iterator[Panel]:
    for name in list(found.ensemble)[:DRAWN]:
        yield ensembles.members(name, [one[name] for one in found.members], found.ensemble[name])
    if (panel := sums.panel()) is not None:
        yield panel
