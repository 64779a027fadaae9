"""`functrain evaluate`: evaluate a run's checkpoint on a split of its data."""

import csv
import io
import json
import shutil
from pathlib import Path
from typing import Any

from rich.console import Console

from functrain.app.config.build import build_loader
from functrain.app.config.schema import Config
from functrain.app.members.configs import build_states
from functrain.app.plain_json import json_lines
from functrain.app.runs.directory import RunDirectory, position, trusted_run, write_text
from functrain.app.runs.evaluated import Evaluation, about, all_metrics, evaluate_split, metrics_of, write_evaluation
from functrain.app.tables import print_lines, print_metrics, print_table
from functrain.data import Loader
from functrain.evaluation import write_report
from functrain.evaluation.writing import INTERVAL, text_of
from functrain.foundation.errors import CheckpointError, ConfigError
from functrain.foundation.run_lock import RunLock
from functrain.loop.output.progress_line import counted, exact
from functrain.step import TrainState

NO_AVERAGES = "this run keeps no averaged parameters (training.ema_decay is null); leave --ema out"
UNFINISHED = ".unfinished"  # the folder of what an evaluation that was killed has computed


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
    run, config = trusted_run(path, trust, members=True)
    loader = split_loader(config, split)
    state, name, where = load_state(run, build_states(config, length=None), checkpoint)
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
    print_metrics(
        console, {row.replace(evaluation.split, evaluation.name, 1): each for row, each in evaluation.rows.items()}
    )
    print_report(console, evaluation)
    files = [file for file in _written(run, evaluation, checkpoint, console) if file.parent.name != "figures"]
    print_lines(console, [f"written: {file}" for file in files])


def _written(run: RunDirectory, evaluation: Evaluation, checkpoint: str, console: Console) -> list[Path]:
    """Write the report, or the metrics alone where there is none or nothing to draw with."""
    if evaluation.report is None:
        return write_evaluation(run, evaluation, checkpoint)
    folder, title = run.results(evaluation.split), f"{run.path.name}, {evaluation.name}"
    try:
        return write_report(
            evaluation.report, folder, about(evaluation, checkpoint), all_metrics(evaluation), title=title
        )
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
    run, config = trusted_run(path, trust, members=True)
    loader, like, rows, faults = split_loader(config, split), build_states(config, length=None), [], []
    if ema and like.ema is None:
        raise ConfigError(NO_AVERAGES)
    for info in run.checkpoints():
        try:
            state, name, _ = load_state(run, like, info.name)
        except CheckpointError as error:
            faults.append(str(error))
            continue
        metrics = {} if ema else metrics_of(state, loader)
        averages = {} if ema is False or state.ema is None else metrics_of(state, loader, ema=True)
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
