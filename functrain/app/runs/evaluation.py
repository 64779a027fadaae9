"""`functrain evaluate`: evaluate a run's checkpoint on a split of its data."""

import csv
import io
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from functrain.app.config.build import build_loader, build_state
from functrain.app.config.schema import Config
from functrain.app.runs.directory import RunDirectory, position, trusted_run, write_json, write_text
from functrain.app.tables import print_lines, print_metrics, print_table
from functrain.data import Loader
from functrain.evaluation import (
    ClassificationReport,
    ClassScores,
    classification_report,
    evaluate,
    predict_with_targets,
)
from functrain.foundation.errors import ConfigError, NoLossError
from functrain.loop.output.progress_line import counted, exact
from functrain.step import TrainState


@dataclass(frozen=True)
class Evaluation:
    """The metrics of a state on a split.

    Attributes:
        split: "train", "val" or "test".
        metrics: the objective's, for the parameters themselves.
        ema_metrics: for their moving averages, if the state keeps some.
        report: scores per class, for a classifier; of the averages, if there are some.
        missing: why there are no metrics, in words; empty if there are.
    """

    split: str
    metrics: dict[str, float]
    ema_metrics: dict[str, float] | None
    report: ClassificationReport | None
    missing: str = ""

    @property
    def rows(self) -> dict[str, dict[str, float]]:
        """The metrics under names for a table."""
        if self.missing:
            return {}
        averaged = {} if self.ema_metrics is None else {f"{self.split} (EMA)": self.ema_metrics}
        return {self.split: self.metrics, **averaged}


def evaluate_split(state: TrainState, loader: Loader, split: str) -> Evaluation:
    """Evaluate a state's parameters, and their averages if it keeps them (in a short run averages lag far behind)."""
    averaged, metrics, ema_metrics, missing = state.ema is not None, {}, None, ""
    try:
        metrics = evaluate(state, loader)
        ema_metrics = evaluate(state, loader, ema=True) if averaged else None
    except NoLossError as error:
        missing = f"no metrics of split {split!r}: {error}"
    return Evaluation(split, metrics, ema_metrics, _report(state, loader, averaged), missing)


def write_evaluation(run: RunDirectory, evaluation: Evaluation, checkpoint: str | None) -> list[Path]:
    """Write `metrics.json` and `metrics.csv` into the run's folder for the split; returns their paths."""
    folder = run.results(evaluation.split)
    report = evaluation.report
    content: dict[str, Any] = {
        "split": evaluation.split,
        "checkpoint": checkpoint,
        **evaluation.metrics,
        **{f"ema_{name}": value for name, value in (evaluation.ema_metrics or {}).items()},
        **({"missing": evaluation.missing} if evaluation.missing else {}),
    }
    if report is not None:
        macro = {key: value for key, value in asdict(report.macro).items() if key != "label"}
        content["classes_of"] = "parameters" if evaluation.ema_metrics is None else "ema"
        content |= {"classes": [asdict(scores) for scores in report.classes], "macro": macro}
    write_json(folder / "metrics.json", content)
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([("class", "metric", "value"), *_csv_rows(evaluation)])
    write_text(folder / "metrics.csv", text.getvalue())
    return [folder / "metrics.json", folder / "metrics.csv"]


def evaluate_run(path: str | Path, *, split: str, checkpoint: str, trust: bool, console: Console) -> None:
    """The command: evaluate, print, write.

    Args:
        path: the run's directory.
        split: "test", "val" or "train".
        checkpoint: "last", "best", or a checkpoint's name or path.
        trust: the user vouches for a run that somebody else wrote.
        console: what to print on.

    Raises:
        ConfigError: if it is no run, or its data set has no such split.
        CheckpointError: if there is no such checkpoint.
    """
    run, config = trusted_run(path, trust)
    loader = build_loader(config, split)
    if loader is None:
        raise ConfigError(f"the data set of this run ({config.data.name}) has no split {split!r}")
    state, name, where = _load(run, config, checkpoint)
    evaluation = evaluate_split(state, loader, split)
    print_lines(
        console,
        [f"{run.path}, checkpoint {name} ({where}), {counted(len(loader.dataset), 'example')} of split {split}"],
    )
    print_lines(console, [evaluation.missing] if evaluation.missing else [])
    print_metrics(console, evaluation.rows)
    if evaluation.report is not None and evaluation.ema_metrics is not None:
        print_lines(console, ["scores of the averaged parameters (EMA):"])
    print_report(console, evaluation.report)
    print_lines(console, [f"written: {file}" for file in write_evaluation(run, evaluation, name)])


def print_report(console: Console, report: ClassificationReport | None) -> None:
    """The table of classes."""
    if report is None:
        return
    rows = [[str(scores.label), *_cells(scores)] for scores in report.classes]
    print_table(console, ["class", "precision", "recall", "F1", "support"], [*rows, ["mean", *_cells(report.macro)]])


def _cells(scores: ClassScores) -> list[str]:
    shares = [exact(getattr(scores, key)) for key in ("precision", "recall", "f1")]
    return [*shares, f"{scores.support:,}"]


def _csv_rows(evaluation: Evaluation) -> Iterator[tuple[Any, ...]]:
    for name, value in evaluation.metrics.items():
        yield "all", name, value
    for name, value in (evaluation.ema_metrics or {}).items():
        yield "all", f"ema_{name}", value
    if evaluation.report is not None:
        for scores in (*evaluation.report.classes, evaluation.report.macro):
            for name, value in asdict(scores).items():
                if name != "label":
                    yield ("mean" if scores.label < 0 else scores.label), name, value


def _load(run: RunDirectory, config: Config, checkpoint: str) -> tuple[TrainState, str, str]:
    """The state that a checkpoint holds of the model, the checkpoint's name, and where it stands."""
    like = build_state(config, length=None)
    # The optimizer's state is not needed, and need not fit.
    groups = ("params", "buffers", "ema", "step", "epoch")
    with run.open() as checkpointer:
        state, info = checkpointer.restore(like, checkpoint, groups=groups)
    return state, info.name, position(info)


def _report(state: TrainState, loader: Loader, averaged: bool) -> ClassificationReport | None:
    """Scores per class, if outputs and targets are those of a classifier."""
    if not _is_classified(state, loader):
        return None
    return classification_report(*predict_with_targets(state, loader, ema=averaged))


def _is_classified(state: TrainState, loader: Loader) -> bool:
    """Whether the first batch has scores of classes, and numbers of classes as targets.

    The outputs of other models, such as boxes and masks, may be too large to keep for all examples.
    """
    first = next(iter(loader))
    try:
        outputs, targets = predict_with_targets(state, iter([first]))
    except (ValueError, TypeError):  # no row for each example, or no targets
        return False
    tensors = isinstance(outputs, torch.Tensor) and isinstance(targets, torch.Tensor)
    return tensors and outputs.ndim == 2 and targets.shape == outputs.shape[:1] and not targets.is_floating_point()
