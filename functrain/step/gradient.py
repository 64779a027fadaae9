"""The gradient of one micro-batch, as sums."""

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, NamedTuple

import torch
from torch import Tensor

from functrain.foundation.dtypes import cast_floating
from functrain.foundation.errors import FunctrainError
from functrain.foundation.torch_internals import inside_transform, is_eager, is_readable
from functrain.foundation.trees import flatten, tree_map, unflatten
from functrain.metrics.layer_statistics import Statistics
from functrain.metrics.measuring import received, sent
from functrain.metrics.totals import Totals
from functrain.objectives.loss import Loss
from functrain.optim import ascended_params
from functrain.optim.foreach import are_ours, foreach, overwrite
from functrain.step.activations import Seen, activation_statistics
from functrain.step.collectives import ALONE, Collectives
from functrain.step.execution import RunAgainError
from functrain.step.network import Network
from functrain.step.objective import run_objective
from functrain.step.scaling import weight_normaliser
from functrain.step.state import Params, TrainState
from functrain.step.used import Used, depends_on


class Pass(NamedTuple):
    """What a micro-batch's two passes give.

    Attributes:
        grads: gradient of the summed loss, unscaled; zeros for a parameter that is not used.
        used: which parameters are.
        totals: the metric sums.
        buffers: after the forward pass.
        activations: statistics of what each module gave out, if asked for.
    """

    grads: Params
    used: Used
    totals: Totals
    buffers: Params
    activations: Statistics | None


def gradient(state: TrainState, batch: Any, buffers: Params, *, watch: bool = False) -> Pass:
    """Both passes of a micro-batch; with statistics of what each module gives out if `watch`."""
    recipe = state.recipe
    whole = recipe.collectives.gather(state.params)
    trainable = {name: whole[name] for name in recipe.network.trainable}
    batch = cast_floating(batch, recipe.param_dtype)

    def scaled_total(trainable: Params) -> tuple[Tensor, tuple[Totals, Any, Params, Any]]:
        params = {**whole, **trainable}
        seen: Seen | None = {} if watch else None
        loss, new_buffers = run_objective(state, params, buffers, batch, training=True, seen=seen, until=until)
        _refuse_without_gradient(loss)
        total = loss.total.to(recipe.param_dtype)
        factor: Any = ()  # torch.func takes no None here
        if state.loss_scale is not None:
            factor = state.loss_scale.scale / weight_normaliser(torch.as_tensor(loss.weight))
            total = total * factor
        return total, (loss.totals(), factor, new_buffers, () if seen is None else activation_statistics(seen))

    with ExitStack() as until:  # the end of the backward pass, in which a model's own code may read its parameters
        grads, here, (totals, factor, new_buffers, activations) = _differentiate_network(
            recipe.network, scaled_total, trainable
        )
    if state.loss_scale is not None:
        grads = divided(grads, factor)
    is_alone = recipe.collectives is ALONE
    if state.accumulator is not None or not is_alone or recipe.exchange is not None:
        grads, totals = _counted(grads, totals)
    mine = Pass(grads, Used(here), totals, new_buffers, activations if watch else None)
    return mine if is_alone else _over_ranks(recipe.collectives, mine)


Differentiated = tuple[Params, tuple[bool, ...], Any]
_NOT_IN_A_TRANSFORM = ("saved tensor hooks", "setup_context", "does not have vmap support")  # torch's words, by release


def _differentiate_network(
    network: Network, fn: Callable[[Params], tuple[Tensor, Any]], params: Params
) -> Differentiated:
    """`differentiate`, and finding out how a network must be."""
    try:
        return differentiate(fn, params, by_backward=network.calls_backward)
    except RuntimeError as error:
        if inside_transform() and any(reason in str(error) for reason in _NOT_IN_A_TRANSFORM):
            raise FunctrainError(
                f"{network.name} has code that torch.func cannot differentiate, so its steps cannot run within "
                "torch.vmap: switch off the model's own activation checkpointing, or give its autograd.Function a "
                f"setup_context. torch said: {error}"
            ) from error
        if network.calls_backward or "compatible with .grad()" not in str(error):
            raise
        network.calls_backward = True
        raise RunAgainError from error


def gradient_uphill(state: TrainState, batch: Any, grads: Params) -> tuple[Params, Used, Tensor]:
    """The mean gradient at the point that `optim.sam` climbs to.

    Args:
        state: the state before the update. The pass begins with its buffers, and what it leaves is thrown away.
        batch: of the first gradient; what a network draws at random is drawn anew.
        grads: the mean gradient at the state's parameters.

    Returns:
        The gradient; which parameters it used; and whether the first one was finite, 0-d bool: a network may hide a
        parameter that is not.
    """
    trainable = {name: state.params[name] for name in state.recipe.network.trainable}
    uphill = ascended_params(state.opt_state, trainable, grads)
    again = gradient(state.replace(params={**state.params, **uphill}), batch, state.buffers)
    weight = again.totals.weight
    mean = divided(again.grads, torch.where(weight > 0, weight, 1.0))
    return mean, again.used, state.recipe.collectives.norm(grads).isfinite()


