"""Metrics of a state over a loader."""

from typing import Any

from functrain.compiler import runner_for
from functrain.data import as_stream
from functrain.distributed import current_world
from functrain.foundation.keys import fold_in
from functrain.loop.batches import Feed
from functrain.loop.evaluation_pass import evaluate_pass, to_numbers
from functrain.step.state import TrainState, require_state


def evaluate(state: TrainState, loader: Any, *, ema: bool = False, compile: bool = False) -> dict[str, float]:
    """The objective's loss and metrics over all examples of a loader, the model in evaluation mode.

    Each is one weighted mean over the examples, so it does not depend on how they are batched.

    Args:
        state: any state; not changed.
        loader: as for `fit`.
        ema: evaluate the averaged parameters.
        compile: compile the step first, which pays for long loaders only.

    Returns:
        "loss" and the objective's own metrics.

    Raises:
        DataError: if the loader gives no batch.
        ValueError: if `ema` is asked of a state without an average.

    Example:
        >>> import torch, functrain as ft
        >>> state = ft.init_state(torch.nn.Linear(2, 1), ft.regression(), ft.optim.sgd(0.1))
        >>> sorted(evaluate(state, [(torch.ones(4, 2), torch.zeros(4, 1))]))
        ['loss', 'mae']
    """
    require_state("evaluate", state)
    stream = as_stream(loader, fold_in(state.key, "eval"), what="given")
    runner = runner_for(compile)
    try:
        feed = Feed(stream, state.recipe.objective, state.device, current_world())
        totals = evaluate_pass(state, feed, runner, ema=ema)
    finally:
        stream.close()
    assert totals is not None  # only an interruption returns None, and nothing interrupts here
    return to_numbers(totals, "")
