"""Metrics of a state over a loader."""

from typing import Any

from functrain.compiler import runner_for
from functrain.data import Stream, as_stream
from functrain.distributed import World, current_world
from functrain.foundation.errors import MetricError
from functrain.foundation.keys import fold_in
from functrain.loop.batches import Feed
from functrain.loop.evaluation_pass import evaluate_pass, to_numbers
from functrain.loop.shared_batches import SharedFeed
from functrain.metrics.registry import measures
from functrain.step.collectives import Share
from functrain.step.measures import with_metrics
from functrain.step.state import TrainState, require_state

ALL = Share(0, 1, 0)  # of a window, which an evaluation does not have


def evaluate(
    state: TrainState, loader: Any, *, metrics: Any = None, ema: bool = False, compile: bool = False
) -> dict[str, float]:
    """The loss and metrics over all examples of a loader, the model in evaluation mode.

    Each is one weighted mean over the examples, so it does not depend on how they are batched. Several processes share
    the batches out, each of them whole, and add what they found in the order of the batches: all get the bits of one.

    Args:
        state: any state; not changed.
        loader: as for `fit`.
        metrics: what to measure beside the objective's own metrics, as for `fit`, such as `["f1", "auroc"]`; None: what
            the state was asked for.
        ema: evaluate the averaged parameters.
        compile: compile the step first, which pays for long loaders only.

    Returns:
        "loss" and the objective's own metrics, then those that were asked for: "f1", and of classes "f1/class/3".

    Raises:
        DataError: if the loader gives no batch.
        ValueError: if `ema` is asked of a state without an average.
        MetricError: if a metric finds NaN in the predictions, or a target that is no label.

    Example:
        >>> import torch, functrain as ft
        >>> state = ft.init_state(torch.nn.Linear(2, 1), ft.regression(), ft.optim.sgd(0.1))
        >>> sorted(evaluate(state, [(torch.ones(4, 2), torch.zeros(4, 1))]))
        ['loss', 'mae']
    """
    require_state("evaluate", state)
    if metrics is not None:
        state = with_metrics(state, measures(metrics))
    stream = as_stream(loader, fold_in(state.key, "eval"), what="given")
    runner = runner_for(compile)
    try:
        feed = _feed(state, stream, current_world())
        totals = evaluate_pass(state, feed, runner, ema=ema)
    finally:
        stream.close()
    assert totals is not None  # only an interruption returns None, and nothing interrupts here
    if totals.measured is not None and (complaint := totals.measured.complaint()):
        raise MetricError(complaint)
    return to_numbers(totals, "")


def _feed(state: TrainState, stream: Stream, world: World) -> Feed:
    """The stream's batches: all of them, or those of this process."""
    objective, device = state.recipe.objective, state.device
    if world.size == 1:
        return Feed(stream, objective, device, world)
    return SharedFeed(stream, objective, device, world, None, ALL)
