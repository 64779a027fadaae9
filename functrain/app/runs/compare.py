"""`functrain compare`: metrics and configurations of several runs side by side. It imports no torch."""

import csv
import io
import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from functrain.app.runs.plain_table import table
from functrain.foundation.errors import ConfigError
from functrain.foundation.numbers import is_number
from functrain.foundation.regular_files import read_regular

LARGEST_LOG, LARGEST_CONFIG = 2**30, 1_000_000  # bytes
PREFIXES = ("train_", "eval_", "ema_")
FORMATS = (".png", ".pdf", ".svg")
COLORS = ("#4c72b0", "#dd8452", "#55a868", "#c44e52", "#8172b3", "#937860")
LONGEST = 40  # characters of a value


class Run(NamedTuple):
    """What is compared of a run.

    Attributes:
        name: unlike the other runs'.
        epochs: the records of its log that are no single update's.
        config: dotted key -> value; empty for a script's run.
    """

    name: str
    epochs: Sequence[Mapping[str, Any]]
    config: Mapping[str, Any]


def compare(folders: Sequence[Path], csv_file: Path | None, figure: Path | None) -> Iterator[str]:
    """The lines of the command.

    Args:
        folders: of the runs.
        csv_file: also write metrics and configurations there.
        figure: also draw the curves there.

    Raises:
        ConfigError: there is no such run, or a file cannot be written.
    """
    found = _all(folders, figure)
    names = [run.name for run in found]
    metrics, differing = metric_rows(found), config_rows(found)
    yield from table(["", *names], [[name, *map(_number, values)] for name, values in metrics])
    yield ""
    if differing:
        rows = [[key, *(_short(value) for value in values)] for key, values in differing]
        yield from table(["configuration", *names], rows, left=len(names) + 1)
    else:
        yield "the configurations are equal"
    if csv_file is not None:
        _write(csv_file, _csv(names, [*metrics, *differing]))
        yield f"written: {csv_file}"
    if figure is not None:
        draw(found, figure)
        yield f"written: {figure}"


def compared(folders: Sequence[Path], csv_file: Path | None, figure: Path | None) -> dict[str, Any]:
    """What `compare` prints, for programs: for each run the value of each metric, and of each key that differs."""
    found = _all(folders, figure)
    names = [run.name for run in found]
    metrics, differing = metric_rows(found), config_rows(found)
    if csv_file is not None:
        _write(csv_file, _csv(names, [*metrics, *differing]))
    if figure is not None:
        draw(found, figure)
    by_run = [{name: dict(zip(names, values)) for name, values in rows} for rows in (metrics, differing)]
    return {"runs": names, "metrics": by_run[0], "configuration": by_run[1]}


def _all(folders: Sequence[Path], figure: Path | None) -> list[Run]:
    _check_figure(figure)
    return [_read(folder, name) for folder, name in zip(folders, names_of(folders), strict=True)]


def metric_rows(runs: Sequence[Run]) -> list[tuple[str, list[Any]]]:
    """Where each run is, and the last value of each metric; None where it has none."""
    last = [run.epochs[-1] if run.epochs else {} for run in runs]
    metrics = dict.fromkeys(key for record in last for key in record if key.startswith(PREFIXES))
    rows: list[tuple[str, list[Any]]] = [(key, [record.get(key) for record in last]) for key in ("epoch", "step")]
    for name in metrics:
        rows.append((name, [_last(run, name) for run in runs]))
        if name.endswith("_loss"):
            rows.append((f"{name}, lowest", [_lowest(run, name) for run in runs]))
    return rows


def config_rows(runs: Sequence[Run]) -> list[tuple[str, list[Any]]]:
    """The keys whose values are not the same in all runs, the name left out."""
    keys = dict.fromkeys(key for run in runs for key in run.config)
    rows = [(key, [run.config.get(key) for run in runs]) for key in keys if key != "name"]
    return [(key, values) for key, values in rows if any(value != values[0] for value in values)]


