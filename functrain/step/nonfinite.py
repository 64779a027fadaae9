"""What to tell a user whose loss is not finite."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import torch

from functrain.foundation.dtypes import is_floating
from functrain.foundation.keys import fold_in, torch_seed
from functrain.foundation.trees import leaves_with_paths
from functrain.step.collectives import ALONE
from functrain.step.gradient import gradient
from functrain.step.objective import counted_batch
from functrain.step.state import TrainState, whole


def nonfinite_message(state: TrainState, batch: Any, metrics: Mapping[str, Any]) -> str:
    """Which step it was, what was not finite, and, where it shows, why.

    Args:
        state: the state before the step.
        batch: the micro-batch that ended its window.
        metrics: the update's.
    """
    loss, grad_norm, weight = (float(metrics[name]) for name in ("loss", "grad_norm", "weight_sum"))
    where = f"step {state.step + 1} (epoch {state.epoch + 1}, batch {state.batch_idx + 1})"
    if not weight > 0:
        return (
            f"the weights sum to {weight} at {where}, and a mean needs a sum greater than 0. Look at the weights in "
            "the batch, or at Loss.weight of the objective"
        )
    what = f"the gradient norm is {grad_norm}" if math.isfinite(loss) else f"the loss is {loss}"
    leaf = first_nonfinite(state, batch)
    named = "" if leaf is None else f" The first leaf that is not finite is {leaf}."
    return f"{what} at {where}.{named} {_cause(state, batch)}"


def too_many_skips_message(state: TrainState, batch: Any, skips: int, most: int, metrics: Mapping[str, Any]) -> str:
    """That training no longer moves; arguments as of `nonfinite_message`, and how many updates were refused."""
    scale = "" if state.loss_scale is None else f" with a loss scale of {state.loss_scale.scale.item():.4g}"
    return (
        f"{skips} updates in a row were refused{scale} (max_consecutive_skips is {most}). At the last, "
        f"{nonfinite_message(state, batch, metrics)}"
    )


def first_nonfinite(state: TrainState, batch: Any) -> str | None:
    """The first leaf with NaN or infinity in it: of the batch, the parameters, the buffers or the batch's gradient.

    None if it is none of these: for example, an earlier micro-batch of the window was the one.
    """
    key = fold_in(state.key, "step", state.step, state.micro_step, state.recipe.collectives.rank)
    if batch is None:
        return None
    state = whole(state)
    recipe = dataclasses.replace(state.recipe, collectives=ALONE, exchange=None)  # the other processes may not ask
    state = state.replace(recipe=recipe)
    buffers = state.buffers if state.accumulator is None else state.accumulator.buffers
    counted = counted_batch(recipe.objective, batch)
    for kind, tree in (("the batch's part", counted), ("the parameter", state.params), ("the buffer", buffers)):
        if (path := _first(tree)) is not None:
            return f"{kind} {path!r}" if recipe.refuse_nonfinite or tree is counted else None
    with torch_seed(key, state.device):
        grads = gradient(state, batch, buffers).grads
    path = _first(grads)
    return None if path is None else f"the gradient of {path!r}"


def _first(tree: Any) -> str | None:
    found = (path for path, leaf in leaves_with_paths(tree) if is_floating(leaf) and not torch.isfinite(leaf).all())
    return next(found, None)


def _cause(state: TrainState, batch: Any) -> str:
    for path, leaf in leaves_with_paths(counted_batch(state.recipe.objective, batch)):
        if isinstance(leaf, torch.Tensor) and leaf.dtype.is_floating_point and not torch.isfinite(leaf).all():
            return (
                f"The batch itself holds NaN or infinity (in its part {path!r}): look at the data. An example of "
                "weight 0 is left out: a batch may be (inputs, targets, weight)"
            )
    complaint = getattr(state.recipe.objective, "complaint", None)
    if complaint is not None:
        found, _ = state.recipe.network.apply(complaint, state.params, state.buffers, batch, training=False)
        if found is not None:
            return found[0].upper() + found[1:]
    return "Try a smaller learning rate, clip_norm=1.0, or a warm-up"
