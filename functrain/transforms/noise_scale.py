"""The gradient noise scale: at which batch size the gradient's noise is as large as the gradient.

With G the true gradient, S the trace of the covariance of one example's gradient, and G_b the mean gradient of b
examples, `E |G_b|^2 = |G|^2 + S / b`. Two sizes give two equations:

    S      = (mean |G_small|^2 - |G_big|^2) / (1 / b_small - 1 / b_big)
    |G|^2  = (b_big |G_big|^2 - b_small mean |G_small|^2) / (b_big - b_small)

both unbiased; the noise scale is S / |G|^2 (McCandlish, Kaplan, Amodei et al. 2018, "An Empirical Model of Large-Batch
Training", appendix A.1). Small are a loader's batches, big is all of them together; for uneven batches `1 / b_small` is
the mean of `1 / b`.
"""

import math
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from functrain.compiler import runner_for
from functrain.foundation.containers import register_containers
from functrain.foundation.errors import DataError
from functrain.foundation.keys import fold_in
from functrain.foundation.numbers import is_integer
from functrain.objectives.examples import count_examples
from functrain.objectives.unfit import raise_explained
from functrain.step.execution import Core, refuse_autocast, refuse_inference_mode
from functrain.step.gradient import gradient
from functrain.step.state import Params, TrainState, require_state
from functrain.transforms.batches import Batches
from functrain.transforms.per_sample import gradient_part
from functrain.transforms.vectors import dot


@dataclass(frozen=True)
class NoiseScale:
    """How noisy gradients are.

    Attributes:
        noise_scale: S / |G|^2, in examples; infinite if the estimate of |G|^2 is not positive: then the batches are
            too few to tell the gradient from its noise.
        batch_size: the noise scale as a whole number, at least 1; None if it is infinite. Smaller batches gain nearly
            in proportion to their size; beyond it, larger ones gain little.
        gradient_norm_squared: the estimate of |G|^2.
        gradient_variance: the estimate of S.
        batches: that were used.
    """

    noise_scale: float
    batch_size: int | None
    gradient_norm_squared: float
    gradient_variance: float
    batches: int


def gradient_noise_scale(
    state: TrainState, loader: Any, *, max_batches: int | None = None, compile: bool = False
) -> NoiseScale:
    """Measure the noise of the gradients at a state, and suggest a batch size.

    The gradients are those of training: each batch has its own dropout. The scale grows while training goes on, so
    measure it in the middle, too. Adam and other optimizers weigh directions differently, so take it as an order of
    magnitude.

    Args:
        state: any state; not changed.
        loader: the training data, in two batches or more; smaller ones tell more.
        max_batches: how many batches to use; None: all of the first pass.
        compile: compile the gradient first.

    Raises:
        DataError: there are fewer than two batches.
        ValueError: `max_batches` is not 2 or more.

    Example:
        >>> import functrain as ft
        >>> state = ft.init_state(torch.nn.Linear(4, 1), ft.regression(), ft.optim.sgd(0.1))
        >>> loader = ft.data.Loader(ft.data.Arrays(torch.randn(256, 4), torch.randn(256, 1)), batch_size=8)
        >>> gradient_noise_scale(state, loader).batches
        32
    """
    require_state("gradient_noise_scale", state)
    if max_batches is not None and not is_integer(max_batches, 2):
        raise ValueError(f"max_batches must be a whole number of batches, 2 or more, or None; got {max_batches!r}")
    refuse_autocast(state.device)
    refuse_inference_mode()
    part, run = gradient_part(state), runner_for(compile)
    sums: Params = {}
    squares, inverse_sizes, weights, sizes = [], [], [], []
    for number, batch in enumerate(Batches(state, loader)):
        if number == max_batches:
            break
        register_containers(batch)
        key = partial(fold_in, state.key, "noise scale", state.step, number)
        try:
            grads, weight = run(_GRADIENT, part, batch, key=key, device=state.device)
        except Exception as error:
            raise_explained(error, batch, state.recipe.objective)
        size = count_examples(state.recipe.objective)(batch)
        if weight == 0:
            continue
        sums = {name: sums[name] + grad if sums else grad for name, grad in grads.items()}
        squares.append(dot(grads, grads) / weight**2)
        inverse_sizes.append(1 / size)
        weights.append(weight)
        sizes.append(size)
    if len(squares) < 2:
        raise DataError(
            f"the gradient noise scale needs two batches or more that count; the loader gave {len(squares)}"
        )
    small = torch.stack(squares).mean().item()
    big = (dot(sums, sums) / torch.stack(weights).sum() ** 2).item()
    return estimated(small, big, sum(inverse_sizes) / len(inverse_sizes), 1 / sum(sizes), len(squares))


def estimated(small: float, big: float, inverse_small: float, inverse_big: float, batches: int) -> NoiseScale:
    """The noise scale of mean squared norms at two batch sizes, which are given as 1 / size.

    Example:
        >>> estimated(small=3.0, big=2.0, inverse_small=1 / 4, inverse_big=1 / 8, batches=2)  # 1 + 8 / b
        NoiseScale(noise_scale=8.0, batch_size=8, gradient_norm_squared=1.0, gradient_variance=8.0, batches=2)
    """
    variance = (small - big) / (inverse_small - inverse_big)
    norm_squared = big - variance * inverse_big
    scale = max(variance, 0.0) / norm_squared if norm_squared > 0 else math.inf
    size = max(1, round(scale)) if math.isfinite(scale) else None
    return NoiseScale(scale, size, norm_squared, variance, batches)


def _summed(state: TrainState, batch: Any) -> Any:
    found = gradient(state, batch, state.buffers)
    return found.grads, found.totals.weight


_GRADIENT = Core(_summed, "gradient", carries_state=False)
