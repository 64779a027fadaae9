"""Several metrics together: what a step accumulates, and what it comes to."""

import functools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from functrain.foundation.trees import node, static, tree_map
from functrain.metrics.accumulating import Metric, Statistic, flat_values, metric, named_values
from functrain.metrics.examples import Examples, Labels
from functrain.metrics.labelled import OfLabels


@node
class Measured:
    """Accumulators of several metrics, which can be added up.

    Attributes:
        accumulators: one for each statistic, by its key: trees of tensors.
        measures: the metrics.
    """

    accumulators: dict[str, Any]
    measures: "Measures" = static()

    def pairs(self) -> Iterable[tuple[Statistic, Any]]:
        """Each statistic with its accumulator."""
        return [(statistic, self.accumulators[key]) for key, statistic in self.measures.statistics.items()]

    def __add__(self, other: "Measured") -> "Measured":
        """Of both parts."""
        return Measured(
            {
                key: statistic.merge(self.accumulators[key], other.accumulators[key])
                for key, statistic in self.measures.statistics.items()
            },
            self.measures,
        )

    def emptied(self) -> "Measured":
        """Of nothing, in the same form."""
        return Measured(
            {key: each.empty(self.accumulators[key]) for key, each in self.measures.statistics.items()}, self.measures
        )

    @torch.no_grad()
    def values(self) -> dict[str, Tensor]:
        """Name -> 0-d value; see `named_values`."""
        found: dict[str, Tensor] = {}
        for each, accumulator in self._each():
            found |= named_values(each.name, each.compute(accumulator))
        return found

    @torch.no_grad()
    def stacked(self) -> "StackedValues":
        """The values in one tensor."""
        parts = [pair for each, held in self._each() for pair in flat_values(each.name, each.compute(held))]
        names = tuple(name for part, _ in parts for name in part)
        return StackedValues(torch.cat([numbers.double() for _, numbers in parts]), names)

    def complaint(self) -> str | None:
        """What was refused, in words; None if nothing was. It waits for the device."""
        found = [each.complaint(accumulator) for each, accumulator in self._each()]
        return next((complaint for complaint in found if complaint), None)

    def _each(self) -> Iterable[tuple[Metric, Any]]:
        """The metrics, each with its accumulator."""
        held = dict(self.pairs())
        for each in self.measures.metrics:
            source, make = self.measures.sources[each.statistic]
            yield each, make(held[source])


@dataclass(frozen=True)
class Measures:
    """Metrics with different names.

    Example:
        >>> from functrain import metrics
        >>> measures = Measures((metrics.precision(), metrics.recall(), metrics.mae()))
        >>> len(measures.statistics)
        2
    """

    metrics: tuple[Metric, ...]

    def __post_init__(self) -> None:
        names = [each.name for each in self.metrics]
        if twice := {name for name in names if names.count(name) > 1}:
            raise ValueError(
                f"two metrics have the name {', '.join(sorted(twice))}; give one a name of its own, such as "
                "{'name': 'recall', 'average': 'weighted', 'label': 'recall_weighted'}"
            )
        if "loss" in names:
            raise ValueError("'loss' is the name of the objective's loss; give the metric another name")

    @cached_property
    def sources(self) -> dict[Statistic, tuple[Statistic, Callable[[Any], Any]]]:
        """The statistics of the metrics, each with the one that is counted for it, and what makes its accumulator."""
        asked = list(dict.fromkeys(each.statistic for each in self.metrics))
        found: dict[Statistic, tuple[Statistic, Callable[[Any], Any]]] = {}
        for statistic in asked:
            made = ((other, statistic.made_of(other)) for other in asked)
            found[statistic] = next(((other, make) for other, make in made if make), (statistic, _as_it_is))
        return found

    @cached_property
    def statistics(self) -> dict[str, Statistic]:
        """What is counted, each once, by its key."""
        found: dict[str, Statistic] = {}
        for statistic in dict.fromkeys(source for source, _ in self.sources.values()):
            key, number = statistic.key, 2
            while key in found:
                key, number = f"{statistic.key}-{number}", number + 1
            found[key] = statistic
        return found

    @cached_property
    def outputs(self) -> tuple[str, ...]:
        """Names of the model's outputs that metrics take in place of predictions."""
        return tuple(dict.fromkeys(name for statistic in self.statistics.values() for name in statistic.outputs))

    @cached_property
    def fixed(self) -> "Measures":
        """Those whose accumulators have a fixed size, so that a training state can hold them."""
        return Measures(tuple(each for each in self.metrics if not each.statistic.grows))

    def zeros(
        self, forms: Mapping[str, tuple[torch.dtype, tuple[int, ...]]], place: str, device: torch.device
    ) -> Measured | None:
        """Accumulators of saved forms, to be filled; None where they were not saved, or those of other metrics were.

        Args:
            forms: name of each saved tensor -> dtype and shape.
            place: what the accumulators' names begin with.
            device: where they go.
        """
        found: dict[str, Any] = {}
        for key, statistic in self.statistics.items():
            inside = f"{place}/{key}/"
            saved = {
                f"{name}/".removeprefix(inside).removesuffix("/"): torch.zeros(shape, dtype=dtype, device=device)
                for name, (dtype, shape) in forms.items()
                if f"{name}/".startswith(inside)
            }
            found[key] = statistic.from_leaves(saved)
        return None if None in found.values() else Measured(found, self)

    @torch.no_grad()
    def of(self, predictions: Any, targets: Any, weight: Tensor | None, outputs: Mapping[str, Any] = {}) -> Measured:
        """The accumulators of a batch.

        Args:
            predictions, targets, weight: as metrics take them.
            outputs: the model's, by the names in `self.outputs`.
        """
        found: dict[str, Any] = {}
        read: dict[Labels, Examples] = {}  # each way to read once: a graph would do all of it again for each statistic
        for key, statistic in self.statistics.items():
            try:
                if isinstance(statistic, OfLabels):
                    if statistic.labels not in read:
                        read[statistic.labels] = statistic.labels.read(predictions, targets, weight)
                    found[key] = statistic.of_examples(read[statistic.labels])
                else:
                    found[key] = statistic.of(outputs if statistic.outputs else predictions, targets, weight)
            except ValueError as error:
                name = next(each.name for each in self.metrics if each.statistic == statistic)
                raise ValueError(f"metric {name!r}: {error}") from error
        return Measured(found, self)


