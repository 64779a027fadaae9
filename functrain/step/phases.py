"""A step in phases, for a state whose recipe has an `Exchange`: passes, sums over processes, the update.

    g_v  = grad(total)  of each micro-batch v of the window, by whichever process has it      one program
    g    = the sum of all g_v: in a binary tree over v, or in the order in which they come    the exchange
    params, opt_state = optimizer(clip(g / sum of weights))                                   another program

A pass is the same program on the same tensors whatever the number of processes and however they keep the state, and so
has the same bits. With sums in a tree (`Exchange.in_tree`) a window has, too: a process's micro-batches are the leaves
of whole branches. There each micro-batch begins with the buffers of the window's start, and the window ends with the
mean of what they leave (BatchNorm's statistics).
"""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from functrain.foundation.keys import fold_in
from functrain.foundation.trees import node, static
from functrain.metrics.totals import Totals, no_totals
from functrain.objectives.examples import count_examples
from functrain.objectives.unfit import raise_explained
from functrain.optim.foreach import overwrite
from functrain.step.collectives import Exchange
from functrain.step.execution import Core, eager
from functrain.step.finish import Mean, Metrics, clip_by_value, divisor, finish, means_of, named_metrics
from functrain.step.gradient import divided, gradient
from functrain.step.parts import add_parts, add_to_new, in_order
from functrain.step.recomputation import gathering
from functrain.step.state import Accumulator, DonatedState, OpenWindow, Params, Part, TrainState, consume
from functrain.step.tree import carried, folded
from functrain.step.used import Used


def step_in_phases(
    state: TrainState, batch: Any, *, examples: int | None, end_window: bool, run: Callable[..., Any]
) -> tuple[TrainState, Metrics]:
    """`train_step` for a recipe with an exchange.

    Args:
        state: the state before, as this process keeps it.
        batch: this process's next micro-batch of the window; None: it has none in this window.
        examples, end_window, run: as of `train_step`.
    """
    exchange = _exchange(state)
    share = exchange.share(state.recipe.accumulate)
    window, metrics = _opened(state, exchange), Metrics()
    done = state.micro_step
    if batch is None and exchange.in_step:
        raise ValueError(
            "a process without a micro-batch cannot take part in a window whose passes gather parameters in blocks, or "
            "whose gradients are summed with each micro-batch (zero2 and zero3 with reduction='fast'): give each "
            "process as many, or call shard without blocks and with reduction='exact'"
        )
    if batch is not None:
        key = partial(fold_in, state.key, "step", state.step, share.first + done, share.stream)
        part, metrics = _passed(state, window, batch, key, run)
        part = exchange.to_keep(part)
        if not exchange.in_tree and window.parts:
            part = in_order(window.parts[0], part)
        parts = carried(window.parts, part, done, partial(add_parts, add=add_to_new)) if exchange.in_tree else (part,)
        count = count_examples(state.recipe.objective)(batch) if examples is None else examples
        window, done = OpenWindow(parts, window.params, window.examples + count, window.shards), done + 1
    else:  # the parts are the caller's: in other dictionaries, their gradients are not the sum's to take
        parts = tuple(dataclasses.replace(part, grads=dict(part.grads)) for part in window.parts)
        window = OpenWindow(parts, window.params, window.examples, window.shards)
    if end_window or done == share.number:
        return _closed(state, window, done, run)
    assert state.accumulator is not None
    accumulator = Accumulator(**{**vars(state.accumulator), "count": done, "open": window})
    new = state.replace(accumulator=accumulator, batch_idx=state.batch_idx + 1, samples_seen=_seen(state, window))
    return new, named_metrics(metrics)


def _exchange(state: TrainState) -> Exchange:
    exchange = state.recipe.exchange
    assert exchange is not None
    return exchange


def _opened(state: TrainState, exchange: Exchange) -> OpenWindow:
    window = state.accumulator
    if window is not None and window.open is not None:
        return window.open
    params, shards = exchange.opened(state.params)
    return OpenWindow((), params, 0, shards)


def _seen(state: TrainState, window: OpenWindow) -> int:
    before = state.at_window_start().samples_seen
    return before + window.examples


def _passed(
    state: TrainState, window: OpenWindow, batch: Any, key: Callable[[], int], run: Callable[..., Any]
) -> tuple[Part, Metrics]:
    """A micro-batch's part and its means. What a pass does not need is left out: all strategies run one program."""
    chained = not _exchange(state).in_tree and window.parts
    start = state.replace(
        params=window.params,
        buffers=window.parts[0].buffers if chained else state.buffers,
        opt_state=(),
        accumulator=None,
        ema=None,
        epoch_metrics=None,
    )
    if not _exchange(state).compiles_passes:
        run = eager
    try:
        with gathering(_exchange(state).params, window.shards):
            part, metrics = run(PART, start, batch, key=key, device=state.device)
    except Exception as error:
        raise_explained(error, batch, state.recipe.objective)
    return part, metrics


