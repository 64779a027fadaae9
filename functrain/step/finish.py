"""The update that a window ends with, and the metrics of a step."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from functrain.foundation.trees import tree_map
from functrain.metrics.layer_statistics import LAYERS, Statistics, tree_statistics, update_statistics
from functrain.metrics.measuring import Measured
from functrain.metrics.totals import Totals
from functrain.optim import apply_updates, learning_rate, scale_to_norm, step
from functrain.step.choose import choose
from functrain.step.scaling import LossScale, LossScaling, next_loss_scale
from functrain.step.state import Accumulator, Params, Recipe, TrainState, UpdateCounts
from functrain.step.used import Used, only_used

Metrics = dict[str, Tensor]

ABOUT_UPDATES = frozenset({"grad_norm", "lr", "skipped", "weight_sum", "loss_scale"})
STATISTICS = ("grad", "update", "activation")  # of layers, as "grad/conv.weight/norm"
MEASURED = "measured"  # the metrics that were asked for, while they are one tensor


def is_about_update(name: str) -> bool:
    """Whether a metric is the step's own, about the update, and not the objective's."""
    return name in ABOUT_UPDATES or name.partition("/")[0] in STATISTICS


def named_metrics(metrics: Mapping[str, Any]) -> Metrics:
    """The metrics as they leave a core, with a name for each number of the statistics, which are one tensor each.

    Metrics that have their names already stay as they are.
    """
    named = dict(metrics)
    measured = named.pop(MEASURED, None)
    if measured is not None:
        named |= measured.named()
    for prefix in STATISTICS:
        found = named.pop(prefix, None)
        if found is not None:
            named |= found.metrics(prefix)
    return named


class Mean(NamedTuple):
    """What an update is made of.

    Attributes:
        grads: the mean gradient over the window.
        clipped: the same, clipped by value.
        used: which parameters the window's losses depend on.
        totals: of the window.
        buffers: after the window.
        norm, norm_to_clip: the global norms of `grads` and of `clipped`.
        finite: whether the loss is, 0-d bool.
        activations: statistics of the last micro-batch, if they are wanted.
    """

    grads: Params
    clipped: Params
    used: Used
    totals: Totals
    buffers: Params
    norm: Tensor
    norm_to_clip: Tensor
    finite: Tensor
    activations: Statistics | None = None


def finish(state: TrainState, mean: Mean) -> tuple[TrainState, Metrics]:
    """The update that a window ends with: guard, clip by norm, optimizer, average, scale."""
    recipe, window, totals, buffers = state.recipe, state.accumulator, mean.totals, mean.buffers
    weight = totals.weight
    weighs, empty = weight > 0, weight == 0
    finite = mean.finite & torch.isfinite(mean.norm)
    grads = mean.clipped
    if recipe.clip_norm is not None:
        grads = scale_to_norm(grads, mean.norm_to_clip, recipe.clip_norm)
    old = {name: state.params[name] for name in recipe.network.trainable}
    updates, new, opt_state = _updated(recipe, mean.used, grads, state.opt_state, old)
    ema = state.ema
    if ema is not None and recipe.ema is not None:
        ema = recipe.ema.update(ema, new, buffers)
    # An update is refused on the device, without the host knowing: no step waits for a decision.
    good = finite & weighs
    applied = good if recipe.refuse_nonfinite else weighs
    before = (old, state.opt_state, state.buffers, state.ema, state.epoch_totals, state.epoch_metrics)
    epoch_metrics = joined(state.epoch_metrics, totals.measured)
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
        counts=_counted(state.counts, applied, good, empty),
        loss_scale=scale
        if scale is None or recipe.scaling is None
        else _next_scale(recipe.scaling, scale, finite, empty),
        accumulator=None if window is None else emptied(window, buffers),
    )
    metrics = _update_metrics(state, changed, totals, mean.norm, good)
    return changed, metrics | _statistics(recipe, mean.grads, updates, old, mean.activations)


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


def _counted(counts: UpdateCounts, applied: Tensor, good: Tensor, empty: Tensor) -> UpdateCounts:
    """A window of weight 0 is no failure: it neither adds to those in a row nor ends the row."""
    return UpdateCounts(counts.applied + applied, torch.where(good, 0, counts.skipped_in_a_row + empty.logical_not()))


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


def _update_metrics(old: TrainState, new: TrainState, totals: Totals, grad_norm: Tensor, good: Tensor) -> Metrics:
    means = means_of(totals)
    metrics = {"grad_norm": grad_norm, "skipped": (~good).to(torch.float32), "weight_sum": totals.weight}
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


def divisor(weight: Tensor) -> Tensor:
    """What sums over a window are divided by for their mean: the weight, and 1 where nothing weighs anything."""
    return torch.where(weight > 0, weight, 1.0)


def clip_by_value(
    recipe: Recipe, grads: Params, norm: Tensor, norm_of: Callable[[Params], Tensor]
) -> tuple[Params, Tensor]:
    """The gradient clipped by value, and its norm: `norm` serves where nothing is clipped, or the norm not needed."""
    value = recipe.clip_value
    if value is None:
        return grads, norm
    clipped: Params = tree_map(lambda g: g.clamp(-value, value), grads)
    return clipped, norm if recipe.clip_norm is None else norm_of(clipped)


def emptied(window: Accumulator, buffers: Params) -> Accumulator:
    """The window before its first micro-batch."""
    return Accumulator(
        tree_map(torch.zeros_like, window.grads),
        torch.zeros_like(window.sums),
        {name: b.clone() for name, b in buffers.items()},
        window.count,
        torch.zeros_like(window.used),
        None if window.metrics is None else window.metrics.emptied(),
    )


def joined(held: Measured | None, more: Measured | None) -> Measured | None:
    """Both together, if there are both."""
    return held if held is None or more is None else held + more


def means_of(totals: Totals) -> Metrics:
    """The objective's means by name; the values of what is measured as one tensor, see `named_metrics`."""
    means: dict[str, Any] = dict(Totals(totals.sums, totals.names).means())
    if totals.measured is not None:
        means[MEASURED] = totals.measured.stacked()
    return means