def draw(runs: Sequence[Run], path: Path) -> None:
    """Draw each metric of all runs over the updates, training dashed.

    Raises:
        ConfigError: there is nothing to draw, no matplotlib, or the file cannot be written.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ModuleNotFoundError:
        raise ConfigError("the figure needs matplotlib: install it, or leave --figure out") from None
    names = dict.fromkeys(
        key.removeprefix(prefix)
        for run in runs
        for record in run.epochs
        for key in record
        for prefix in PREFIXES[:2]
        if key.startswith(prefix)
    )
    if not names:
        raise ConfigError("there is nothing to draw: no run has a record of an epoch yet")
    figure = Figure(figsize=(4.6 * len(names), 3.4), layout="constrained")
    FigureCanvasAgg(figure)
    for column, name in enumerate(names):
        axes = figure.add_subplot(1, len(names), column + 1)
        for number, run in enumerate(runs):
            for prefix, style in (("eval_", "-"), ("train_", "--")):
                points = [(record["step"], record[prefix + name]) for record in run.epochs if prefix + name in record]
                if points:
                    label = run.name + (", training" if prefix == "train_" else "")
                    color = COLORS[number % len(COLORS)]
                    axes.plot(*zip(*points), style, color=color, label=label, linewidth=1.5, marker=".", markersize=4)
        axes.set_title(name.replace("_", " "), fontsize=11, loc="left")
        axes.set_xlabel("updates", fontsize=9)
        axes.grid(alpha=0.25)
        axes.tick_params(labelsize=8)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
        axes.legend(fontsize=8, frameon=False)
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        figure.savefig(temporary, format=path.suffix[1:].lower(), dpi=150)
        os.replace(temporary, path)
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}") from error


def names_of(folders: Sequence[Path]) -> list[str]:
    """The names of runs: the last parts of their directories, where these differ."""
    short = [folder.resolve().name for folder in folders]
    return [name if short.count(name) == 1 else str(folder) for name, folder in zip(short, folders, strict=True)]


def _read(folder: Path, name: str) -> Run:
    config, log = folder / "config.yaml", folder / "metrics.jsonl"
    if not config.is_file() and not log.is_file():
        reason = "there is neither config.yaml nor metrics.jsonl in it" if folder.is_dir() else "it does not exist"
        raise ConfigError(f"{folder} is no run directory: {reason}. 'functrain runs' lists the runs")
    values: Any = {}
    try:
        if config.is_file():
            values = yaml.safe_load(read_regular(config, LARGEST_CONFIG))
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{config} cannot be read: {str(error).splitlines()[0]}") from None
    if not isinstance(values, dict):
        raise ConfigError(f"{config} is damaged: it holds no keys")
    return Run(name, epoch_records(log) if log.is_file() else [], dict(_flat(values)))


def epoch_records(log: Path) -> list[Mapping[str, Any]]:
    """The records of a log that are no single update's.

    Raises:
        ConfigError: the log is damaged.
    """
    try:
        lines = read_regular(log, LARGEST_LOG).split(b"\n")[:-1]
        # Most lines are single updates', which are not looked at.
        records = [json.loads(line) for line in lines if not line.startswith(b'{"kind": "step"')]
        if not all(map(_is_record, records)):
            raise ValueError("a line is no record")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{log} is damaged: {error}. 'functrain show' shows what can be read of it") from None
    return records


def _is_record(record: Mapping[str, Any]) -> bool:
    metrics = [value for key, value in record.items() if key.startswith(PREFIXES)]
    return all(type(record[key]) is int for key in ("epoch", "step")) and all(map(is_number, metrics))


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _last(run: Run, name: str) -> float | None:
    return next((record[name] for record in reversed(run.epochs) if name in record), None)


def _lowest(run: Run, name: str) -> float | None:
    values = [record[name] for record in run.epochs if name in record]
    return min((value for value in values if not math.isnan(value)), default=None)


def _number(value: Any) -> str:
    if not isinstance(value, float):
        return "" if value is None else str(value)
    return f"{value:.4f}" if value == 0 or 1e-3 <= abs(value) < 1e5 else f"{value:.4g}"


def _short(value: Any) -> str:
    text = "" if value is None else value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= LONGEST else text[: LONGEST - 3] + "..."


def _csv(names: Sequence[str], rows: Sequence[tuple[str, list[Any]]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["", *names])
    writer.writerows([key, *("" if value is None else value for value in values)] for key, values in rows)
    return text.getvalue()


def _write(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, path)
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}") from error


def _check_figure(path: Path | None) -> None:
    if path is not None and path.suffix.lower() not in FORMATS:
        raise ConfigError(f"a figure's name must end in .png, .pdf or .svg, got {str(path)!r}")
