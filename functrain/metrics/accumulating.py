"""Metrics as accumulators: pure functions init, update, merge and compute.

A `Statistic` says what is counted, a `Metric` what number is made of it. Metrics with equal statistics share one
accumulator: precision, recall and F1 count once.
"""

import itertools
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from functrain.foundation.errors import MetricError
from functrain.foundation.trees import paths, structure, tree_map, unflatten
from functrain.metrics.examples import REFUSED

Accumulator = dict[str, Tensor]
"""What functrain's own metrics count: tensors by name, "refused" among them."""

Values = Tensor | Mapping[str, Tensor]
"""What `compute` gives: a 0-d value; one `[C]` for each class, a matrix; or several by name, "" for the main one."""


class Statistic(ABC):
    """What is counted of predictions and targets: a value that can be compared and hashed."""

    @property
    def adds(self) -> bool:
        """Whether accumulators are merged by adding their tensors."""
        return True

    @property
    def grows(self) -> bool:
        """Whether an accumulator grows with the examples, so that it is kept in evaluations only."""
        return False

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the model's outputs that it takes in place of predictions, as a mapping; none: predictions."""
        return ()

    @abstractmethod
    def of(self, predictions: Any, targets: Any, weight: Tensor | None) -> Any:
        """The accumulator of one batch: a tree of tensors."""

    def merge(self, left: Any, right: Any) -> Any:
        """The accumulator of both parts."""
        return tree_map(torch.add, left, right)

    def empty(self, like: Any) -> Any:
        """The accumulator of nothing, of the form of another one."""
        return tree_map(torch.zeros_like, like)

    def compact(self, accumulator: Any) -> Any:
        """The accumulator in less memory, outside of a graph."""
        return accumulator

    def refused(self, accumulator: Any) -> Tensor | None:
        """How many predictions or targets were refused, by the reasons of `REFUSED`; None: it does not look."""
        refused: Tensor = accumulator["refused"]
        return refused

    @property
    def key(self) -> str:
        """Its name in a checkpoint: another one for each other way to count."""
        return f"{type(self).__name__}-{zlib.crc32(repr(self).encode()):08x}"

    def from_leaves(self, leaves: Mapping[str, Tensor]) -> Any:
        """An accumulator of tensors by their names; None if there are none."""
        return dict(leaves) or None

    def made_of(self, other: "Statistic") -> Callable[[Any], Any] | None:  # noqa: ARG002 - of nothing else
        """What makes its accumulator of the one of another statistic; None: it must be counted by itself."""
        return None

    def init(self) -> Any:
        """The accumulator of nothing, where its form does not depend on the model's output.

        Raises:
            ValueError: where it does.
        """
        raise ValueError(
            "the form of this metric's accumulator depends on the predictions: give init a batch of predictions and "
            "targets, or begin with update(None, predictions, targets, weight)"
        )


@dataclass(frozen=True)
class Metric:
    """A metric.

    Attributes:
        name: under which its value is recorded.
        statistic: what it counts.
        value: the value of an accumulator.

    Example:
        >>> from functrain import metrics
        >>> metric = metrics.accuracy()
        >>> counts = metric.update(None, torch.eye(3), torch.tensor([0, 1, 1]))
        >>> counts = metric.merge(counts, metric.update(None, torch.eye(3)[:1], torch.tensor([0])))
        >>> metric.compute(counts)
        tensor(0.7500, dtype=torch.float64)
    """

    name: str
    statistic: Statistic
    value: Callable[[Any], Values]

    def init(self, predictions: Any = None, targets: Any = None) -> Any:
        """The accumulator of nothing.

        Args:
            predictions, targets: any batch, where the accumulator's form depends on them (a row for each class).
        """
        if predictions is None:
            return self.statistic.init()
        return self.statistic.empty(self.statistic.of(predictions, targets, None))

    def update(self, accumulator: Any, predictions: Any, targets: Any, weight: Tensor | None = None) -> Any:
        """The accumulator with a batch more.

        Args:
            accumulator: of what came before; None: nothing did.
            predictions: the model's output, such as logits `[B, C, ...]`.
            targets: `[B, ...]`.
            weight: `[B]`, of the examples, or of the targets' shape; None: 1 each. What weighs 0 does not count.
        """
        batch = self.statistic.of(predictions, targets, weight)
        return batch if accumulator is None else self.statistic.merge(accumulator, batch)

    def merge(self, left: Any, right: Any) -> Any:
        """The accumulator of both parts."""
        return self.statistic.merge(left, right)

    def compute(self, accumulator: Any) -> Values:
        """The value; NaN where it is not defined, and where predictions or targets were refused."""
        found, refused = self.value(accumulator), self.statistic.refused(accumulator)
        if refused is None:
            return found
        return tree_map(lambda value: torch.where(refused.sum() > 0, float("nan"), value.double()), found)

    def complaint(self, accumulator: Any) -> str | None:
        """What was refused, in words; None if nothing was. It waits for the device."""
        refused = self.statistic.refused(accumulator)
        counts = [] if refused is None else [int(count) for count in refused.tolist()]
        found = [f"{reason} ({count:,} times)" for count, reason in zip(counts, REFUSED) if count]
        return f"{self.name} found {' and '.join(found)}" if found else None

    def __call__(self, predictions: Any, targets: Any, weight: Tensor | None = None) -> Values:
        """The value of one batch.

        Raises:
            MetricError: for NaN in the predictions, or a target that is no label.

        Example:
            >>> from functrain import metrics
            >>> metrics.mae()(torch.tensor([1.0, 3.0]), torch.tensor([1.0, 1.0]))
            tensor(1., dtype=torch.float64)
        """
        accumulator = self.statistic.of(predictions, targets, weight)
        if complaint := self.complaint(accumulator):
            raise MetricError(complaint)
        return self.compute(accumulator)


