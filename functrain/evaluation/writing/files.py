"""The files of a report."""

import csv
import json
import math
import os
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from functrain.evaluation import panels
from functrain.evaluation.reports import Report, Table
from functrain.evaluation.writing.page import report_page
from functrain.evaluation.writing.text import report_text
from functrain.foundation.scratch import scratch_folder

SHEET = "evaluation_plots.png"
INTERVAL = " 95 %"  # ends the header of a column of intervals
_AT_ONCE = 1 << 22  # bytes
CSV_HEADER = ("class", "metric", "value", "low", "high")


def write_report(
    report: Report,
    folder: str | os.PathLike[str],
    about: Mapping[str, Any] | None = None,
    metrics: Mapping[str, float] | None = None,
    *,
    title: str = "Evaluation",
) -> list[Path]:
    """Write a report into a folder.

    | file | what |
    |---|---|
    | `report.txt`, `report.html` | to be read; the page needs no other file |
    | `metrics.json`, `metrics.csv` | the numbers with their intervals, and the tables |
    | `roc.png`, `confusion_matrix.png`, ... | the figures; `evaluation_plots.png` has all of them |
    | `figures/*.json` | what each figure shows; `read_panel` and `draw` make the figure again |
    | `scores.npz` | arrays with a row for each example |
    | `predictions/predictions.csv` | a row for each example |

    Equal reports are equal files. Files of a report that was there before are overwritten; others stay. All files are
    written into a hidden folder first. So a kill leaves no file that is half written, and hardly ever a part of them.

    Args:
        report: what was found.
        folder: where to; it is made if need be.
        about: what was evaluated, name -> text or number.
        metrics: further numbers, such as those of `evaluate`.
        title: of the page and the sheet of figures.

    Returns:
        The files.

    Raises:
        ModuleNotFoundError: without matplotlib.
        OSError: if a file cannot be written.

    Example:
        >>> import tempfile, torch, functrain as ft
        >>> state = ft.init_state(torch.nn.Linear(2, 1), ft.regression(), ft.optim.sgd(0.1))
        >>> report = ft.evaluation_report(state, [(torch.randn(4, 2), torch.randn(4, 1))])
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     [path.name for path in write_report(report, folder)][:3]
        ['predicted.png', 'residuals.png', 'evaluation_plots.png']
    """
    about, more = dict(about or {}), dict(metrics or {})
    with staged(Path(folder)) as (stage, placed):
        figures = {panel.title: panels.draw(panel, stage / f"{panel.name}.png") for panel in report.panels}
        written = list(figures.values())
        if report.panels:
            written.append(panels.draw_sheet(report.panels, stage / SHEET, title))
            (stage / "figures").mkdir()
            written += [panels.write_panel(panel, stage / "figures" / f"{panel.name}.json") for panel in report.panels]
        written += [
            *_write_numbers(report, stage, about, more),
            write_text(stage / "report.txt", report_text(report, about | more)),
            write_text(stage / "report.html", report_page(report, title, about | more, figures)),
            write_arrays(stage / "scores.npz", report.scores),
        ]
        if report.predictions is not None:
            (stage / "predictions").mkdir()
            written.append(write_csv(stage / "predictions" / "predictions.csv", _lines(report.predictions)))
        return placed(written)


def write_numbers(
    report: Report | None, folder: Path, about: Mapping[str, Any], metrics: Mapping[str, float]
) -> list[Path]:
    """Write `metrics.json` and `metrics.csv`; arguments as of `write_report`, but there may be no report.

    Returns:
        The files.
    """
    with staged(folder) as (stage, placed):
        return placed(_write_numbers(report, stage, about, metrics))


Placed = Callable[[list[Path]], list[Path]]


@contextmanager
def staged(folder: Path) -> Iterator[tuple[Path, Placed]]:
    """A hidden folder to write to, and what moves its files to their places. What a killed process left is removed."""
    folder.mkdir(parents=True, exist_ok=True)

    def placed(written: list[Path]) -> list[Path]:
        places = [folder / path.relative_to(stage) for path in written]
        for path, place in zip(written, places):
            place.parent.mkdir(exist_ok=True)
            os.replace(path, place)
        return places

    with scratch_folder(folder, ".writing-") as stage:
        yield stage, placed


def _write_numbers(
    report: Report | None, folder: Path, about: Mapping[str, Any], metrics: Mapping[str, float]
) -> list[Path]:
    content = {} if report is None else _content(report)
    rows = [] if report is None else list(_rows(report))
    more = [
        ("all", name, plain(value), "", "") for name, value in metrics.items() if name not in content.get("numbers", {})
    ]
    facts = {**about, **{name: plain(value) for name, value in metrics.items()}}
    return [
        write_text(folder / "metrics.json", json.dumps({**facts, **content}, indent=2) + "\n"),
        write_csv(folder / "metrics.csv", [CSV_HEADER, *more, *rows]),
    ]


def _content(report: Report) -> dict[str, Any]:
    """The numbers and tables of a report as JSON has them; null stands for a number that is not finite."""
    return {
        "task": report.task,
        "examples": report.examples,
        "numbers": {number.name: plain(number.value) for number in report.numbers},
        "intervals": {number.name: plain(number.interval) for number in report.numbers},
        **{table.name: [dict(zip(table.header, map(plain, row))) for row in table.rows] for table in report.tables},
    }


def _rows(report: Report) -> Iterator[tuple[Any, ...]]:
    """Class (or label, output, score; "all" for all examples), metric, value, and the ends of its interval."""
    for number in report.numbers:
        yield "all", number.name, plain(number.value), *(plain(number.interval) or ("", ""))
    for table in report.tables:
        for first, *row in table.rows:
            cells = dict(zip(table.header[1:], row))
            for name, value in cells.items():
                if not name.endswith(INTERVAL):
                    yield first, name, plain(value), *(plain(cells.get(name + INTERVAL)) or ("", ""))


def plain(value: Any) -> Any:
    """A value as JSON has it; a number that is not finite is null."""
    if isinstance(value, tuple):
        return [plain(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _lines(table: Table) -> Iterator[Sequence[Any]]:
    yield table.header
    yield from table.rows


def write_csv(path: Path, rows: Iterable[Sequence[Any]]) -> Path:
    """Write rows; returns the file."""
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)
    return path


def write_text(path: Path, text: str) -> Path:
    """Write a text; returns the file."""
    path.write_text(text, encoding="utf-8")
    return path


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray[Any, Any]]) -> Path:
    """As `numpy.savez_compressed`, but a part at a time, and without the time of writing: equal arrays, equal files."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, array in arrays.items():
            entry = zipfile.ZipInfo(f"{name}.npy")
            entry.compress_type, entry.file_size = zipfile.ZIP_DEFLATED, array.nbytes
            with archive.open(entry, "w") as file:
                described = {"descr": np.lib.format.dtype_to_descr(array.dtype), "fortran_order": False}
                np.lib.format.write_array_header_1_0(file, {**described, "shape": array.shape})
                rows = max(1, _AT_ONCE // max(array[:1].nbytes, 1))
                for start in range(0, len(array), rows):
                    file.write(np.ascontiguousarray(array[start : start + rows]).tobytes())
    return path
