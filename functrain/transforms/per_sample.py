"""Gradients of single examples, and their norms."""

import dataclasses
from collections.abc import Callable, Iterator
from functools import lru_cache, partial
from typing import Any

import torch
from torch import Tensor

from functrain.foundation.containers import register_containers
from functrain.foundation.dtypes import cast_floating
from functrain.foundation.keys import fold_in
from functrain.foundation.numbers import is_integer
from functrain.objectives.loss import Loss
from functrain.objectives.unfit import raise_explained
from functrain.step.execution import Core, Runner, eager, refuse_autocast, refuse_inference_mode
from functrain.step.objective import run_objective
from functrain.step.state import Params, TrainState, require_state, whole
from functrain.transforms.examples import each_gradient, explained, norms_of, refuse_shared_statistics
from functrain.transforms.private import PrivateObjective
from functrain.transforms.rows import rows_of


def per_sample_gradients(
    state: TrainState, batch: Any, *, chunk_size: int | None = None, run: Runner = eager
) -> Params:
    """The gradient of each example's own loss, in training mode.

    The examples' gradients add up to that of the batch's summed loss, `Loss.total`; divided by the sum of weights that
    is the gradient of the step. Each example has its own draws of dropout, from the state's key. An example of weight w
    has w times the gradient of its loss.

    Compiled, `ft.compile(per_sample_gradients)`, it takes a fraction of the time.

    Args:
        state: any state; not changed.
        batch: what the objective takes: tensors with a row for each of B examples. The loss must be a sum over them.
        chunk_size: examples that are computed at a time: less memory besides the result. 1 needs no `torch.func.vmap`
            and suits every network. None: all B.
        run: what executes it; `functrain.compile` sets it.

    Returns:
        Name -> gradients `[B, *shape]` of each trainable parameter, in its dtype.

    Raises:
        FunctrainError: the network has BatchNorm in training mode, or code that `torch.func.vmap` cannot compute.
        TypeError: the batch cannot be cut into examples.
        ValueError: `chunk_size` is not 1 or more.

    Example:
        >>> import functrain as ft
        >>> state = ft.init_state(torch.nn.Linear(2, 1, bias=False), ft.regression(), ft.optim.sgd(0.1))
        >>> batch = (torch.tensor([[1.0, 0.0], [0.0, 2.0]]), torch.zeros(2, 1))
        >>> ft.transforms.per_sample_gradients(state, batch)["weight"].shape
        torch.Size([2, 1, 2])
    """
    return _in_training("per_sample_gradients", _stacked, state, batch, chunk_size, run)


def per_sample_gradient_norms(
    state: TrainState, batch: Any, *, chunk_size: int | None = None, run: Runner = eager
) -> Tensor:
    """The norm of each example's gradient, all trainable parameters as one vector.

    A large norm marks an example that is hard, rare or labelled wrongly. Compiled, the gradients themselves are not
    stored.

    Args:
        state, batch, chunk_size, run: as of `per_sample_gradients`.

    Returns:
        `[B]`, in the parameters' dtype.

    Raises:
        FunctrainError, TypeError, ValueError: as `per_sample_gradients`.

    Example:
        >>> import functrain as ft
        >>> state = ft.init_state(torch.nn.Linear(2, 1), ft.regression(), ft.optim.sgd(0.1))
        >>> ft.transforms.per_sample_gradient_norms(state, (torch.ones(3, 2), torch.zeros(3, 1))).shape
        torch.Size([3])
    """
    return _in_training("per_sample_gradient_norms", _norms, state, batch, chunk_size, run)


def evaluated_gradients(state: TrainState, batch: Any, *, chunk_size: int | None = None, run: Runner = eager) -> Params:
    """As `per_sample_gradients`, the model in evaluation mode: no dropout, and BatchNorm by its running statistics."""
    key = partial(fold_in, state.key, "evaluate", state.step)
    found: Params = run_over_examples(_core(_evaluated, chunk_size), gradient_part(state), batch, key, run)
    return found


def _in_training(
    name: str, fn: Callable[..., Any], state: TrainState, batch: Any, chunk_size: int | None, run: Runner
) -> Any:
    require_state(name, state)
    if chunk_size is not None and not is_integer(chunk_size, 1):
        raise ValueError(f"chunk_size must be a whole number of examples, 1 or more, or None; got {chunk_size!r}")
    refuse_shared_statistics(state.recipe.network)
    key = partial(fold_in, state.key, "step", state.step, state.micro_step, state.recipe.collectives.rank)
    return run_over_examples(_core(fn, chunk_size), gradient_part(state), batch, key, run)


def run_over_examples(core: Core, state: TrainState, batch: Any, key: Callable[[], int], run: Runner) -> Any:
    """What a core gives that computes gradients of single examples.

    Raises:
        FunctrainError: the network has code that `torch.func.vmap` cannot compute.
        TypeError: the batch cannot be cut into examples.
    """
    refuse_autocast(state.device)
    refuse_inference_mode()
    register_containers(batch)
    try:
        return run(core, state, batch, key=key, device=state.device)
    except RuntimeError as error:
        if (better := explained(error, state.recipe.network)) is not None:
            raise better from error
        raise_explained(error, batch, state.recipe.objective)
    except Exception as error:
        raise_explained(error, batch, state.recipe.objective)


@lru_cache(maxsize=64)
def _core(fn: Callable[..., Any], chunk_size: int | None) -> Core:
    return Core(partial(fn, chunk_size=chunk_size), fn.__name__.strip("_"), carries_state=False)


def gradient_part(state: TrainState) -> TrainState:
    """What a gradient needs of a state: whole leaves, the loss without privacy, and none of an update's own."""
    objective = state.recipe.objective
    if isinstance(objective, PrivateObjective):
        state = state.replace(recipe=dataclasses.replace(state.recipe, objective=objective.objective))
    return whole(state).replace(opt_state=(), accumulator=None, epoch_metrics=None, ema=None, loss_scale=None)


def chunks_of(
    state: TrainState, batch: Any, chunk_size: int | None, *, training: bool
) -> Iterator[tuple[Params, dict[str, tuple[Tensor, Tensor]]]]:
    """The gradients of a batch's examples and their sums, chunk by chunk; see `each_gradient`."""
    recipe = state.recipe
    params = recipe.collectives.gather(state.params)

    def loss_of(trainable: Params, batch: Any) -> Loss:
        return run_objective(state, {**params, **trainable}, state.buffers, batch, training=training)[0]

    rows = rows_of(cast_floating(batch, recipe.param_dtype), recipe.objective)
    trainable = {name: params[name] for name in recipe.network.trainable}
    return each_gradient(loss_of, trainable, rows, chunk_size=chunk_size)


def _joined(chunks: Any) -> Params:
    found = [grads for grads, _ in chunks]
    return found[0] if len(found) == 1 else {name: torch.cat([grads[name] for grads in found]) for name in found[0]}


def _stacked(state: TrainState, batch: Any, *, chunk_size: int | None) -> Params:
    return _joined(chunks_of(state, batch, chunk_size, training=True))


def _evaluated(state: TrainState, batch: Any, *, chunk_size: int | None) -> Params:
    return _joined(chunks_of(state, batch, chunk_size, training=False))


def _norms(state: TrainState, batch: Any, *, chunk_size: int | None) -> Tensor:
    return torch.cat([norms_of(grads) for grads, _ in chunks_of(state, batch, chunk_size, training=True)])