@node
class StackedValues:
    """Values of metrics as they leave a graph: one tensor, whatever their number.

    Attributes:
        values: float64 `[n]`; of N members `[N, n]`.
        names: of each.
    """

    values: Tensor
    names: tuple[str, ...] = static()

    def named(self) -> dict[str, Tensor]:
        """Name -> 0-d value, or `[N]`."""
        return dict(zip(self.names, self.values.unbind(-1)))


class Collected:
    """Merges accumulators of batch after batch.

    Those that grow are merged like the digits of a binary counter, two of about one size at a time: each example is
    copied some log2 times, not once for each batch after it. They are kept on the CPU.
    """

    def __init__(self) -> None:
        self._fixed: dict[str, Any] = {}
        self._growing: dict[str, list[tuple[int, Any]]] = {}
        self._measures: Measures | None = None

    def add(self, part: Measured) -> None:
        """Add a batch."""
        self._measures = part.measures
        for key, statistic in part.measures.statistics.items():
            each = part.accumulators[key]
            if statistic.grows:
                each = statistic.compact(tree_map(Tensor.cpu, each))
                self._carry(self._growing.setdefault(key, []), statistic, each)
            else:
                self._fixed[key] = statistic.merge(self._fixed[key], each) if key in self._fixed else each

    @staticmethod
    def _carry(stack: list[tuple[int, Any]], statistic: Statistic, each: Any) -> None:
        size = 1
        while stack and stack[-1][0] <= size:
            before, left = stack.pop()
            each, size = statistic.merge(left, each), size + before
        stack.append((size, each))

    def total(self) -> Measured | None:
        """All of them together; None if there was none."""
        if self._measures is None:
            return None
        found = dict(self._fixed)
        for key, parts in self._growing.items():
            _, found[key] = parts.pop()
            while parts:
                found[key] = self._measures.statistics[key].merge(parts.pop()[1], found[key])
        return Measured(found, self._measures)


def sent(measured: Measured, rank: int, ranks: int) -> dict[str, Any]:
    """Accumulators of a fixed size, as they are added over ranks, within a traced step too.

    What does not add goes to a place of its own among zeros.

    Args:
        measured: this rank's.
        rank, ranks: the number of this rank, and how many there are.
    """
    return {
        key: _sent(measured.accumulators[key], statistic, rank, ranks)
        for key, statistic in measured.measures.statistics.items()
    }


def received(measured: Measured, summed: Mapping[str, Any], ranks: int) -> Measured:
    """Accumulators of all ranks together, from the sums of what they sent; merged in the order of the ranks."""
    found = {
        key: summed[key] if statistic.adds else _folded(summed[key], statistic, ranks)
        for key, statistic in measured.measures.statistics.items()
    }
    return Measured(found, measured.measures)


def _sent(accumulator: Any, statistic: Statistic, rank: int, ranks: int) -> Any:
    if statistic.adds:
        return accumulator
    return tree_map(
        lambda leaf: torch.stack([leaf if each == rank else torch.zeros_like(leaf) for each in range(ranks)]),
        accumulator,
    )


def _folded(rows: Any, statistic: Statistic, ranks: int) -> Any:
    parts = [tree_map(lambda leaf, number=number: leaf[number], rows) for number in range(ranks)]
    return functools.reduce(statistic.merge, parts)


def _as_it_is(accumulator: Any) -> Any:
    return accumulator


def renamed(each: Metric, name: str) -> Metric:
    """The metric under another name."""
    return Metric(name, each.statistic, each.value)


def as_metric(given: Any, name: str | None = None) -> Metric:
    """A metric from what a user gives for one: a `Metric`, or a tuple of three or four functions.

    Args:
        given: a `Metric`; `(init, update, compute)` or `(init, update, merge, compute)`.
        name: of its records; default: its own.

    Raises:
        TypeError: it is something else.
    """
    if isinstance(given, Metric):
        return given if name is None else renamed(given, name)
    if isinstance(given, tuple) and len(given) == 3:
        init, update, compute = given
        return metric(init, update, compute, name=name)
    if isinstance(given, tuple) and len(given) == 4:
        init, update, merge, compute = given
        return metric(init, update, compute, merge=merge, name=name)
    raise TypeError(
        "a metric is a name, a functrain.metrics.Metric, or a tuple of functions (init, update, compute) or (init, "
        f"update, merge, compute); got {given!r}"
    )
