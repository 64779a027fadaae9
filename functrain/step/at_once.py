"""The end of a window in one graph: the last pass, the sums over the processes, and the update.

    g_w = the window's sum so far + grad(total)       of this process
    g   = the sum of g_w over the processes           collectives within the graph
    params, opt_state = optimizer(clip(g / sum of weights))

It is for sums that need no order, of a state that each process has whole (`Exchange.within`). In phases (`phases`) the
same gradients go through memory once more for each of them.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from functrain.foundation.keys import fold_in
from functrain.foundation.trees import node
from functrain.metrics.totals import Totals
from functrain.objectives.examples import count_examples
from functrain.objectives.unfit import raise_explained
from functrain.step.collectives import Collectives
from functrain.step.execution import Core, Runner
from functrain.step.finish import Mean, Metrics, clip_by_value, divisor, finish, means_of, named_metrics
from functrain.step.gradient import divided, gradient
from functrain.step.parts import in_order
from functrain.step.state import Accumulator, DonatedState, OpenWindow, Part, TrainState, consume
from functrain.step.used import Used


@node
class Next:
    """A micro-batch on its way into a window.

    Attributes:
        before: this process's sums of the window so far.
        batch: it.
        examples: of this process in the whole window, float64 0-d; None: it is not the last.
    """

    before: Part
    batch: Any
    examples: Tensor | None = None


def step_at_once(
    state: TrainState, batch: Any, *, examples: int | None, end_window: bool, run: Callable[..., Any]
) -> tuple[TrainState, Metrics]:
    """`train_step` for a state of which `has_graph_of_update` says so.

    Args:
        state: the state before.
        batch: this process's next micro-batch of the window.
        examples, end_window, run: as of `train_step`.
    """
    if batch is None:
        raise ValueError(
            "a process without a micro-batch cannot take part in a window that ends in one graph with the sums over "
            "the processes: give each process as many, or call shard with reduction='exact'"
        )
    window, done, before = state.accumulator, state.micro_step + 1, state.at_window_start()
    assert window is not None
    part = window.open.parts[0] if window.open else Part(window.grads, window.sums, window.buffers, window.used)
    count = count_examples(state.recipe.objective)(batch) if examples is None else examples
    in_window = count + (window.open.examples if window.open else 0)
    key = partial(fold_in, state.key, "step", state.step, done - 1, _within(state).rank)
    try:
        if not end_window and done < state.recipe.accumulate:
            part, metrics = run(ADD, _bare(state), Next(part, batch), key=key, device=state.device)
            opened = OpenWindow((part,), {}, in_window)
            accumulator = Accumulator(**{**vars(window), "count": done, "open": opened})
            counters = {"batch_idx": state.batch_idx + 1, "samples_seen": state.samples_seen + count}
            return state.replace(accumulator=accumulator, **counters), named_metrics(metrics)
        number = torch.tensor(in_window, dtype=torch.float64).to(state.device)
        to_update = before.replace(accumulator=None)
        try:
            new, (metrics, seen) = run(CLOSE, to_update, Next(part, batch, number), key=key, device=state.device)
        finally:
            if isinstance(to_update, DonatedState):
                consume(state)
    except Exception as error:
        raise_explained(error, batch, state.recipe.objective)
    buffers = {name: buffer.clone() for name, buffer in new.buffers.items()}
    at_rest = Accumulator(**{**vars(window), "buffers": buffers, "count": 0, "open": None})
    return new.replace(
        accumulator=at_rest,
        step=before.step + 1,
        batch_idx=before.batch_idx + done,
        samples_seen=before.samples_seen + int(seen.item()),  # the host waits for the update
    ), named_metrics(metrics)


def _bare(state: TrainState) -> TrainState:
    """What a pass needs of it."""
    return state.replace(opt_state=(), accumulator=None, ema=None)


def _added(state: TrainState, given: Next) -> tuple[Part, Metrics]:
    """The window's sums with those of a micro-batch, and its means."""
    grads, used, totals, buffers, _ = gradient(state, given.batch, given.before.buffers)
    flags = used.before(given.before.used).flags(given.before.used)
    # Without the names of the sums, which each pass knows: a window that has them would need another program.
    return in_order(given.before, Part(grads, totals.sums, buffers, flags)), means_of(totals)


def _closed(state: TrainState, given: Next) -> tuple[TrainState, tuple[Metrics, Tensor]]:
    """The update, its metrics, and the examples of all processes."""
    recipe, before = state.recipe, given.before
    assert given.examples is not None
    collectives = _within(state)
    grads, used, totals, buffers, _ = gradient(state, given.batch, before.buffers)
    part = in_order(before, Part(grads, totals.sums, buffers, before.used))
    flags = used.before(before.used).flags(before.used)
    averaged = {name: buffer for name, buffer in part.buffers.items() if buffer.is_floating_point()}
    more = [part.sums, flags.to(part.sums.dtype), given.examples, *averaged.values()]
    grads, (sums, flags, examples, *summed) = collectives.reduce(part.grads, more)
    means = {name: buffer / collectives.ranks for name, buffer in zip(averaged, summed)}
    totals = Totals(sums, totals.names)
    grads = divided(grads, divisor(totals.weight))
    norm = collectives.norm(grads)
    clipped, norm_to_clip = clip_by_value(recipe, grads, norm, collectives.norm)
    mean = Mean(
        grads,
        clipped,
        Used(used.here, flags > 0),
        totals,
        {**part.buffers, **means},
        norm,
        norm_to_clip,
        torch.isfinite(sums[0, 0]),
    )
    new, metrics = finish(state, mean)
    return new, (metrics, examples)


def has_graph_of_update(state: TrainState, run: Any) -> bool:
    """Whether a window of the state ends in one graph: where graphs are made, and no metrics are measured.

    Where each operation runs by itself, sums in place between the phases take less memory.
    """
    exchange = state.recipe.exchange
    if exchange is None or exchange.within is None or not isinstance(run, Runner) or not run.makes_graphs:
        return False
    return state.accumulator is not None and state.epoch_metrics is None and state.recipe.metrics is None


def _within(state: TrainState) -> Collectives:
    exchange = state.recipe.exchange
    assert exchange is not None
    assert exchange.within is not None
    return exchange.within


ADD = Core(_added, "pass", carries_state=False)
CLOSE = Core(_closed, "update", carries_state=True)
