"""Differentially private training: clipped gradients of single examples, and noise.

    g = (sum over the batch of clip(g_i, C)  +  N(0, (sigma C)^2 I)) / L

with g_i the gradient of example i's summed loss, C `max_grad_norm`, sigma `noise_multiplier` and L the expected number
of examples in a batch. What follows (optimizer, average, schedule) sees g alone, so it costs no privacy.

The state's objective is put into a `PrivateObjective`, whose `Loss` has exactly this gradient. So a private state
trains by `train_step`, compiled steps and `fit` like any other, and its noise follows from its key.

References: Abadi et al. 2016, "Deep Learning with Differential Privacy" (arXiv:1607.00133), algorithm 1.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from functrain.distributed import current_world
from functrain.foundation.errors import FunctrainError
from functrain.foundation.numbers import is_integer
from functrain.foundation.torch_internals import has_forward_hook
from functrain.objectives.examples import takes_lists
from functrain.objectives.loss import Loss
from functrain.optim import takes_two_gradients
from functrain.optim.checks import require_non_negative, require_positive
from functrain.step.collectives import ALONE
from functrain.step.network import Network
from functrain.step.state import Params, TrainState, require_state
from functrain.step.to_module import to_module
from functrain.transforms.examples import each_gradient, explained, norms_of, refuse_shared_statistics
from functrain.transforms.rows import rows_of


def private(
    state: TrainState,
    *,
    max_grad_norm: float,
    noise_multiplier: float,
    expected_batch_size: int,
    chunk_size: int | None = None,
) -> TrainState:
    """A state that trains with differential privacy: DP-SGD, with any optimizer.

    Train it on batches that are drawn as the accountant assumes, by `functrain.data.PoissonLoader`, and ask
    `privacy_spent` what it has cost. The privacy is that of single examples: their adding or removing. Of the numbers
    that a run reports, the loss, metrics and norms of the training data are not private; nor is what you choose after
    looking at them.

    An example whose loss or gradient is not finite counts as one with gradient 0. The step's loss is the mean over the
    examples that a batch really has.

    Args:
        state: between two updates, with `accumulate=1`.
        max_grad_norm: C, the norm to which each example's gradient is clipped, > 0.
        noise_multiplier: sigma, the noise's standard deviation in units of C, >= 0; 0 is clipping alone. See
            `noise_multiplier_for`.
        expected_batch_size: L, that of the loader.
        chunk_size: examples whose gradients are computed at a time, for less memory.

    Returns:
        The same state with another objective. `evaluate` and `predict` give what they give without.

    Raises:
        TypeError: an argument is no number, or the objective takes lists.
        ValueError: an argument is out of range, or the state cannot train privately (accumulation, fp16, `optim.sam`,
            statistics of activations, a state in shards, or one that is private already).
        FunctrainError: the network has BatchNorm in training mode.

    Example:
        >>> import functrain as ft
        >>> data = ft.data.Arrays(torch.randn(64, 2), torch.randn(64, 1))
        >>> loader = ft.data.PoissonLoader(data, batch_size=16)
        >>> state = ft.init_state(torch.nn.Linear(2, 1), ft.regression(), ft.optim.adam(0.01))
        >>> state = private(state, max_grad_norm=1.0, noise_multiplier=1.1, expected_batch_size=16)
        >>> ft.fit(state, loader, epochs=2, compile=False, progress=False).state.step
        8
    """
    require_state("private", state)
    require_positive("max_grad_norm", max_grad_norm)
    require_non_negative("noise_multiplier", noise_multiplier)
    for name, value in (("expected_batch_size", expected_batch_size), ("chunk_size", chunk_size)):
        if not (is_integer(value, 1) or (name == "chunk_size" and value is None)):
            raise ValueError(f"{name} must be a whole number of examples, 1 or more; got {value!r}")
    _refuse(state)
    objective = PrivateObjective(
        state.recipe.objective,
        Network(to_module(state)),
        float(max_grad_norm),
        float(noise_multiplier),
        expected_batch_size,
        chunk_size,
        state.step,
    )
    return state.replace(recipe=dataclasses.replace(state.recipe, objective=objective))


def _refuse(state: TrainState) -> None:
    recipe = state.recipe
    if takes_lists(recipe.objective):
        raise TypeError("private training needs batches of tensors; this objective takes lists (takes_lists)")
    refuse_shared_statistics(recipe.network)
    reasons = {
        "the state is private already": isinstance(recipe.objective, PrivateObjective),
        f"it accumulates (accumulate={recipe.accumulate}), which would add noise more than once. Set accumulate=1, and "
        "chunk_size for less memory": recipe.accumulate > 1,
        "it has a loss scale, which does not reach the gradients of single examples. Use precision='bf16' or 'fp32'": (
            state.loss_scale is not None
        ),
        "optim.sam takes a second gradient of each batch, which no accountant counts. Use the optimizer without it": (
            takes_two_gradients(state.opt_state)
        ),
        "it has statistics of activations, which single examples do not have. Set activations=False": (
            recipe.activations
        ),
        "it is trained by several processes, each of which would add noise": (
            recipe.collectives is not ALONE or recipe.exchange is not None
        ),
    }
    for reason, holds in reasons.items():
        if holds:
            raise ValueError(f"this state cannot be trained privately: {reason}")


@dataclasses.dataclass(frozen=True)
class PrivateObjective:
    """An objective whose gradient, over its weight, is that of DP-SGD.

    Attributes:
        objective: what it is made of; all else that it says of itself (its task, whether it takes weights) is true of
            this one.
        network: one like the state's, of its own: the state's is in use while the objective is called, and a copy that
            was made meanwhile would be a part of the graph that a compiler traces.
        max_grad_norm, noise_multiplier, expected_batch_size, chunk_size: as of `private`.
        first_step: the updates before privacy began.
    """

    objective: Callable[..., Any]
    network: Network
    max_grad_norm: float
    noise_multiplier: float
    expected_batch_size: int
    chunk_size: int | None
    first_step: int

    def __getattr__(self, name: str) -> Any:
        """What objectives say of themselves by attributes, `task` and the like, is the other one's."""
        if name.startswith("_") or name == "objective":
            raise AttributeError(name)
        return getattr(self.objective, name)

    def __call__(self, model: Any, batch: Any, **step: Tensor) -> Loss:
        """The loss of a batch: in evaluation mode the ordinary one."""
        if not model.training:
            loss: Loss = self.objective(model, batch, **step)
            return loss
        if current_world().size > 1:
            raise FunctrainError(
                f"a private state is trained by one process, and there are {current_world().size}: each would add "
                "noise of its own. Start one"
            )
        if has_forward_hook(model):  # metrics that were asked for see what the model returns for the whole batch
            with torch.no_grad():
                self.objective(model, batch, **step)
        params, buffers = dict(model.named_parameters()), dict(model.named_buffers())

        def loss_of(trainable: Params, batch: Any) -> Loss:
            def bound(model: Any, batch: Any) -> Any:
                return self.objective(model, batch, **step)

            return self.network.apply(bound, {**params, **trainable}, buffers, batch, training=True)[0]

        trainable = {name: params[name] for name in self.network.trainable}
        try:
            grads, sums = self._clipped(loss_of, trainable, batch)
        except RuntimeError as error:
            if (better := explained(error, self.network)) is not None:
                raise better from error
            raise
        return self._with_gradient(trainable, self._noisy(grads), sums)

    def _clipped(self, loss_of: Callable[..., Loss], params: Params, batch: Any) -> tuple[Params, dict[str, Any]]:
        """The sum of the clipped gradients, and the sums of loss and metrics, over the examples that are finite."""
        total: Params = {}
        sums: dict[str, Any] = {}
        rows = rows_of(batch, self.objective)
        for grads, found in each_gradient(loss_of, params, rows, chunk_size=self.chunk_size):
            norms = norms_of(grads)
            finite = norms.isfinite() & found["loss"][0].isfinite()
            factors = (self.max_grad_norm / norms.clamp(min=self.max_grad_norm)).to(norms.dtype)
            for name, grad in grads.items():
                kept = torch.where(finite.view(-1, *[1] * (grad.ndim - 1)), grad, 0.0)
                clipped = torch.einsum("b,b...->...", torch.where(finite, factors, 0.0), kept)
                total[name] = total[name] + clipped if name in total else clipped
            for name, (value, weight) in found.items():
                pair = [torch.where(finite, each, 0).sum() for each in (value, weight)]
                sums[name] = tuple(a + b for a, b in zip(sums[name], pair)) if name in sums else tuple(pair)
        return total, sums

    def _noisy(self, grads: Params) -> Params:
        deviation = self.noise_multiplier * self.max_grad_norm
        if not deviation:
            return grads
        return {name: grad + deviation * torch.randn_like(grad) for name, grad in grads.items()}

    def _with_gradient(self, params: Params, grads: Params, sums: dict[str, Any]) -> Loss:
        """A loss of weight L whose gradient is this sum, and whose mean is that of the examples there are."""
        (total, weight), metrics = sums["loss"], {name: pair for name, pair in sums.items() if name != "loss"}
        mean = torch.where(weight > 0, total / torch.where(weight > 0, weight, 1.0), 0.0)
        # Zero, elementwise and exactly, with the gradient `grads`.
        zero = torch.stack([((p - p.detach()) * grads[name]).sum() for name, p in params.items()]).sum()
        size = self.expected_batch_size
        return Loss(mean * size + zero, float(size), metrics)


def private_objective(state: TrainState) -> PrivateObjective:
    """The objective of a private state.

    Raises:
        FunctrainError: the state is not private.
    """
    found = state.recipe.objective
    if not isinstance(found, PrivateObjective):
        raise FunctrainError(
            "this state is not trained privately, so nothing bounds what it says of single examples. Make it private "
            "with functrain.transforms.private before it is trained"
        )
    return found
