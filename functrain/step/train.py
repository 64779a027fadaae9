"""One micro-batch, one update: the pure train step.

    g = sum over the window's micro-batches of  grad(total)      (sums, never means)
    g = g / (sum of weights)                                     (divided once)
    params, opt_state = optimizer(clip(g))                       (if everything is finite)

so k uneven micro-batches and their concatenation give the same update, up to the order of summation.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from functrain.foundation.containers import register_containers
from functrain.foundation.keys import fold_in
from functrain.foundation.trees import tree_map
from functrain.metrics.layer_statistics import LAYERS, Statistics, tree_statistics, update_statistics
from functrain.metrics.measuring import Measured
from functrain.metrics.totals import Totals
from functrain.objectives.examples import count_examples
from functrain.objectives.unfit import raise_explained
from functrain.optim import apply_updates, learning_rate, scale_to_norm, step, takes_two_gradients
from functrain.optim.foreach import foreach
from functrain.step.arguments import check_whole_batches
from functrain.step.choose import choose
from functrain.step.execution import Core, Runner, eager, refuse_autocast, refuse_inference_mode
from functrain.step.gradient import divided, gradient, gradient_uphill
from functrain.step.measures import lacks_accumulators, with_accumulators
from functrain.step.scaling import LossScale, LossScaling, next_loss_scale
from functrain.step.state import Accumulator, Params, Recipe, TrainState, UpdateCounts, require_state
from functrain.step.used import Used, only_used

Metrics = dict[str, Tensor]

ABOUT_UPDATES = frozenset({"grad_norm", "lr", "skipped", "weight_sum", "loss_scale"})
STATISTICS = ("grad", "update", "activation")  # of layers, as "grad/conv.weight/norm"
MEASURED = "measured"  # the metrics that were asked for, while they are one tensor


def is_about_update(name: str) -> bool:
    """Whether a metric is the step's own, about the update, and not the objective's."""
    return name in ABOUT_UPDATES or name.partition("/")[0] in STATISTICS


def train_step(
    state: TrainState,
    batch: Any,
    *,
    examples: int | None = None,
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
        batch: what the objective takes; floating-point tensors are cast to the parameters' dtype.
        examples: how many examples are in the batch, padding not counted; by default all its rows, or the elements of
            its lists where the objective takes them.
        end_window: update now, though the window has fewer than `accumulate` micro-batches.
        run: what executes the tensor part; `functrain.compile` sets it.

    Returns:
        The state after, of the same structure, and metrics: name -> 0-d tensor. `loss` and the objective's
        own metrics are means over the window (over the micro-batch, before the window's end); an update adds
        `grad_norm` (before clipping), `lr` (if the optimizer has one), `skipped`, `weight_sum` (what the mean was
        divided by), `loss_scale` (if there is one) and the statistics of layers that `init_state` was asked for.
        Metrics that were asked for are those of the window, too.

    Example:
        >>> import functrain as ft
        >>> state = ft.init_state(torch.nn.Linear(2, 1), ft.regression(), ft.optim.sgd(0.1))
        >>> state, metrics = ft.train_step(state, (torch.ones(4, 2), torch.zeros(4, 1)))
        >>> state.step, sorted(metrics)
        (1, ['grad_norm', 'loss', 'lr', 'mae', 'skipped', 'weight_sum'])
    """
    require_state("train_step", state)
    refuse_autocast(state.device)
    if lacks_accumulators(state):
        state, _ = with_accumulators(state, batch)
    execute: Callable[..., Any] = run
    if torch.compiler.is_dynamo_compiling() and run is eager:  # a torch.compile of the user's own
        from functrain.step import users_compile

        execute = users_compile.run
    else:
        refuse_inference_mode()
        register_containers(batch)
    micro_step = state.micro_step
    closes = end_window or micro_step + 1 == state.recipe.accumulate
    key = partial(fold_in, state.key, "step", state.step, micro_step, state.recipe.collectives.rank)
    objective = state.recipe.objective
    try:
        new, metrics = execute(UPDATE if closes else ACCUMULATE, state, batch, key=key, device=state.device)
    except Exception as error:
        raise_explained(error, batch, objective)
    return _advance(new, batch, examples, micro_step, closes), named_metrics(metrics)


