"""One pass over evaluation data."""

from collections.abc import Callable, Iterator
from operator import itemgetter
from typing import Any

from torch import Tensor

from functrain.distributed import all_ranks, any_rank, totals_over_ranks
from functrain.foundation.errors import DataError
from functrain.foundation.trees import tree_map
from functrain.loop.batches import Feed, MicroBatch
from functrain.loop.shared_batches import SharedFeed
from functrain.metrics.measuring import Collected, Measured, Measures
from functrain.metrics.reading import numbers
from functrain.metrics.totals import Totals, sum_of
from functrain.step.evaluate import Evaluation
from functrain.step.execution import Runner
from functrain.step.state import TrainState


def evaluate_pass(
    state: TrainState,
    feed: Feed,
    run: Runner,
    *,
    ema: bool = False,
    interrupted: Callable[[], bool] = lambda: False,
) -> Totals | None:
    """The totals over a stream; None if `interrupted` said so between two batches.

    Raises:
        DataError: if there is no batch.
    """
    evaluate, summed = Evaluation(state, ema=ema, run=run), _Summed(measures=state.recipe.metrics is not None)
    if isinstance(feed, SharedFeed):
        found = _shared(evaluate, feed, interrupted, state.recipe.metrics)
        if found is None:
            return None
        summed.add(found)
        return summed.total()
    for block in feed.blocks(0):
        found = evaluate.each([micro_batch.batch for micro_batch in block], lambda: not interrupted())
        if len(found) < len(block):
            return None
        summed.add(found)
    return totals_over_ranks(summed.total())


class _Summed:
    """Totals of batch after batch, added in order."""

    def __init__(self, *, measures: bool) -> None:
        self._totals: Totals | None = None
        self._collected, self._measures = Collected(), measures

    def add(self, found: list[Totals]) -> None:
        """Add those of the next batches."""
        for each in found:
            if each.measured is not None:
                self._collected.add(each.measured)
        sums = [Totals(each.sums, each.names) for each in found] if self._measures else found
        if sums:
            self._totals = sum_of(sums if self._totals is None else [self._totals, *sums])

    def total(self) -> Totals:
        """All of them together."""
        if self._totals is None:
            raise DataError("the evaluation data are empty: the loader gave no batch")
        return Totals(self._totals.sums, self._totals.names, self._collected.total())


def _shared(
    evaluate: Evaluation, feed: SharedFeed, interrupted: Callable[[], bool], measures: Measures | None
) -> list[Totals] | None:
    """The totals of all batches, in their order, of which each process computes its own."""
    own: dict[int, tuple[Any, ...]] = {}  # without the measures, whose functions cannot be sent
    turns: Iterator[tuple[int, MicroBatch]] = feed.turns(0)
    while any_rank((turn := next(turns, None)) is not None, feed.world):
        if interrupted():
            return None
        if turn is not None:
            found = evaluate(turn[1].batch)
            counted = None if found.measured is None else tree_map(Tensor.cpu, found.measured.accumulators)
            own[turn[0]] = (found.sums.cpu(), found.names, counted)
    gathered = all_ranks(own, feed.world)
    every = sorted((pair for part in gathered for pair in part.items()), key=itemgetter(0))
    return [
        Totals(sums, names, None if measures is None else Measured(counted, measures))
        for _, (sums, names, counted) in every
    ]


def uncounted(totals: Totals, prefix: str) -> set[str]:
    """The prefixed names of the metrics that nothing was counted for: their means are NaN for no failure.

    Nor is it one if a metric that was asked for is not defined, as AUROC is not where all examples are of one class.
    """
    weights = dict(zip(totals.names, totals.sums[1].tolist()))
    if totals.measured is not None:
        weights |= {name: 0.0 if value.isnan() else 1.0 for name, value in totals.measured.values().items()}
    return {f"{prefix}{name}" for name, weight in weights.items() if weight == 0}


def to_numbers(totals: Totals, prefix: str) -> dict[str, float]:
    """Means as Python numbers under prefixed names."""
    values = totals.means()
    return {f"{prefix}{name}": value for name, value in zip(values, numbers(values.values()))}
