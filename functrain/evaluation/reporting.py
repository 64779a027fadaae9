"""The report of a state on the examples of a loader."""

from collections.abc import Sequence
from typing import Any

from functrain.evaluation.prediction import answers
from functrain.evaluation.rankings import best_threshold
from functrain.evaluation.reports import Report, TaskCollector
from functrain.evaluation.reports.binary import BinaryClassification
from functrain.objectives.tasks import TASKS, task_of
from functrain.step.state import TrainState, require_state


def evaluation_report(
    state: TrainState,
    loader: Any,
    *,
    ema: bool = False,
    compile: bool = False,
    tuning: Any = None,
    labels: Sequence[str] | None = None,
) -> Report:
    """Metrics with confidence intervals, tables, figures and predictions, as the objective's task asks for.

    Each example counts once; weights of examples count in `evaluate` only. Intervals hold with a confidence of 95 %:
    they are the middle of 2,000 replicates of a Poisson bootstrap over examples, always the same ones; of shares of
    examples they are Wilson's.

    Args:
        state: any state; not changed.
        loader: as for `fit`, without shuffling.
        ema: report on the averaged parameters.
        compile: compile the forward pass first, which pays for long loaders only.
        tuning: a loader of other examples, of which a yes-or-no classifier's threshold is chosen: the best F1.
        labels: names of the classes, labels or outputs.

    Returns:
        The report; `write_report` writes it.

    Raises:
        ValueError: if the objective names no task. Of your own objective, set its attribute `task`.
        DataError: if there is no example, or outputs and targets do not fit the task.
        TypeError: if a batch holds inputs only.

    Example:
        >>> import torch, functrain as ft
        >>> state = ft.init_state(torch.nn.Linear(2, 3), ft.classification(), ft.optim.sgd(0.1))
        >>> report = evaluation_report(state, [(torch.ones(4, 2), torch.tensor([0, 1, 2, 0]))])
        >>> report.task, report.examples, [number.name for number in report.numbers][:2]
        ('classification', 4, ['accuracy', 'balanced_accuracy'])
    """
    require_state("evaluation_report", state)
    objective = state.recipe.objective
    if task_of(objective) is None:
        raise ValueError(
            f"this objective names no task, so there is no report for it. Set its attribute `task` to one of "
            f"{', '.join(TASKS)}"
        )

    def collected(data: Any) -> TaskCollector:
        collector = TaskCollector(objective)
        for outputs, targets in answers(state, data, ema=ema, compile=compile, with_targets=True):
            collector.add(outputs, targets)
        return collector

    chosen = collected(loader).chosen
    assert chosen is not None  # a loader without a batch is an error
    tuned = None
    if tuning is not None and isinstance(chosen, BinaryClassification):
        other = collected(tuning).chosen
        assert isinstance(other, BinaryClassification)
        tuned = best_threshold(other.ranking())
    return chosen.report(tuned, labels)