def named_metrics(metrics: Metrics) -> Metrics:
    """The metrics as they leave a core, with a name for each number of the statistics, which are one tensor each."""
    measured: Any = metrics.pop(MEASURED, None)
    if measured is not None:
        metrics |= measured.named()
    for prefix in STATISTICS:
        found: Any = metrics.pop(prefix, None)
        if found is not None:
            metrics |= found.metrics(prefix)
    return metrics


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
    measured = _joined(window.metrics, totals.measured)
    window = Accumulator(_add(window.grads, grads), window.sums + totals.sums, buffers, window.count, flags, measured)
    return state.replace(accumulator=window), _means(totals)


def _update(state: TrainState, batch: Any) -> tuple[TrainState, Metrics]:
    """A micro-batch that ends its window: gradient, guard, clip, optimizer, average, scale."""
    recipe, window = state.recipe, state.accumulator
    before_pass = state.buffers if window is None else window.buffers
    grads, used, totals, buffers, seen = gradient(state, batch, before_pass, watch=recipe.activations)
    if window is not None:
        measured = _joined(window.metrics, totals.measured)
        grads, totals = _add(window.grads, grads), Totals(window.sums + totals.sums, totals.names, measured)
        used = used.before(window.used)
    weight = totals.weight
    weighs, empty = weight > 0, weight == 0
    grads = divided(grads, torch.where(weighs, weight, 1.0))
    finite = torch.isfinite(totals.sums[0, 0])
    if takes_two_gradients(state.opt_state):
        grads, used, first_finite = gradient_uphill(state, batch, grads)
        finite = finite & first_finite
    grad_norm = recipe.collectives.norm(grads)
    finite = finite & torch.isfinite(grad_norm)
    old = {name: state.params[name] for name in recipe.network.trainable}
    updates, new, opt_state = _updated(recipe, used, _clip(state, grads, grad_norm), state.opt_state, old)
    ema = state.ema
    if ema is not None and recipe.ema is not None:
        ema = recipe.ema.update(ema, new, buffers)
    # An update is refused on the device, without the host knowing: no step waits for a decision.
    applied = finite & weighs
    before = (old, state.opt_state, state.buffers, state.ema, state.epoch_totals, state.epoch_metrics)
    epoch_metrics = _joined(state.epoch_metrics, totals.measured)
    after = (new, opt_state, buffers, ema, state.epoch_totals + totals.sums, epoch_metrics)
    new, opt_state, buffers, ema, epoch_totals, epoch_metrics = choose(applied, after, before)
    scale = state.loss_scale
    changed = state.replace(
        params={**state.params, **new},
        opt_state=opt_state,
        buffers=buffers,
        ema=ema,
        epoch_totals=epoch_totals,
        epoch_metrics=epoch_metrics,
        counts=_counted(state.counts, applied, empty),
        loss_scale=scale
        if scale is None or recipe.scaling is None
        else _next_scale(recipe.scaling, scale, finite, empty),
        accumulator=None if window is None else _emptied(window, buffers),
    )
    metrics = _update_metrics(state, changed, totals, grad_norm, applied)
    return changed, metrics | _statistics(recipe, grads, updates, old, seen)


def _updated(recipe: Recipe, used: Used, grads: Params, opt_state: Any, old: Params) -> tuple[Params, Params, Any]:
    """Updates, if statistics of them are wanted; new parameters; the optimizer's new state.

    A parameter that is not used keeps its value and what the optimizer has of it.
    """
    names = recipe.network.trainable
    if recipe.statistics is None:
        new, new_state = step(recipe.optimizer, grads, opt_state, old)
        return {}, *only_used(used, names, (new, new_state), (old, opt_state))
    updates, new_state = recipe.optimizer.update(grads, opt_state, old)
    updates = only_used(used, names, updates, tree_map(torch.zeros_like, updates))
    new = apply_updates(old, updates)
    return updates, *only_used(used, names, (new, new_state), (old, opt_state))


