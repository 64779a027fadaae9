"""The influence of training examples on a test loss.

    I_i = g_test' (H + damping I)^-1 g_i / W

g_i is the gradient of example i's summed loss, W the sum of the training weights, H the Hessian of the mean training
loss and g_test the gradient of the mean test loss. At a minimum, I_i is to first order by how much the test loss would
rise if example i were left out (Koh and Liang 2017, "Understanding Black-box Predictions via Influence Functions",
equation 2, with the opposite sign of their up-weighting, over W).
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from functrain.compiler import runner_for
from functrain.foundation.keys import fold_in
from functrain.foundation.numbers import is_integer
from functrain.objectives.unfit import raise_explained
from functrain.optim.checks import require_non_negative
from functrain.step.execution import Core, Runner
from functrain.step.gradient import differentiate
from functrain.step.state import Params, TrainState, require_state
from functrain.transforms.batches import Batches
from functrain.transforms.conjugate_gradients import solve
from functrain.transforms.hessian import hessian_of, mean_sums
from functrain.transforms.per_sample import evaluated_gradients, gradient_part
from functrain.transforms.vectors import trainable_params


@dataclass(frozen=True)
class Influence:
    """The influence of each training example on a test loss.

    Attributes:
        values: in the order of the loader's first pass, float64 `[N]`: by how much the mean test loss would rise, to
            first order, if the example were left out. Positive examples help, negative ones harm.
        residual: of the linear system, relative: what the tolerance allowed, or more if `max_steps` ended it.
        steps: products with the Hessian.
    """

    values: Tensor
    residual: float
    steps: int


def influence(
    state: TrainState,
    loader: Any,
    test_batch: Any,
    *,
    damping: float = 0.01,
    tolerance: float = 1e-5,
    max_steps: int = 100,
    chunk_size: int | None = None,
    compile: bool = False,
) -> Influence:
    """By how much the loss of a test batch would rise if each training example were left out.

    The model is in evaluation mode. The estimate is exact in the limit of many examples at a minimum of a convex loss;
    for deep networks it is known to be rough (Basu, Pope and Feizi 2021, "Influence Functions in Deep Learning Are
    Fragile"): take it as a ranking.

    Args:
        state: trained, near a minimum of the training loss; not changed.
        loader: the training data, in an order that you know, such as `ft.data.Loader(data, 64, shuffle=False)` or a
            list. All of it is read at each of the steps.
        test_batch: one batch of the examples whose mean loss is of interest.
        damping: added to the Hessian's diagonal, >= 0, so that it is positive definite; as weight decay would do.
        tolerance: relative residual at which conjugate gradients end.
        max_steps: or after so many products with the Hessian.
        chunk_size, compile: as of `per_sample_gradients`, and whether to compile the gradients and products first.

    Raises:
        FunctrainError: the damped Hessian is not positive definite.
        ValueError: an argument is out of range.
        DataError: the loader gives no batch.

    References:
        Koh and Liang 2017, "Understanding Black-box Predictions via Influence Functions", sections 2 and 3.

    Example:
        >>> import functrain as ft
        >>> net = torch.nn.Linear(1, 1, bias=False)
        >>> _ = torch.nn.init.constant_(net.weight, 2.0)  # the minimum: the mean of 1 and 3
        >>> state = ft.init_state(net, ft.regression(), ft.optim.sgd(0.1))
        >>> train = [(torch.ones(2, 1), torch.tensor([[1.0], [3.0]]))]
        >>> influence(state, train, (torch.ones(1, 1), torch.tensor([[4.0]])), damping=0.0).values
        tensor([-2.,  2.], dtype=torch.float64)
    """
    require_state("influence", state)
    require_non_negative("damping", damping)
    require_non_negative("tolerance", tolerance)
    if not is_integer(max_steps, 1):
        raise ValueError(f"max_steps must be a whole number of products, 1 or more; got {max_steps!r}")
    batches, run = Batches(state, loader), runner_for(compile)
    slope, test_weight = _gradient(state, test_batch, run)
    right = {name: grad / torch.where(test_weight > 0, test_weight, 1.0).to(grad.dtype) for name, grad in slope.items()}
    product = hessian_of(state, batches, compile=compile)
    solved = solve(product, right, damping=damping, tolerance=tolerance, max_steps=max_steps)
    values, weights = [], []
    for batch in batches:
        grads = evaluated_gradients(state, batch, chunk_size=chunk_size, run=run)
        values.append(_inner(grads, solved.vector))
        weights.append(_gradient(state, batch, run)[1])
    total = torch.stack(weights).sum()
    return Influence(torch.cat(values) / torch.where(total > 0, total, math.inf), solved.residual, solved.steps)


def _inner(grads: Params, vector: Params) -> Tensor:
    """The inner product of each example's gradient with a vector, float64 `[B]`."""
    parts = [grad.reshape(len(grad), -1).double() @ vector[name].reshape(-1).double() for name, grad in grads.items()]
    return torch.stack(parts).sum(0)


def _gradient(state: TrainState, batch: Any, run: Runner) -> tuple[Params, Tensor]:
    try:
        found: tuple[Params, Tensor] = run(
            _GRADIENT,
            gradient_part(state),
            batch,
            key=lambda: fold_in(state.key, "evaluate", state.step),
            device=state.device,
        )
    except Exception as error:
        raise_explained(error, batch, state.recipe.objective)
    return found


def _summed(state: TrainState, batch: Any) -> tuple[Params, Tensor]:
    """The gradient of a batch's summed loss in evaluation mode, and its weight."""
    grads, _, weight = differentiate(lambda params: mean_sums(state, params, batch), trainable_params(state))
    return grads, weight


_GRADIENT = Core(_summed, "gradient", carries_state=False)