def named_values(name: str, values: Values) -> dict[str, Tensor]:
    """Values as 0-d tensors: "name", "name/3" of class 3, "name/3/4" of a matrix.

    Example:
        >>> list(named_values("recall", {"": torch.tensor(0.5), "class": torch.tensor([0.0, 1.0])}))
        ['recall', 'recall/class/0', 'recall/class/1']
    """
    return {
        key: value
        for names, numbers in flat_values(name, values)
        for key, value in zip(names, numbers.unbind(), strict=True)
    }


def flat_values(name: str, values: Values) -> list[tuple[list[str], Tensor]]:
    """Values as vectors, each with the names of its numbers; see `named_values`.

    Example:
        >>> flat_values("confusion_matrix", torch.eye(2))
        [(['confusion_matrix/0/0', ..., 'confusion_matrix/1/1'], tensor([1., 0., 0., 1.]))]
    """
    if isinstance(values, Mapping):
        return [pair for key, value in values.items() for pair in flat_values(f"{name}/{key}" if key else name, value)]
    places = itertools.product(*map(range, values.shape))
    return [(["/".join((name, *map(str, place))) for place in places], values.reshape(-1))]


@dataclass(frozen=True)
class Own(Statistic):
    """A statistic of three or four functions.

    Attributes:
        first: `() -> accumulator` of nothing.
        step: `(accumulator, predictions, targets, weight) -> accumulator`.
        join: `(accumulator, accumulator) -> accumulator`; None: tensor by tensor, they are added.
        is_growing: the accumulator grows with the examples.
    """

    first: Callable[[], Any]
    step: Callable[[Any, Any, Any, Any], Any]
    join: Callable[[Any, Any], Any] | None = None
    is_growing: bool = False

    @property
    def adds(self) -> bool:
        """Without a merge of its own."""
        return self.join is None

    @property
    def grows(self) -> bool:
        """As it was said."""
        return self.is_growing

    def of(self, predictions: Any, targets: Any, weight: Tensor | None) -> Any:
        """The accumulator of nothing, and the batch. Every example has a weight."""
        device = predictions.device if isinstance(predictions, Tensor) else torch.device("cpu")
        if weight is None:
            weight = torch.ones(len(targets), device=device)
        first = tree_map(lambda leaf: torch.as_tensor(leaf, device=device), self.first())
        return self.step(first, predictions, targets, weight)

    def merge(self, left: Any, right: Any) -> Any:
        """By the function given."""
        return super().merge(left, right) if self.join is None else self.join(left, right)

    def empty(self, like: Any) -> Any:
        """As `init` says, with the dtypes that a batch gives."""
        return tree_map(lambda first, leaf: torch.as_tensor(first).to(leaf, copy=True), self.first(), like)

    def refused(self, accumulator: Any) -> Tensor | None:  # noqa: ARG002 - it knows nothing of the accumulator
        """Nobody knows."""
        return None

    def from_leaves(self, leaves: Mapping[str, Tensor]) -> Any:
        """In the structure of `init`; None for those of another."""
        first = self.init()
        names = paths({"": first})
        wanted = [name.removeprefix("/") for name in names]
        return unflatten(structure(first), [leaves[name] for name in wanted]) if set(wanted) == set(leaves) else None

    @property
    def key(self) -> str:
        """By the name of the function that updates it."""
        return f"own-{getattr(self.step, '__qualname__', type(self.step).__name__)}"

    def init(self) -> Any:
        """As it was given."""
        return tree_map(torch.as_tensor, self.first())


def metric(
    init: Callable[[], Any],
    update: Callable[[Any, Any, Any, Any], Any],
    compute: Callable[[Any], Values],
    *,
    merge: Callable[[Any, Any], Any] | None = None,
    name: str | None = None,
    grows: bool = False,
) -> Metric:
    """A metric of your own, of pure functions of tensors, which can be compiled.

    Args:
        init: `() -> accumulator`, a tree of tensors or numbers: that of nothing.
        update: `(accumulator, predictions, targets, weight) -> accumulator`, of the same structure and dtypes. The
            weight is `[B]`, or of the targets' shape where single targets may not count; what weighs 0 must not count.
        compute: `accumulator -> value`: 0-d, `[C]` by class, or several by name.
        merge: `(accumulator, accumulator) -> accumulator`; None: they are added, tensor by tensor.
        name: under which it is recorded; default: that of `compute`.
        grows: the accumulator grows with the examples, so that it is measured in evaluations only. Needs a `merge`.

    Example:
        >>> def add(acc, predictions, targets, weight):
        ...     error = (predictions - targets).abs().squeeze(1)
        ...     return {"sum": acc["sum"] + (error * weight).sum(), "weight": acc["weight"] + weight.sum()}
        >>> mine = metric(lambda: {"sum": 0.0, "weight": 0.0}, add, lambda acc: acc["sum"] / acc["weight"], name="mine")
        >>> mine(torch.ones(4, 1), torch.zeros(4, 1))
        tensor(1.)
    """
    for what, function in (("init", init), ("update", update), ("compute", compute)):
        if not callable(function):
            raise TypeError(f"a metric's {what} must be a function, got {function!r}")
    if grows and merge is None:
        raise ValueError("a metric whose accumulator grows needs a merge: growing tensors cannot be added")
    return Metric(name or _name(compute), Own(init, update, merge, grows), compute)


def _name(function: Any) -> str:
    name = getattr(function, "__name__", "")
    if not name or name == "<lambda>":
        raise ValueError("a metric without a named compute function needs a name, such as metric(..., name='gini')")
    return str(name)
