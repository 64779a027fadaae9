"""What to tell a user whose loss is not finite. Imports objectives, step, foundation."""

from typing import Any

import torch

from functrain.foundation.trees import leaves_with_paths
from functrain.step.state import TrainState


def nonfinite_message(state: TrainState, batch: Any, loss: float, grad_norm: float) -> str:
    """Which step it was, what was not finite, and, where it shows, why.

    Args:
        state: the state before the step.
        batch: the micro-batch that ended its window.
        loss: the window's mean loss.
        grad_norm: its gradient's norm.
    """
    what = f"the loss is {loss}" if loss != loss or abs(loss) == float("inf") else f"the gradient norm is {grad_norm}"
    where = f"step {state.step + 1} (epoch {state.epoch + 1}, batch {state.batch_idx + 1})"
    return f"{what} at {where}. {_cause(state, batch)}"


def _cause(state: TrainState, batch: Any) -> str:
    for path, leaf in leaves_with_paths(batch):
        if isinstance(leaf, torch.Tensor) and leaf.dtype.is_floating_point and not torch.isfinite(leaf).all():
            return f"The batch itself holds NaN or infinity (in its part {path!r}): look at the data"
    complaint = getattr(state.recipe.objective, "complaint", None)
    if complaint is not None:
        found, _ = state.recipe.network.apply(complaint, state.params, state.buffers, batch, training=False)
        if found is not None:
            return found[0].upper() + found[1:]
    return "Try a smaller learning rate, clip_norm=1.0, or a warm-up"
