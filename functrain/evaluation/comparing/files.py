"""The files of a comparison."""

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from functrain.evaluation import panels
from functrain.evaluation.comparing.comparison import Comparison
from functrain.evaluation.comparing.tables import PairedTest
from functrain.evaluation.writing.files import plain, staged, write_csv, write_text

NAME = "model_comparison"


def write_comparison(
    comparison: Comparison,
    folder: str | os.PathLike[str],
    about: Mapping[str, Any] | None = None,
    *,
    title: str = "Models",
) -> list[Path]:
    """Write a comparison into a folder.

    | file | what |
    |---|---|
    | `model_comparison.txt` | the tables, to be read |
    | `model_comparison.csv` | a row for each model: each metric with the ends of its interval |
    | `paired_tests.csv` | a row for each test |
    | `model_comparison.json` | all of it |
    | `model_comparison.png` | each metric as bars with intervals |
    | `roc_comparison.png` | the ROC curves of all models, where there are such |
    | `figures/*.json` | what the figures show; `read_panel` and `draw` make them again |

    Equal comparisons are equal files.

    Args:
        comparison: what was found.
        folder: where to; it is made if need be.
        about: what was compared, name -> text or number.
        title: above the bars.

    Returns:
        The files.

    Raises:
        ModuleNotFoundError: without matplotlib.
        OSError: if a file cannot be written.

    Example:
        >>> import tempfile, torch, functrain as ft
        >>> batches = [(torch.randn(40, 2), torch.arange(40) % 3)]
        >>> models = {"linear": torch.nn.Linear(2, 3), "constant": lambda x: torch.zeros(len(x), 3)}
        >>> found = ft.compare_models(models, batches, task="classification", metrics=["accuracy"])
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     [path.name for path in write_comparison(found, folder)][:2]
        ['model_comparison.txt', 'model_comparison.csv']
    """
    with staged(Path(folder)) as (stage, placed):
        drawn = [panels.draw_sheet(comparison.bars, stage / f"{NAME}.png", title)]
        if comparison.roc is not None:
            drawn.append(panels.draw(comparison.roc, stage / f"{comparison.roc.name}.png"))
        (stage / "figures").mkdir()
        shown = [*comparison.bars, *([] if comparison.roc is None else [comparison.roc])]
        drawn += [panels.write_panel(panel, stage / "figures" / f"{panel.name}.json") for panel in shown]
        return placed([*_tables(comparison, stage, about), *drawn])


def write_tables(
    comparison: Comparison, folder: str | os.PathLike[str], about: Mapping[str, Any] | None = None
) -> list[Path]:
    """Write the files without figures; arguments and errors as of `write_comparison`."""
    with staged(Path(folder)) as (stage, placed):
        return placed(_tables(comparison, stage, about))


def _tables(comparison: Comparison, folder: Path, about: Mapping[str, Any] | None) -> list[Path]:
    facts = dict(about or {})
    lines = [*(f"{name}: {value}" for name, value in facts.items()), str(comparison)]
    content = {**facts, **comparison_values(comparison)}
    return [
        write_text(folder / f"{NAME}.txt", "\n".join(lines) + "\n"),
        write_csv(folder / f"{NAME}.csv", _models(comparison)),
        write_csv(folder / "paired_tests.csv", _tests(comparison)),
        write_text(folder / f"{NAME}.json", json.dumps(content, indent=2) + "\n"),
    ]


def comparison_values(comparison: Comparison) -> dict[str, Any]:
    """A comparison as JSON has it; null stands for a number that is not finite."""
    return {
        "task": comparison.task,
        "examples": comparison.examples,
        "models": {
            model: {number.name: {"value": plain(number.value), "interval": plain(number.interval)} for number in each}
            for model, each in comparison.numbers.items()
        },
        "tests": [{name: plain(value) for name, value in test._asdict().items()} for test in comparison.tests],
    }


def _models(comparison: Comparison) -> Iterator[list[Any]]:
    names = [number.name for number in next(iter(comparison.numbers.values()))]
    yield ["model", *(part for name in names for part in (name, f"{name}_low", f"{name}_high"))]
    for model, numbers in comparison.numbers.items():
        cells = [(plain(number.value), *(plain(number.interval) or (None, None))) for number in numbers]
        yield [model, *("" if value is None else value for part in cells for value in part)]


def _tests(comparison: Comparison) -> Iterator[list[Any]]:
    yield [*(name for name in PairedTest._fields[:5]), "low", "high", "p", "p_holm"]
    for test in comparison.tests:
        ends = plain(test.interval) or (None, None)
        values = [*test[:4], plain(test.difference), *ends, plain(test.p), plain(test.p_holm)]
        yield ["" if value is None else value for value in values]
