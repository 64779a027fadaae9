"""The metrics and the report of a state on a split, and their files."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from functrain.app.runs.directory import RunDirectory
from functrain.data import Loader
from functrain.evaluation import Report, evaluate, evaluate_ensemble, evaluation_report
from functrain.evaluation.ensemble_sums import USUAL
from functrain.evaluation.writing import write_numbers
from functrain.foundation.errors import DataError, FunctrainError, NoLossError
from functrain.objectives.tasks import task_of
from functrain.step import TrainState


@dataclass(frozen=True)
class Evaluation:
    """The metrics of a state on a split.

    Attributes:
        split: "train", "val" or "test".
        metrics: the objective's, for the parameters themselves; of an ensemble those of the mean prediction.
        ema_metrics: for their moving averages, if the state keeps some.
        report: numbers with intervals, tables and figures, if the objective names its task.
        report_of: "parameters" or "ema".
        missing: why there are no metrics or no report, in words; empty if there are.
        members: of an ensemble, how many.
    """

    split: str
    metrics: dict[str, float]
    ema_metrics: dict[str, float] | None
    report: Report | None
    report_of: str
    missing: str = ""
    members: int | None = None

    @property
    def name(self) -> str:
        """What was evaluated, for people."""
        return self.split if self.members is None else f"{self.split} (mean prediction)"

    @property
    def rows(self) -> dict[str, dict[str, float]]:
        """The metrics under names for a table."""
        if not self.metrics:
            return {}
        averaged = {} if self.ema_metrics is None else {f"{self.split} (EMA)": self.ema_metrics}
        return {self.split: self.metrics, **averaged}


def evaluate_split(
    state: TrainState,
    loader: Loader,
    split: str,
    *,
    tuning: Loader | None = None,
    ema: bool | None = None,
    keep: Path | None = None,
) -> Evaluation:
    """Evaluate a state's parameters, and their averages if it keeps them (in a short run averages lag far behind).

    Args:
        state: the state, or a stack of members, whose mean prediction is evaluated.
        loader: of the split.
        split: its name.
        tuning: other examples, of which a threshold is chosen.
        ema: whether the report is of the averages; None: if there are some.
        keep: as of `evaluation_report`.
    """
    averaged, metrics, ema_metrics, missing = state.ema is not None, {}, None, list[str]()
    report, of_average = None, averaged if ema is None else ema
    members = None if state.members is None else len(state.members)
    if members is not None and task_of(state.recipe.objective) not in USUAL:
        why = f"an ensemble has a mean prediction for {', '.join(USUAL)}. Evaluate its members, as runs of their own"
        return Evaluation(split, {}, None, None, "parameters", f"no metrics of split {split!r}: {why}", members)
    if task_of(state.recipe.objective) is not None:
        try:
            report = evaluation_report(state, loader, ema=of_average, tuning=tuning, keep=keep)
        except (DataError, TypeError) as error:
            missing.append(f"no report of split {split!r}: {error}")
    try:
        metrics = metrics_of(state, loader)
        ema_metrics = metrics_of(state, loader, ema=True) if averaged else None
    except NoLossError as error:
        missing.insert(0, f"no metrics of split {split!r}: {error}")
    what = "ema" if of_average else "parameters"
    return Evaluation(split, metrics, ema_metrics, report, what, "; ".join(missing), members)


def metrics_of(state: TrainState, loader: Loader, *, ema: bool = False) -> dict[str, float]:
    """The metrics of a state, or of the mean prediction of a stack."""
    return evaluate(state, loader, ema=ema) if state.members is None else evaluate_ensemble(state, loader, ema=ema)[0]


def write_evaluation(run: RunDirectory, evaluation: Evaluation, checkpoint: str | None) -> list[Path]:
    """Write `metrics.json` and `metrics.csv` into the run's folder for the split; returns their paths.

    Raises:
        FunctrainError: if one cannot be written.
    """
    folder = run.results(evaluation.split)
    try:
        return write_numbers(evaluation.report, folder, about(evaluation, checkpoint), all_metrics(evaluation))
    except OSError as error:
        raise FunctrainError(f"{folder / 'metrics.json'} cannot be written: {error.strerror}") from error


def about(evaluation: Evaluation, checkpoint: str | None) -> dict[str, Any]:
    """What was evaluated, for the files."""
    facts: dict[str, Any] = {"split": evaluation.split, "checkpoint": checkpoint}
    facts |= {} if evaluation.members is None else {"ensemble": evaluation.members}
    facts |= {"missing": evaluation.missing} if evaluation.missing else {}
    return facts | ({"report_of": evaluation.report_of} if evaluation.report is not None else {})


def all_metrics(evaluation: Evaluation) -> dict[str, float]:
    """The metrics under names of their own."""
    return {**evaluation.metrics, **{f"ema_{name}": value for name, value in (evaluation.ema_metrics or {}).items()}}
