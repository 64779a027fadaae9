"""The report of a state on the examples of a loader."""

import os
from collections.abc import Generator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

from functrain.data import as_stream
from functrain.data.indexed import IndexedStream
from functrain.data.preprocessing import class_names
from functrain.evaluation.ensemble_report import ensemble_report
from functrain.evaluation.kept_rows import KeptRows
from functrain.evaluation.prediction import answers
from functrain.evaluation.rankings import best_threshold
from functrain.evaluation.reports import Report, TaskCollector
from functrain.evaluation.reports.binary import BinaryClassification
from functrain.foundation.keys import fold_in
from functrain.objectives.tasks import TASKS, task_of
from functrain.step import unstack
from functrain.step.state import TrainState, require_state
from functrain.step.state_digest import digest
from functrain.step.to_module import to_evaluate


def evaluation_report(
    state: TrainState,
    loader: Any,
    *,
    ema: bool = False,
    compile: bool = False,
    tuning: Any = None,
    labels: Sequence[str] | None = None,
    keep: str | os.PathLike[str] | None = None,
) -> Report:
    """Metrics with confidence intervals, tables, figures and predictions, as the objective's task asks for.

    Each example counts once; weights of examples count in `evaluate` only. Intervals hold with a confidence of 95 %:
    they are the middle of 2,000 replicates of a Poisson bootstrap over examples, always the same ones; of shares of
    examples they are Wilson's.

    Args:
        state: any state; not changed. Of a stack (`functrain.stack`) the report is of the members' mean prediction,
            with a table of the members and of their disagreement, as `evaluate_ensemble` finds them.
        loader: as for `fit`, without shuffling.
        ema: report on the averaged parameters.
        compile: compile the forward pass first, which pays for long loaders only.
        tuning: a loader of other examples, of which a yes-or-no classifier's threshold is chosen: the best F1.
        labels: names of the classes, labels or outputs; None: those that the data set has as `classes`, or numbers.
        keep: a folder for what is known of the examples so far. A process that is killed leaves it there, and the same
            call goes on with it. It needs a loader that is found by position, as functrain's `Loader` is; with any
            other one the examples are computed anew. Remove the folder after the report was written. None: a
            temporary folder, which goes with the report. Of a stack all is computed anew.

    Returns:
        The report; `write_report` writes it. Scores and predictions are in files until they are looked at.

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
    require_state("evaluation_report", state, members=True)
    objective = state.recipe.objective
    if task_of(objective) is None:
        raise ValueError(
            f"this objective names no task, so there is no report for it. Set its attribute `task` to one of "
            f"{', '.join(TASKS)}"
        )

    if state.members is not None:
        return ensemble_report(unstack(state), loader, ema=ema, compile=compile, tuning=tuning, labels=labels)
    folder = None if keep is None else Path(keep)
    asked = _Asked(state, ema, compile)
    tuned = None
    chosen = _collected(asked, loader, None if folder is None else folder / "report").chosen
    if tuning is not None and isinstance(chosen, BinaryClassification):
        other = _collected(asked, tuning, None if folder is None else folder / "tuning").chosen
        assert isinstance(other, BinaryClassification)
        tuned = best_threshold(other.ranking())
    return chosen.report(tuned, labels)


class _Asked(NamedTuple):
    """What is evaluated: arguments of `evaluation_report`."""

    state: TrainState
    ema: bool
    compile: bool


def _collected(asked: _Asked, loader: Any, folder: Path | None) -> TaskCollector:
    """The examples of a loader; those that a killed process left in the folder are not computed again."""
    state, objective = asked.state, asked.state.recipe.objective
    about = None if folder is None else _about(asked, loader)
    rows = KeptRows(folder, about)
    collector = TaskCollector(objective, rows, class_names(loader))

    def computed(start: int) -> Generator[tuple[Any, Any]]:
        return answers(state, loader, ema=asked.ema, compile=asked.compile, with_targets=True, start=start)

    if rows.batches and not (about and _is_first(collector, computed(0))):
        rows.clear()
    for outputs, targets in computed(rows.batches):
        collector.add(outputs, targets)
    rows.commit()
    return collector


def _is_first(collector: TaskCollector, batches: Generator[tuple[Any, Any]]) -> bool:
    """Whether the first batch has the bits that were kept: so model, data and machine compute as they did."""
    with closing(batches):
        outputs, targets = next(batches)
    return collector.begins_with(outputs, targets)


def _about(asked: _Asked, loader: Any) -> dict[str, str]:
    """What the rows are of; empty where a loader cannot go on at a position."""
    stream = as_stream(loader, fold_in(asked.state.key, "eval"), what="given")
    if not isinstance(stream, IndexedStream):
        return {}
    evaluated = to_evaluate(asked.state, ema=asked.ema)
    return {
        "parameters": digest({"params": evaluated.params, "buffers": evaluated.buffers}),
        "data": str(stream.content_digest()),
        "batches": f"{stream.length(0)} of {stream.batch_size}",
        "compiled": str(asked.compile),
    }
