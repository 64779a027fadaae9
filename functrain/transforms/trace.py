"""The trace of the Hessian, from products with random vectors."""

from dataclasses import dataclass
from typing import Any

import torch

from functrain.foundation.keys import fold_in, root_key
from functrain.foundation.numbers import is_integer
from functrain.step.state import TrainState, require_state
from functrain.transforms.hessian import hessian_of
from functrain.transforms.vectors import dot, random_signs, trainable_params


@dataclass(frozen=True)
class Trace:
    """An estimate of a trace.

    Attributes:
        value: the mean over the samples.
        standard_error: of the mean; NaN for one sample.
        samples: products with the Hessian.
    """

    value: float
    standard_error: float
    samples: int


def hutchinson_trace(
    state: TrainState, loader: Any, *, samples: int = 100, seed: int = 0, compile: bool = False
) -> Trace:
    """The trace of the Hessian of the mean loss over a loader, the model in evaluation mode.

    The mean of `v' H v` over vectors v of random signs. It is unbiased, and exact for a diagonal Hessian; its variance
    is twice the sum of the squares off the diagonal.

    Args:
        state: any state; not changed.
        loader: as for `fit`; all of its first pass is read for each sample.
        samples: vectors, 1 or more.
        seed: of the vectors.
        compile: compile the product with the Hessian first.

    Raises:
        ValueError: `samples` is not 1 or more.
        DataError: the loader gives no batch.

    References:
        Hutchinson 1990, "A stochastic estimator of the trace of the influence matrix".

    Example:
        >>> import functrain as ft
        >>> state = ft.init_state(torch.nn.Linear(2, 1, bias=False), ft.regression(), ft.optim.sgd(0.1))
        >>> batch = (torch.tensor([[1.0, 0.0], [0.0, 2.0]]), torch.zeros(2, 1))
        >>> hutchinson_trace(state, [batch], samples=3)  # the Hessian is diagonal: 1 and 4
        Trace(value=5.0, standard_error=0.0, samples=3)
    """
    require_state("hutchinson_trace", state)
    if not is_integer(samples, 1):
        raise ValueError(f"samples must be a whole number of vectors, 1 or more; got {samples!r}")
    product, like = hessian_of(state, loader, compile=compile), trainable_params(state)
    found = []
    for sample in range(samples):
        vector = random_signs(fold_in(root_key(seed), "hutchinson", sample), like)
        found.append(dot(vector, product(vector)))
    values = torch.stack(found)
    error = (values.std() / samples**0.5).item() if samples > 1 else float("nan")
    return Trace(values.mean().item(), error, samples)
