"""A comparison as text: the numbers of all models, and the tests of each two of them."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from functrain.evaluation.bootstrap import Interval
from functrain.evaluation.reports import Number
from functrain.evaluation.writing.cells import text_of
from functrain.evaluation.writing.text import columns


class PairedTest(NamedTuple):
    """A test of two models on the same examples.

    Attributes:
        metric: what is tested.
        test: "McNemar", "DeLong" or "bootstrap".
        model, other: the two.
        difference: the metric of the first less that of the second.
        interval: of the difference, with a confidence of 95 %; None if there is none.
        p: the p-value; NaN where the test is not defined.
        p_holm: the p-value, corrected for all pairs of models of this metric and test.
    """

    metric: str
    test: str
    model: str
    other: str
    difference: float
    interval: Interval | None
    p: float
    p_holm: float


def numbers_table(numbers: Mapping[str, Sequence[Number]]) -> list[str]:
    """A row for each metric, a column for each model."""
    rows = [[of_models[0].name, *map(_with_interval, of_models)] for of_models in zip(*numbers.values())]
    return _lines(["metric", *numbers], rows)


def tests_table(tests: Sequence[PairedTest]) -> list[str]:
    """A row for each test."""
    header = ["metric", "test", "models", "difference", "95 % interval", "p", "p (Holm)"]
    return _lines(
        header,
        [
            [
                *(each.metric, each.test, f"{each.model} - {each.other}"),
                *map(text_of, (each.difference, each.interval, each.p, each.p_holm)),
            ]
            for each in tests
        ],
        left=3,
    )


def _with_interval(number: Number) -> str:
    return text_of(number.value) + ("" if number.interval is None else f" ({text_of(number.interval)})")


def _lines(header: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> list[str]:
    return [line.rstrip() for line in columns(header, rows, left=left)]
