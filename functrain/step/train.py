"""One micro-batch, one update: the pure train step.

    g = sum over the window's micro-batches of  grad(total)      (sums, never means)
    g = g / (sum of weights)                                     (divided once)
    params, opt_state = optimizer(clip(g))                       (if everything is finite)

so k uneven micro-batches and their concatenation give the same update, up to the order of summation.
"""

import contextlib
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch

from functrain.foundation.containers import register_containers
from functrain.foundation.errors import FunctrainError
from functrain.foundation.keys import fold_in
from functrain.metrics.totals import Totals
from functrain.objectives.examples import count_examples
from functrain.objectives.unfit import raise_explained
from functrain.optim import takes_two_gradients
from functrain.optim.foreach import apart_in_graphs
from functrain.step.arguments import check_whole_batches
from functrain.step.at_once import has_graph_of_update, step_at_once
from functrain.step.execution import Core, Runner, eager, refuse_autocast, refuse_inference_mode
from functrain.step.finish import Mean, Metrics, clip_by_value, divisor, finish, joined, means_of, named_metrics
from functrain.step.gradient import divided, gradient, gradient_uphill
from functrain.step.measures import lacks_accumulators, with_accumulators
from functrain.step.members.cores import over_members
from functrain.step.members.stepping import advanced, fed, first_batch
from functrain.step.parts import add_grads
from functrain.step.phases import step_in_phases
from functrain.step.state import Accumulator, TrainState, require_state


def train_step(
    state: TrainState,
    batch: Any,
    *,
    examples: int | Sequence[int] | None = None,
    end_window: bool = False,
    run: Runner = eager,
) -> tuple[TrainState, Metrics]:
    """Process one micro-batch; with the last one of an accumulation window, update the parameters.

    Pure: neither the arguments nor torch's global generators are changed, and the same arguments give
    the same bits. An update whose loss or gradient is not finite is refused: parameters, buffers, optimizer
    state, average and epoch sums keep their values, and the metric `skipped` is 1. So is that of a window whose
    weights sum to 0 (no label in it counts), which does not count as a failure: `weight_sum` tells the two apart.

    Args:
        state: the state before.
        batch: what the objective takes; floating-point tensors are cast to the parameters' dtype. For a stack one for
            all members, or `PerMember(batch)`.
        examples: how many examples are in the batch, padding not counted; by default all its rows, or the elements of
            its lists where the objective takes them. For a stack, of each member or of all alike.
        end_window: update now, though the window has fewer than `accumulate` micro-batches.
        run: what executes the tensor part; `functrain.compile` sets it.

    Returns:
        The state after, of the same structure, and metrics: name -> 0-d tensor. `loss` and the objective's
        own metrics are means over the window (over the micro-batch, before the window's end); an update adds
        `grad_norm` (before clipping), `lr` (if the optimizer has one), `skipped`, `weight_sum` (what the mean was
        divided by), `loss_scale` (if there is one) and the statistics of layers that `init_state` was asked for.
        Metrics that were asked for are those of the window, too. Of a stack, each is a tensor `[N]`.

    Example:
        >>> import functrain as ft
        >>> state = ft.init_state(torch.nn.Linear(2, 1), ft.regression(), ft.optim.sgd(0.1))
        >>> state, metrics = ft.train_step(state, (torch.ones(4, 2), torch.zeros(4, 1)))
        >>> state.step, sorted(metrics)
        (1, ['grad_norm', 'loss', 'lr', 'mae', 'skipped', 'weight_sum'])
    """
    require_state("train_step", state, members=True)
    refuse_autocast(state.device)
    if lacks_accumulators(state):
        state, _ = with_accumulators(state, batch)
    if state.members is not None:
        return _train_members(state, batch, examples, end_window, run)
    if not (examples is None or isinstance(examples, int)):
        raise TypeError(f"examples must be a whole number for a state of one model; got {examples!r}")
    execute: Callable[..., Any] = run
    if torch.compiler.is_dynamo_compiling() and run is eager:  # a torch.compile of the user's own
        from functrain.step import users_compile

        execute = users_compile.run
    else:
        refuse_inference_mode()
        register_containers(batch)
    if state.recipe.exchange is not None:
        if execute is not run:
            raise FunctrainError(
                "a state from functrain.shard cannot be trained within a torch.compile of your own: its step has "
                "several programs. Use functrain.compile(functrain.train_step), or fit"
            )
        step = step_at_once if has_graph_of_update(state, run) else step_in_phases
        return step(state, batch, examples=examples, end_window=end_window, run=execute)
    micro_step = state.micro_step
    closes = end_window or micro_step + 1 == state.recipe.accumulate
    key = partial(fold_in, state.key, "step", state.step, micro_step, state.recipe.collectives.rank)
    objective = state.recipe.objective
    try:
        new, metrics = execute(UPDATE if closes else ACCUMULATE, state, batch, key=key, device=state.device)
    except Exception as error:
        raise_explained(error, batch, objective)
    return _advance(new, batch, examples, micro_step, closes), named_metrics(metrics)