def _closed(state: TrainState, window: OpenWindow, done: int, run: Callable[..., Any]) -> tuple[TrainState, Metrics]:
    """The window's sum over the processes, and the update."""
    exchange, before = _exchange(state), state.at_window_start()
    mine = folded(window.parts, add_parts) if window.parts else _nothing(state, window.params)
    total, counts = exchange.sum(mine, [done, window.examples])
    micro_batches, examples = counts
    mean, clipped = _mean(state, total, micro_batches if exchange.in_tree else exchange.ranks)
    sums = _Sums(mean, clipped, all_used=bool(mean.used.all().item()))
    window_at_rest = before.accumulator
    counters = {
        "step": before.step + 1,
        "batch_idx": before.batch_idx + (micro_batches if exchange.in_tree else done),
        "samples_seen": before.samples_seen + examples,
    }
    new, metrics = exchange.updated(*_applied(state, before.replace(accumulator=None), sums, run))
    if window_at_rest is not None:
        buffers = {name: buffer.clone() for name, buffer in new.buffers.items()}
        window_at_rest = Accumulator(**{**vars(window_at_rest), "buffers": buffers, "count": 0, "open": None})
    return new.replace(accumulator=window_at_rest, **counters), named_metrics(metrics)


def _applied(
    state: TrainState, before: TrainState, sums: "_Sums", run: Callable[..., Any]
) -> tuple[TrainState, Metrics]:
    """The update; the kept state is consumed if the one to update was, whose tensors may be the same."""
    to_update, sums = _exchange(state).to_update(before, sums)
    key, device = partial(fold_in, state.key, "update", state.step), to_update.device
    try:
        new, metrics = run(APPLY, to_update, sums, key=key, device=device)
    finally:
        if isinstance(to_update, DonatedState):
            consume(state)
    return new, metrics


@node
class _Sums:
    """A window's sums, its gradient the mean, on their way into the update.

    Attributes:
        part: the sums.
        clipped: its gradients clipped by value, and the norms of both.
        all_used: whether the losses depend on all parameters. It is known to the host, and then no leaf need be chosen.
    """

    part: Part
    clipped: tuple[Params, Tensor, Tensor]
    all_used: bool = static(default=False)


def _mean(state: TrainState, total: Part, count: int) -> tuple[Part, tuple[Params, Tensor, Tensor]]:
    exchange, recipe = _exchange(state), state.recipe
    by = divisor(total.sums[1, 0])
    # What came from several processes is new, and may be written to though views share a message's memory.
    grads = _divided_in_place(total.grads, by) if exchange.ranks > 1 else divided(total.grads, by)
    norm = exchange.norm(grads)
    clipped, norm_to_clip = clip_by_value(recipe, grads, norm, exchange.norm)
    floating = {name: b / count for name, b in total.buffers.items() if b.is_floating_point()}
    part = Part(grads, total.sums, {**total.buffers, **floating}, total.used, total.metrics, total.names)
    return part, ({} if clipped is grads else clipped, norm, norm_to_clip)


def _divided_in_place(grads: Params, by: Tensor) -> Params:
    return dict(zip(grads, overwrite("div", list(grads.values()), by.to(next(iter(grads.values())).dtype))))


def _part(state: TrainState, batch: Any) -> tuple[Part, Metrics]:
    grads, used, totals, buffers, _ = gradient(state, batch, state.buffers)
    flags = used.flags(torch.zeros(len(grads), dtype=torch.bool, device=state.device))
    return Part(grads, totals.sums, buffers, flags, totals.measured, totals.names), means_of(totals)


def _apply(state: TrainState, sums: _Sums) -> tuple[TrainState, Metrics]:
    part, (clipped, norm, norm_to_clip) = sums.part, sums.clipped
    used = Used((sums.all_used,) * len(part.grads), part.used)
    totals = Totals(part.sums, part.names, part.metrics)
    finite = torch.isfinite(part.sums[0, 0])
    return finish(
        state, Mean(part.grads, clipped or part.grads, used, totals, part.buffers, norm, norm_to_clip, finite)
    )


def _nothing(state: TrainState, params: Params) -> Part:
    """The part of no micro-batch."""
    trainable = state.recipe.network.trainable
    return Part(
        {name: torch.zeros_like(params[name]) for name in trainable},
        no_totals(state.device),
        {name: buffer.clone() for name, buffer in state.buffers.items()},
        torch.zeros(len(trainable), dtype=torch.bool, device=state.device),
        None if state.epoch_metrics is None else state.epoch_metrics.emptied(),
    )


PART = Core(_part, "pass", carries_state=False)
APPLY = Core(_apply, "apply", carries_state=True, own_batch=True)