def _counted(counts: UpdateCounts, applied: Tensor, empty: Tensor) -> UpdateCounts:
    """A window of weight 0 is no failure: it neither adds to those in a row nor ends the row."""
    return UpdateCounts(
        counts.applied + applied, torch.where(applied, 0, counts.skipped_in_a_row + empty.logical_not())
    )


def _next_scale(scaling: LossScaling, scale: LossScale, finite: Tensor, empty: Tensor) -> LossScale:
    """A window of weight 0 has no gradient that could overflow: it says nothing about the scale."""
    after = next_loss_scale(scale, finite, scaling)
    return LossScale(
        torch.where(empty, scale.scale, after.scale), torch.where(empty, scale.good_steps, after.good_steps)
    )


def _statistics(
    recipe: Recipe, grads: Params, updates: Params, old: Params, activations: Statistics | None
) -> dict[str, Any]:
    """Of the gradient before clipping, and of the update, refused or not: not finite numbers show where it began."""
    found = {} if activations is None else {"activation": activations}
    if recipe.statistics is None:
        return found
    layer = LAYERS[recipe.statistics]
    gradients, changes = tree_statistics(grads, layer=layer), update_statistics(updates, old, layer=layer)
    return {"grad": gradients, "update": changes, **found}


def _update_metrics(old: TrainState, new: TrainState, totals: Totals, grad_norm: Tensor, applied: Tensor) -> Metrics:
    means = _means(totals)
    metrics = {"grad_norm": grad_norm, "skipped": (~applied).to(torch.float32), "weight_sum": totals.weight}
    lr = learning_rate(new.opt_state)
    # Copies: a metric that shared a leaf's storage would change when a later step is donated that storage.
    if lr is not None:
        metrics["lr"] = lr.clone()
    if old.loss_scale is not None:
        metrics["loss_scale"] = old.loss_scale.scale.clone()
    if taken := {name for name in means if is_about_update(name)}:
        raise ValueError(
            f"the objective has a metric named {', '.join(sorted(taken))}, a name of the step's own; give it another"
        )
    return {**means, **metrics}


def _clip(state: TrainState, grads: Params, grad_norm: Tensor) -> Params:
    """Clip by value, then by global norm; `grad_norm` serves where clipping by value has not changed it."""
    clip_value, clip_norm = state.recipe.clip_value, state.recipe.clip_norm
    if clip_value is not None:
        grads = tree_map(lambda g: g.clamp(-clip_value, clip_value), grads)
        grad_norm = state.recipe.collectives.norm(grads) if clip_norm is not None else grad_norm
    if clip_norm is not None:
        grads = scale_to_norm(grads, grad_norm, clip_norm)
    return grads


def _emptied(window: Accumulator, buffers: Params) -> Accumulator:
    return Accumulator(
        tree_map(torch.zeros_like, window.grads),
        torch.zeros_like(window.sums),
        {name: b.clone() for name, b in buffers.items()},
        window.count,
        torch.zeros_like(window.used),
        None if window.metrics is None else window.metrics.emptied(),
    )


def _joined(held: Measured | None, more: Measured | None) -> Measured | None:
    return held if held is None or more is None else held + more


def _means(totals: Totals) -> Metrics:
    """The objective's means by name; the values of what is measured as one tensor, see `named_metrics`."""
    means: dict[str, Any] = dict(Totals(totals.sums, totals.names).means())
    if totals.measured is not None:
        means[MEASURED] = totals.measured.stacked()
    return means


def _add(left: Params, right: Params) -> Params:
    # By name: a state that was restored or mapped may have its dictionaries in another order.
    return dict(zip(left, foreach("add", list(left.values()), [right[name] for name in left])))


UPDATE = Core(_update, "update", carries_state=True)
ACCUMULATE = Core(_accumulate, "accumulate", carries_state=True)
