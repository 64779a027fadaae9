"""One pass over evaluation data."""

from collections.abc import Callable

from functrain.distributed import totals_over_ranks
from functrain.foundation.errors import DataError
from functrain.loop.batches import Feed
from functrain.metrics.measuring import Collected
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
    totals, evaluate, collected = None, Evaluation(state, ema=ema, run=run), Collected()
    for block in feed.blocks(0):
        found = evaluate.each([micro_batch.batch for micro_batch in block], lambda: not interrupted())
        if len(found) < len(block):
            return None
        for each in found:
            if each.measured is not None:
                collected.add(each.measured)
        sums = [Totals(each.sums, each.names) for each in found] if state.recipe.metrics is not None else found
        totals = sum_of(sums if totals is None else [totals, *sums])
    if totals is None:
        raise DataError("the evaluation data are empty: the loader gave no batch")
    return totals_over_ranks(Totals(totals.sums, totals.names, collected.total()))


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
