"""Metrics of a state over a loader."""

from typing import Any

from functrain.compiler import runner_for
from functrain.data import as_stream
from functrain.distributed import current_world
from functrain.foundation.errors import MetricError
from functrain.foundation.keys import fold_in
from functrain.loop.batches import Feed
from functrain.loop.evaluation_pass import evaluate_pass, to_numbers
from functrain.metrics.registry import measures
from functrain.step.measures import with_metrics
from functrain.step.state import TrainState, require_state


def evaluate(
    state: TrainState, loader: Any, *, metrics: Any = None, ema: bool = False, compile: bool = False
) -> dict[str, float]:
    """The loss and metrics over all examples of a loader, the model in evaluation mode.

    Each is one weighted mean over the examples, so it does not depend on how they are batched.

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
        feed = Feed(stream, state.recipe.objective, state.device, current_world())
        totals = evaluate_pass(state, feed, runner, ema=ema)
    finally:
        stream.close()
    assert totals is not None  # only an interruption returns None, and nothing interrupts here
    if totals.measured is not None and (complaint := totals.measured.complaint()):
        raise MetricError(complaint)
    return to_numbers(totals, "")
