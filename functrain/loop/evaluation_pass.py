"""One pass over evaluation data."""

from collections.abc import Callable

from functrain.distributed import totals_over_ranks
from functrain.foundation.errors import DataError
from functrain.loop.batches import Feed
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
    totals, evaluate = None, Evaluation(state, ema=ema, run=run)
    for block in feed.blocks(0):
        found = evaluate.each([micro_batch.batch for micro_batch in block], lambda: not interrupted())
        if len(found) < len(block):
            return None
        totals = sum_of(found if totals is None else [totals, *found])
    if totals is None:
        raise DataError("the evaluation data are empty: the loader gave no batch")
    return totals_over_ranks(totals)


def uncounted(totals: Totals, prefix: str) -> set[str]:
    """The prefixed names of the metrics that nothing was counted for: their means are NaN for no failure."""
    return {f"{prefix}{name}" for name, weight in zip(totals.names, totals.sums[1].tolist()) if weight == 0}


def to_numbers(totals: Totals, prefix: str) -> dict[str, float]:
    """Means as Python numbers under prefixed names."""
    return {f"{prefix}{name}": value.item() for name, value in totals.means().items()}