def _train_members(
    state: TrainState, batch: Any, examples: int | Sequence[int] | None, end_window: bool, run: Runner
) -> tuple[TrainState, Metrics]:
    """`train_step` of a stack."""
    refuse_inference_mode()
    register_containers(batch)
    micro_step = state.micro_step
    closes = end_window or micro_step + 1 == state.recipe.accumulate
    core = UPDATE if closes else ACCUMULATE
    own, path = first_batch(batch), ("step", state.step, micro_step, state.recipe.collectives.rank)
    try:
        given = fed(core, state, batch, path)
        key = partial(fold_in, state.key, *path)
        new, metrics = run(_MEMBERS[core], state, given, key=key, device=state.device)
    except Exception as error:
        raise_explained(error, own, state.recipe.objective)
    count = count_examples(new.recipe.objective)(own) if examples is None else examples
    new.__dict__["members"] = members = advanced(new.members, count)
    return _advance(new, own, max(members.samples) - new.samples_seen, micro_step, closes), named_metrics(metrics)


def _advance(new: TrainState, batch: Any, examples: int | None, micro_step: int, closes: bool) -> TrainState:
    """Move the host's counters on. `new` is ours, so it is filled in rather than copied (1 us against 6)."""
    values = new.__dict__
    if new.accumulator is not None:
        new.accumulator.__dict__["count"] = 0 if closes else micro_step + 1
    values["step"] += int(closes)
    values["batch_idx"] += 1
    values["samples_seen"] += count_examples(new.recipe.objective)(batch) if examples is None else examples
    return new


def _accumulate(state: TrainState, batch: Any) -> tuple[TrainState, Metrics]:
    """A micro-batch that does not end its window."""
    window = state.accumulator
    assert window is not None
    check_whole_batches(state.opt_state, "a micro-batch that does not end its window")
    grads, used, totals, buffers, _ = gradient(state, batch, window.buffers)
    flags = used.before(window.used).flags(window.used)
    measured = joined(window.metrics, totals.measured)
    window = Accumulator(
        add_grads(window.grads, grads), window.sums + totals.sums, buffers, window.count, flags, measured
    )
    return state.replace(accumulator=window), means_of(totals)


def _update(state: TrainState, batch: Any) -> tuple[TrainState, Metrics]:
    """A micro-batch that ends its window: gradient, guard, clip, optimizer, average, scale."""
    with contextlib.nullcontext() if state.recipe.refuse_nonfinite else apart_in_graphs():
        return _end_of_window(state, batch)


def _end_of_window(state: TrainState, batch: Any) -> tuple[TrainState, Metrics]:
    recipe, window = state.recipe, state.accumulator
    before_pass = state.buffers if window is None else window.buffers
    grads, used, totals, buffers, seen = gradient(state, batch, before_pass, watch=recipe.activations)
    if window is not None:
        measured = joined(window.metrics, totals.measured)
        grads, totals = add_grads(window.grads, grads), Totals(window.sums + totals.sums, totals.names, measured)
        used = used.before(window.used)
    grads = divided(grads, divisor(totals.weight))
    finite = torch.isfinite(totals.sums[0, 0])
    if takes_two_gradients(state.opt_state):
        grads, used, first_finite = gradient_uphill(state, batch, grads)
        finite = finite & first_finite
    norm = recipe.collectives.norm(grads)
    clipped, norm_to_clip = clip_by_value(recipe, grads, norm, recipe.collectives.norm)
    return finish(state, Mean(grads, clipped, used, totals, buffers, norm, norm_to_clip, finite, seen))


UPDATE = Core(_update, "update", carries_state=True)
ACCUMULATE = Core(_accumulate, "accumulate", carries_state=True)
_MEMBERS = {core: over_members(core) for core in (UPDATE, ACCUMULATE)}
