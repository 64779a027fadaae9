"""Gradients through training: of an evaluation loss after k updates, with respect to what they began with.

    d/dx  L_eval( step(... step(state(x), b_1) ..., b_k) )

A step is a pure function, so `torch.func.grad` differentiates k of them: by reverse mode, with all of their graphs in
memory. Random draws follow from the state's key and are the same on each call.
"""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import optree
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode

from functrain.foundation import trees
from functrain.foundation.containers import register_containers
from functrain.optim import LearningRateState, learning_rates
from functrain.step import train_step
from functrain.step.execution import refuse_autocast, refuse_inference_mode
from functrain.step.state import Params, TrainState, require_state
from functrain.transforms.hessian import mean_sums
from functrain.transforms.vectors import trainable_params

OF = ("params", "lr")


@dataclass(frozen=True)
class Unrolled:
    """What training leads to, and how that depends on its beginning.

    Attributes:
        loss: the mean loss of the evaluation batch after the updates, 0-d.
        gradient: of that loss. With respect to the initial parameters: name -> tensor like each trainable one; with
            respect to the learning rates: float64 `[k]`, or `[k, groups]` of an optimizer with several.
        lr: the learning rate of each update, in the form of that gradient; None if the optimizer has none.
        state: after the updates.
    """

    loss: Tensor
    gradient: Any
    lr: Tensor | None
    state: TrainState


def unroll(state: TrainState, batches: Sequence[Any], eval_batch: Any, *, of: str = "params") -> Unrolled:
    """Train on some batches, and differentiate the evaluation loss through all of the updates.

    The gradient with respect to the initial parameters is the meta-gradient of MAML, second derivatives included. That
    with respect to the learning rates says for each update whether it should have been longer.

    BatchNorm's running statistics count as constants, since torch does not differentiate them.

    Args:
        state: before the first update, not within an accumulation window.
        batches: of the updates, in order; with accumulation, as many micro-batches as fill windows.
        eval_batch: its loss is evaluated at the end, the model in evaluation mode.
        of: "params" or "lr".

    Raises:
        ValueError: there is no batch, the windows are not full, `of` is neither, or the optimizer has no learning rate.

    References:
        Maclaurin, Duvenaud and Adams 2015, "Gradient-based Hyperparameter Optimization through Reversible Learning";
        Finn, Abbeel and Levine 2017, "Model-Agnostic Meta-Learning for Fast Adaptation of Deep Networks".

    Example:
        >>> import functrain as ft
        >>> state = ft.init_state(torch.nn.Linear(1, 1, bias=False), ft.regression(), ft.optim.sgd(0.1))
        >>> state = state.replace(params={"weight": torch.tensor([[1.0]])})
        >>> batch = (torch.ones(1, 1), torch.zeros(1, 1))  # the loss is w^2, an update w -> 0.8 w
        >>> found = ft.transforms.unroll(state, [batch, batch], batch)
        >>> found.loss, found.gradient  # 0.8^4 w^2
        (tensor(0.4096), {'weight': tensor([[0.8192]])})
        >>> ft.transforms.unroll(state, [batch, batch], batch, of="lr").gradient
        tensor([-2.0480, -2.0480], dtype=torch.float64)
    """
    _check(state, batches, of)
    refuse_autocast(state.device)
    refuse_inference_mode()
    register_containers(eval_batch)
    if of == "params":
        return _differentiated(_with_params, trainable_params(state), state, batches, eval_batch)
    updates = len(batches) // state.recipe.accumulate
    factors = torch.ones(updates, len(learning_rates(state.opt_state)), dtype=torch.float64, device=state.device)
    found = _differentiated(_with_factors, factors, state, batches, eval_batch)
    assert found.lr is not None
    gradient = found.gradient.view(len(factors), *found.lr.shape[1:]) / found.lr
    return dataclasses.replace(found, gradient=gradient)


def _with_params(params: Params, state: TrainState, update: int) -> TrainState:
    return state.replace(params={**state.params, **params}) if update == 0 else state