def differentiate(
    fn: Callable[[Params], tuple[Tensor, Any]], params: Params, *, by_backward: bool = False
) -> Differentiated:
    """Gradient of the first result of `fn` with respect to `params`; which of them it depends on; the second result.

    A parameter that the result does not depend on has gradient zero. Within a transform of torch.func (a vmap
    over states) it must be torch.func's; elsewhere autograd's own, which does not keep a graph of the backward pass
    itself (time and memory of an eager step) nor import Dynamo (a second of a program's start). `by_backward` is for
    code that calls `backward()` within the backward pass: torch lets it only where all leaves get their gradient, and
    copies some gradients once more.
    """
    if inside_transform():
        return _differentiate_in_transform(fn, params)
    with torch.enable_grad():
        leaves = {name: p.detach().requires_grad_() for name, p in params.items()}
        total, aux = fn(leaves)
        found: tuple[Tensor | None, ...] = (None,) * len(params)
        if total.requires_grad and by_backward:
            total.backward()
            found = tuple([leaf.grad for leaf in leaves.values()])
        elif total.requires_grad:
            found = torch.autograd.grad(total, list(leaves.values()), allow_unused=True)
    used = tuple([grad is not None for grad in found])
    grads = {name: torch.zeros_like(p) if g is None else _dense(g) for (name, p), g in zip(params.items(), found)}
    return grads, used, tree_map(lambda x: x.detach() if isinstance(x, Tensor) else x, aux)


def _dense(grad: Tensor) -> Tensor:
    """Of a table, nn.Embedding(sparse=True), it is sparse."""
    return grad.to_dense() if grad.is_sparse else grad


def _differentiate_in_transform(fn: Callable[[Params], tuple[Tensor, Any]], params: Params) -> Differentiated:
    """`differentiate` by torch.func, which has zeros for what is not used: the graph of the result tells.

    Of the second result torch.func takes tensors only; what else is in it stays beside.
    """
    used: tuple[bool, ...] = ()
    leaf_list: list[Any] = []
    spec: Any = None

    def noting(params: Params) -> tuple[Tensor, list[Tensor]]:
        nonlocal used, leaf_list, spec
        total, aux = fn(params)
        used = depends_on(total, list(params.values()))
        leaf_list, spec = flatten(aux)
        return total, [leaf for leaf in leaf_list if isinstance(leaf, Tensor)]

    grads, (_, tensors) = torch.func.grad_and_value(noting, has_aux=True)(params)
    rest = iter(tensors)
    return grads, used, unflatten(spec, [next(rest) if isinstance(leaf, Tensor) else leaf for leaf in leaf_list])


def _counted(grads: Params, totals: Totals) -> tuple[Params, Totals]:
    """What a micro-batch adds to those of others: nothing if its weights sum to 0 and its loss is not finite.

    A model that takes the mean of its loss itself divides 0 by 0 there, and no factor of 0 removes a NaN.
    """
    counts = (totals.weight != 0) | totals.sums[0, 0].isfinite()
    totals = totals.counted()
    if not is_readable(counts):
        return {name: torch.where(counts, grad, 0.0) for name, grad in grads.items()}, totals
    return (grads if counts.item() else {name: torch.zeros_like(grad) for name, grad in grads.items()}), totals


def _over_ranks(collectives: Collectives, mine: Pass) -> Pass:
    """Sums over all ranks, so that every rank goes on with the same state; BatchNorm statistics are averaged."""
    sums, averaged = mine.totals.sums, {name: b for name, b in mine.buffers.items() if b.dtype.is_floating_point}
    flags = torch.tensor(mine.used.here, dtype=sums.dtype, device=sums.device)
    own = mine.totals.measured
    held = () if own is None else sent(own, collectives.rank, collectives.ranks)
    parts, spec = flatten(held)
    grads, (sums, *rest) = collectives.reduce(mine.grads, [sums, *averaged.values(), flags, *parts])
    buffers, flags, parts = rest[: len(averaged)], rest[len(averaged)], rest[len(averaged) + 1 :]
    measured = None if own is None else received(own, unflatten(spec, parts), collectives.ranks)
    return mine._replace(
        grads=grads,
        totals=Totals(sums, mine.totals.names, measured),
        buffers={**mine.buffers, **{name: buffer / collectives.ranks for name, buffer in zip(averaged, buffers)}},
        used=Used(mine.used.here, flags > 0),
    )


def _refuse_without_gradient(loss: Loss) -> None:
    """Refuse a loss that no parameter has a part in, unless it weighs nothing: it would train nothing."""
    if loss.total.requires_grad:
        return
    weightless = (not isinstance(loss.weight, Tensor) or is_eager()) and float(loss.weight) == 0
    if not weightless:
        raise FunctrainError(
            "the loss has no gradient: Loss.total does not depend on any trainable parameter, so the step would train "
            "nothing. Compute it from the model's outputs, without detach(), item() or torch.no_grad(), and leave "
            "requires_grad=True for at least one parameter that it uses"
        )


def divided(grads: Params, divisor: Tensor) -> Params:
    """Every gradient over a 0-d tensor. `grads` is emptied: memory that nobody else holds is written again.

    A fresh result costs an eager step a write to new memory, as much as the division.
    """
    names, values = list(grads), list(grads.values())
    grads.clear()
    divide = overwrite if are_ours(values) and all(value.is_contiguous() for value in values) else foreach
    return dict(zip(names, divide("div", values, divisor.to(values[0].dtype))))
