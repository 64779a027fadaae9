"""Products with the Hessian of the mean loss.

    H v = d/dp (g(p) . v),    g the gradient of  (sum of losses) / (sum of weights)

by differentiating twice backwards (Pearlmutter 1994, "Fast Exact Multiplication by the Hessian"); H is never formed.
"""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from functrain.compiler import runner_for
from functrain.foundation.containers import register_containers
from functrain.foundation.dtypes import cast_floating
from functrain.foundation.keys import fold_in
from functrain.objectives.unfit import raise_explained
from functrain.step.execution import Core, Runner, eager, refuse_autocast, refuse_inference_mode
from functrain.step.objective import run_objective
from functrain.step.state import Params, TrainState, require_state
from functrain.transforms.batches import Batches
from functrain.transforms.per_sample import gradient_part
from functrain.transforms.vectors import checked_vector, trainable_params

Product = Callable[[Params], Params]


def hvp(state: TrainState, batch: Any, vector: Params, *, run: Runner = eager) -> Params:
    """The product of a vector with the Hessian of a batch's mean loss, the model in evaluation mode.

    Evaluation mode makes the loss one function of the parameters: no dropout, BatchNorm by its running statistics.

    Args:
        state: any state; not changed.
        batch: what the objective takes.
        vector: name -> tensor like each trainable parameter.
        run: what executes it; `functrain.compile` sets it.

    Returns:
        Name -> tensor, in the parameters' shapes and dtypes; zeros for a parameter that the gradient does not depend
        on.

    Raises:
        TypeError, ValueError: the vector is not like the trainable parameters.

    References:
        Pearlmutter 1994, "Fast Exact Multiplication by the Hessian", section 3.

    Example:
        >>> import functrain as ft
        >>> state = ft.init_state(torch.nn.Linear(2, 1, bias=False), ft.regression(), ft.optim.sgd(0.1))
        >>> batch = (torch.tensor([[1.0, 2.0]]), torch.zeros(1, 1))
        >>> ft.transforms.hvp(state, batch, {"weight": torch.tensor([[1.0, 0.0]])})  # 2 x x' v
        {'weight': tensor([[2., 4.]])}
    """
    require_state("hvp", state)
    vector = checked_vector(vector, trainable_params(state))
    found, weight = _product(gradient_part(state), batch, vector, run)
    return _over(found, weight)


def hessian_of(state: TrainState, loader: Any, *, compile: bool) -> Product:
    """The product with the Hessian of the mean loss over a loader, as a function of the vector.

    Args:
        state: any state.
        loader: as for `fit`; read once for each product.
        compile: compile the product first.
    """
    part, run = gradient_part(state), runner_for(compile)
    batches: Iterable[Any] = loader if isinstance(loader, Batches) else Batches(state, loader)

    def product(vector: Params) -> Params:
        total: Params | None = None
        weights: list[Tensor] = []
        for batch in batches:
            found, weight = _product(part, batch, vector, run)
            total = found if total is None else {name: total[name] + found[name] for name in total}
            weights.append(weight)
        assert total is not None  # there is a batch, else the loader has raised
        return _over(total, torch.stack(weights).sum())

    return product


def _over(total: Params, weight: Tensor) -> Params:
    divisor = torch.where(weight > 0, weight, 1.0)
    return {name: (leaf / divisor).to(leaf.dtype) for name, leaf in total.items()}


def _product(state: TrainState, batch: Any, vector: Params, run: Runner) -> tuple[Params, Tensor]:
    """The product with the Hessian of a batch's summed loss, and its weight, 0-d float64."""
    refuse_autocast(state.device)
    refuse_inference_mode()
    register_containers(batch)
    key = partial(fold_in, state.key, "evaluate", state.step)
    try:
        found: tuple[Params, Tensor] = run(HESSIAN, state, (batch, vector), key=key, device=state.device)
    except Exception as error:
        raise_explained(error, batch, state.recipe.objective)
    return found


def mean_sums(state: TrainState, params: Params, batch: Any) -> tuple[Tensor, Tensor]:
    """A batch's summed loss as a function of the trainable parameters, in evaluation mode, and its weight, float64.

    To be differentiated more than once: attention is computed by plain arithmetic, which alone allows that.
    """
    batch = cast_floating(batch, state.recipe.param_dtype)
    whole = state.recipe.collectives.gather(state.params)
    with sdpa_kernel(SDPBackend.MATH):
        loss, _ = run_objective(state, {**whole, **params}, state.buffers, batch, training=False)
    weight = torch.as_tensor(loss.weight, dtype=torch.float64, device=loss.total.device)
    return loss.total.to(state.recipe.param_dtype), weight.detach()


def _hessian(state: TrainState, batch: tuple[Any, Params]) -> tuple[Params, Tensor]:
    examples, vector = batch
    with torch.enable_grad():
        leaves = {name: p.detach().requires_grad_() for name, p in trainable_params(state).items()}
        total, weight = mean_sums(state, leaves, examples)
        slope = _directional(total, leaves, vector)
        found: tuple[Tensor | None, ...] = (None,) * len(leaves)
        if slope is not None and slope.requires_grad:
            found = torch.autograd.grad(slope, list(leaves.values()), allow_unused=True)
    products = {n: torch.zeros_like(p) if h is None else h for (n, p), h in zip(leaves.items(), found)}
    return {name: leaf.detach() for name, leaf in products.items()}, weight


def _directional(total: Tensor, leaves: Params, vector: Params) -> Tensor | None:
    """The derivative of the loss along a vector; None if it depends on no parameter."""
    if not total.requires_grad:
        return None
    grads = torch.autograd.grad(total, list(leaves.values()), create_graph=True, allow_unused=True)
    parts = [(grad * vector[name]).sum() for name, grad in zip(leaves, grads) if grad is not None]
    return torch.stack(parts).sum() if parts else None


HESSIAN = Core(_hessian, "hessian", carries_state=False)