def _with_factors(factors: Tensor, state: TrainState, update: int) -> TrainState:
    """The state whose next update has its learning rates times a row of factors `[k, groups]`."""
    row = iter(factors[update])

    def scaled(part: Any) -> Any:
        return dataclasses.replace(part, reduction=part.reduction * next(row)) if _is_rate(part) else part

    return state.replace(opt_state=_over_rates(scaled, state.opt_state))


def _without_factors(state: TrainState, before: TrainState) -> TrainState:
    """The state with the reductions of its learning rates as they were before."""
    parts = iter(optree.tree_leaves(before.opt_state, is_leaf=_is_rate, namespace=trees.NAMESPACE))

    def restored(part: Any) -> Any:
        own = next(parts)
        return dataclasses.replace(part, reduction=own.reduction) if _is_rate(part) else part

    return state.replace(opt_state=_over_rates(restored, state.opt_state))


def _over_rates(fn: Callable[[Any], Any], opt_state: Any) -> Any:
    return optree.tree_map(fn, opt_state, is_leaf=_is_rate, namespace=trees.NAMESPACE)


def _is_rate(part: Any) -> bool:
    return isinstance(part, LearningRateState)


def _differentiated(
    place: Callable[[Any, TrainState, int], TrainState],
    variable: Any,
    start: TrainState,
    batches: Sequence[Any],
    eval_batch: Any,
) -> Unrolled:
    """What training leads to, and the gradient with respect to what `place` puts into a state before each update."""
    leaves: list[Any] = []
    spec: Any = None

    def outcome(variable: Any) -> tuple[Tensor, tuple[list[Tensor], Tensor]]:
        nonlocal leaves, spec
        state, rates = start, []
        for batch in batches:
            if state.micro_step == 0:
                before, state = state, place(variable, state, state.step - start.step)
            state, _ = train_step(state, batch)
            if state.micro_step == 0:
                rates.append(torch.stack(learning_rates(state.opt_state) or [torch.zeros(())]))
                state = _without_factors(state, before)
        total, weight = mean_sums(state, trainable_params(state), eval_batch)
        leaves, spec = trees.flatten(state)
        tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
        return total / torch.where(weight > 0, weight, 1.0), (tensors, torch.stack(rates))

    with sdpa_kernel(SDPBackend.MATH), _FiniteRoots():
        gradient, (loss, (tensors, rates)) = torch.func.grad_and_value(outcome, has_aux=True)(variable)
    given = iter(tensors)
    state = trees.unflatten(spec, [next(given) if isinstance(leaf, Tensor) else leaf for leaf in leaves])
    lr = (rates[:, 0] if rates.shape[1] == 1 else rates) if learning_rates(start.opt_state) else None
    return Unrolled(loss.to(start.recipe.param_dtype), gradient, lr, state)


class _FiniteRoots(TorchFunctionMode):
    """Square roots whose derivative at 0 is 0.

    Adam divides by `sqrt(v) + eps`, and v is 0 where no gradient was: there torch's derivative, infinity times 0, is
    NaN. That of the quotient is finite, and this is it: the gradient's first moment over eps.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call `func`, or take the root."""
        if func not in (torch.sqrt, Tensor.sqrt) or kwargs:
            return func(*args, **(kwargs or {}))
        positive = args[0] > 0
        root = torch.where(positive, args[0], 1.0)
        return torch.where(positive, func(root), func(args[0].detach()))


def _check(state: TrainState, batches: Sequence[Any], of: str) -> None:
    require_state("unroll", state)
    if of not in OF:
        raise ValueError(f"of must be 'params' or 'lr'; got {of!r}")
    if state.micro_step:
        raise ValueError("the state is within an accumulation window; give one between two updates")
    if not batches or len(batches) % state.recipe.accumulate:
        raise ValueError(
            f"batches must fill one or more windows of {state.recipe.accumulate} (accumulate); got {len(batches)}"
        )
    if of == "lr" and not learning_rates(state.opt_state):
        raise ValueError("this optimizer has no learning rate to differentiate by; take of='params'")
