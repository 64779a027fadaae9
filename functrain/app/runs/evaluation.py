"""`functrain evaluate`: evaluate a run's checkpoint on a split of its data."""

import csv
import io
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from functrain.app.config.build import build_loader, build_state
from functrain.app.config.schema import Config
from functrain.app.plain_json import json_lines
from functrain.app.runs.directory import RunDirectory, position, trusted_run, write_text
from functrain.app.tables import print_lines, print_metrics, print_table
from functrain.data import Loader
from functrain.evaluation import Report, evaluate, evaluation_report, write_report
from functrain.evaluation.writing import INTERVAL, text_of, write_numbers
from functrain.foundation.errors import CheckpointError, ConfigError, DataError, FunctrainError, NoLossError
from functrain.foundation.run_lock import RunLock
from functrain.loop.output.progress_line import counted, exact
from functrain.objectives.tasks import task_of
from functrain.step import TrainState

NO_AVERAGES = "this run keeps no averaged parameters (training.ema_decay is null); leave --ema out"
UNFINISHED = ".unfinished"  # the folder of what an evaluation that was killed has computed


@dataclass(frozen=True)
class Evaluation:
    """The metrics of a state on a split.

    Attributes:
        split: "train", "val" or "test".
        metrics: the objective's, for the parameters themselves.
        ema_metrics: for their moving averages, if the state keeps some.
        report: numbers with intervals, tables and figures, if the objective names its task.
        report_of: "parameters" or "ema".
        missing: why there are no metrics or no report, in words; empty if there are.
    """

    split: str
    metrics: dict[str, float]
    ema_metrics: dict[str, float] | None
    report: Report | None
    report_of: str
    missing: str = ""

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
        state: the state.
        loader: of the split.
        split: its name.
        tuning: other examples, of which a threshold is chosen.
        ema: whether the report is of the averages; None: if there are some.
        keep: as of `evaluation_report`.
    """
    averaged, metrics, ema_metrics, missing = state.ema is not None, {}, None, []
    report, of_average = None, averaged if ema is None else ema
    if task_of(state.recipe.objective) is not None:
        try:
            report = evaluation_report(state, loader, ema=of_average, tuning=tuning, keep=keep)
        except (DataError, TypeError) as error:
            missing.append(f"no report of split {split!r}: {error}")
    try:
        metrics = evaluate(state, loader)
        ema_metrics = evaluate(state, loader, ema=True) if averaged else None
    except NoLossError as error:
        missing.insert(0, f"no metrics of split {split!r}: {error}")
    return Evaluation(split, metrics, ema_metrics, report, "ema" if of_average else "parameters", "; ".join(missing))


def write_evaluation(run: RunDirectory, evaluation: Evaluation, checkpoint: str | None) -> list[Path]:
    """Write `metrics.json` and `metrics.csv` into the run's folder for the split; returns their paths.

    Raises:
        FunctrainError: if one cannot be written.
    """
    folder = run.results(evaluation.split)
    try:
        return write_numbers(evaluation.report, folder, _about(evaluation, checkpoint), _metrics(evaluation))
    except OSError as error:
        raise FunctrainError(f"{folder / 'metrics.json'} cannot be written: {error.strerror}") from error


def _about(evaluation: Evaluation, checkpoint: str | None) -> dict[str, Any]:
    about = {"split": evaluation.split, "checkpoint": checkpoint}
    about |= {"missing": evaluation.missing} if evaluation.missing else {}
    return about | ({"report_of": evaluation.report_of} if evaluation.report is not None else {})


def _metrics(evaluation: Evaluation) -> dict[str, float]:
    return {**evaluation.metrics, **{f"ema_{name}": value for name, value in (evaluation.ema_metrics or {}).items()}}


def evaluate_run(
    path: str | Path,
    *,
    split: str,
    checkpoint: str,
    ema: bool | None,
    trust: bool,
    as_json: bool = False,
    console: Console,
) -> None:
    """The command: evaluate, print, write.

    Args:
        path: the run's directory.
        split: "test", "val" or "train".
        checkpoint: "last", "best", or a checkpoint's name or path.
        ema: whether the report is of the averaged parameters; None: if there are some.
        trust: the user vouches for a run that somebody else wrote.
        console: what to print on.
        as_json: print JSON instead of tables.

    Raises:
        ConfigError: if it is no run, its data set has no such split, or it keeps no averages.
        CheckpointError: if there is no such checkpoint.
    """
    run, config = trusted_run(path, trust)
    loader = split_loader(config, split)
    state, name, where = load_state(run, build_state(config, length=None), checkpoint)
    if ema and state.ema is None:
        raise ConfigError(NO_AVERAGES)
    with RunLock(run.results(split)):  # two evaluations would mix their files
        keep = run.results(split) / UNFINISHED
        evaluation = evaluate_split(state, loader, split, tuning=tuning_loader(config, split), ema=ema, keep=keep)
        if as_json:
            _written(run, evaluation, name, Console(quiet=True))
            print_lines(console, json_lines(json.loads((run.results(split) / "metrics.json").read_bytes())))
        else:
            _print(run, evaluation, name, where, len(loader.dataset), console)
        shutil.rmtree(keep, ignore_errors=True)


def _print(
    run: RunDirectory, evaluation: Evaluation, checkpoint: str, where: str, examples: int, console: Console
) -> None:
    """Print what was found, and write it."""
    of_split = f"{counted(examples, 'example')} of split {evaluation.split}"
    print_lines(console, [f"{run.path}, checkpoint {checkpoint} ({where}), {of_split}"])
    print_lines(console, [evaluation.missing] if evaluation.missing else [])
    print_metrics(console, evaluation.rows)
    print_report(console, evaluation)
    files = [file for file in _written(run, evaluation, checkpoint, console) if file.parent.name != "figures"]
    print_lines(console, [f"written: {file}" for file in files])


def _written(run: RunDirectory, evaluation: Evaluation, checkpoint: str, console: Console) -> list[Path]:
    """Write the report, or the metrics alone where there is none or nothing to draw with."""
    if evaluation.report is None:
        return write_evaluation(run, evaluation, checkpoint)
    folder, about, title = (
        run.results(evaluation.split),
        _about(evaluation, checkpoint),
        f"{run.path.name}, {evaluation.split}",
    )
    try:
        return write_report(evaluation.report, folder, about, _metrics(evaluation), title=title)
    except ModuleNotFoundError as error:
        print_lines(console, [f"no figures and no page: {error}"])
        return write_evaluation(run, evaluation, checkpoint)


def evaluate_all_checkpoints(
    path: str | Path,
    *,
    split: str,
    ema: bool | None,
    trust: bool,
    as_json: bool = False,
    console: Console,
) -> None:
    """The command with `--all-checkpoints`: the metrics of each checkpoint, as a table and `checkpoints.csv`.

    Arguments and errors as of `evaluate_run`; `ema` says whether only the averages are evaluated, or only the
    parameters; None: both.

    Raises:
        CheckpointError: if a checkpoint cannot be read; those that can are in the table.
    """
    run, config = trusted_run(path, trust)
    loader, like, rows, faults = split_loader(config, split), build_state(config, length=None), [], []
    if ema and like.ema is None:
        raise ConfigError(NO_AVERAGES)
    for info in run.checkpoints():
        try:
            state, name, _ = load_state(run, like, info.name)
        except CheckpointError as error:
            faults.append(str(error))
            continue
        metrics = {} if ema else evaluate(state, loader)
        averages = {} if ema is False or state.ema is None else evaluate(state, loader, ema=True)
        averages = {f"ema_{metric}": value for metric, value in averages.items()}
        rows.append({"checkpoint": name, "step": info.step, **metrics, **averages})
    if rows:
        _write_checkpoints(run.results(split) / "checkpoints.csv", rows, as_json, console)
    if faults:
        raise CheckpointError("; ".join(faults))
    if not rows:
        raise ConfigError(f"{run.path} has no checkpoint to evaluate")


def _write_checkpoints(path: Path, rows: list[dict[str, Any]], as_json: bool, console: Console) -> None:
    header = list(dict.fromkeys(key for row in rows for key in row))
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([header, *([row.get(key, "") for key in header] for row in rows)])
    write_text(path, text.getvalue())
    if as_json:
        print_lines(console, json_lines(rows))
        return
    print_table(console, header, [[_cell(row.get(key)) for key in header] for row in rows])
    print_lines(console, [f"written: {path}"])


def _cell(value: Any) -> str:
    return exact(value) if isinstance(value, float) else text_of(value)


def split_loader(config: Config, split: str) -> Loader:
    """The loader of a split.

    Raises:
        ConfigError: if the data set has no such split.
    """
    loader = build_loader(config, split)
    if loader is None:
        raise ConfigError(f"the data set of this run ({config.data.name}) has no split {split!r}")
    return loader


def tuning_loader(config: Config, split: str) -> Loader | None:
    """The examples of which a threshold for the split is chosen: those of validation."""
    return build_loader(config, "val") if split != "val" else None


def print_report(console: Console, evaluation: Evaluation) -> None:
    """The numbers with their intervals, and the tables."""
    report = evaluation.report
    if report is None:
        return
    of_average = evaluation.report_of == "ema"
    print_lines(console, ["report of the averaged parameters (EMA):"] if of_average else [])
    numbers = [[number.name, text_of(number.value), text_of(number.interval)] for number in report.numbers]
    print_table(console, ["metric", "value", "95 % interval"], numbers)
    for table in report.tables:
        shown = [i for i, name in enumerate(table.header) if not name.endswith(INTERVAL)]
        print_lines(console, [table.title])
        print_table(console, [table.header[i] for i in shown], [[text_of(row[i]) for i in shown] for row in table.rows])


def load_state(run: RunDirectory, like: TrainState, checkpoint: str) -> tuple[TrainState, str, str]:
    """The state that a checkpoint holds of the model, the checkpoint's name, and where it stands.

    Raises:
        CheckpointError: if there is no such checkpoint.
    """
    # The optimizer's state is not needed, and need not fit. An objective's weights may depend on the counts of updates.
    groups = ("params", "buffers", "ema", "counts", "step", "epoch")
    with run.open() as checkpointer:
        state, info = checkpointer.restore(like, checkpoint, groups=groups)
    return state, info.name, position(info)
