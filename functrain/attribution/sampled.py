"""Attributions that are means of gradients at random places.

The draws of a sample depend on the key and the sample's number alone. So an example's attribution does not depend on
the other examples, and two examples are compared with the same draws.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from functrain.attribution.gradients import Attribution
from functrain.attribution.rows import ROWS, Score, Varied, check_rows, column, own_scores, slopes, sums
from functrain.foundation.keys import fold_in, generator

# Of an example and the numbers of samples, `[R]`: the values of the varied tensors, and their factors.
_Draw = Callable[[int, Tensor], tuple[list[Tensor], list[Tensor] | None]]


def smooth_grad(
    score: Score, inputs: Any, key: int, *, samples: int = 64, noise: float = 0.15, rows: int = ROWS
) -> Attribution:
    """The mean gradient at inputs with normal noise.

    Args:
        score: from inputs to a score for each row.
        inputs: a tree of tensors with a row for each example.
        key: of the noise (`functrain.foundation.keys.root_key(seed)`).
        samples: how many gradients of each example.
        noise: the standard deviation, as a part of the range of an example's values.
        rows: that the score gets at once, at most.

    Raises:
        ValueError: for a negative noise or no sample, and as `saliency`.

    Example:
        >>> found = smooth_grad(lambda x: (x**2).sum(1), torch.tensor([[1.0, -3.0]]), 0, samples=1000)
        >>> found.values.round()
        tensor([[ 2., -6.]])

    References:
        Smilkov, Thorat, Kim, Viégas and Wattenberg 2017, "SmoothGrad: removing noise by adding noise".
    """
    if not noise >= 0:
        raise ValueError(f"noise must be 0 or more, a part of the range of the inputs; got {noise}")
    varied = Varied(inputs)

    def draw(example: int, numbers: Tensor) -> tuple[list[Tensor], None]:
        moved = []
        for place, leaf in enumerate(varied.leaves):
            own = leaf[example]
            spread = noise * (own.amax() - own.amin())
            drawn = torch.stack([_normal(fold_in(key, "noise", place, number), own) for number in numbers.tolist()])
            moved.append(own + spread * drawn)
        return moved, None

    totals = _means(score, varied, draw, samples, rows)
    count = torch.full((varied.examples,), samples)
    return Attribution(varied.tree(totals), own_scores(score, varied, varied.leaves), None, None, None, count)


def gradient_shap(
    score: Score, inputs: Any, baselines: Any, key: int, *, samples: int = 64, rows: int = ROWS
) -> Attribution:
    """The mean of gradient times difference at random places between baselines and the input (expected gradients).

    The attributions of an example add up to its score less the mean score of the baselines, up to the chance of the
    draws, which `completeness` shows.

    Args:
        score: from inputs to a score for each row.
        inputs: a tree of tensors with a row for each example.
        baselines: a tensor, or a tree like the inputs, whose floating tensors have a row for each reference example,
            `[M, ...]`.
        key: of the draws.
        samples: how many draws for each example.
        rows: that the score gets at once, at most.

    Raises:
        ValueError: for baselines of another shape, or no sample, and as `saliency`.

    Example:
        >>> reference = torch.zeros(1, 2)
        >>> gradient_shap(lambda x: (3 * x).sum(1), torch.tensor([[1.0, -3.0]]), reference, 0).values
        tensor([[ 3., -9.]])

    References:
        Erion, Janizek, Sturmfels, Lundberg and Lee 2021, "Improving performance of deep learning models with axiomatic
        attribution priors and expected gradients", equation 3.
    """
    varied = Varied(inputs)
    references = varied.like(baselines, "baselines")
    count = {len(reference) if reference.ndim else 0 for reference in references}
    for reference, leaf in zip(references, varied.leaves):
        if reference.shape[1:] != leaf.shape[1:] or len(count) > 1 or not len(reference):
            raise ValueError(
                f"baselines must have rows like those of the inputs {list(leaf.shape)}, equally many of each; got "
                f"{list(reference.shape)}"
            )
    random = generator(fold_in(key, "shap"))
    chosen = torch.randint(count.pop(), (samples,), generator=random)
    places = torch.rand((samples,), generator=random, dtype=torch.float64)

    def draw(example: int, numbers: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        starts = [reference[chosen.to(reference.device)[numbers]] for reference in references]
        factors = [leaf[example] - start for leaf, start in zip(varied.leaves, starts)]
        shares = places.to(numbers.device)[numbers]
        moved = [
            start + column(shares.to(start.dtype), start.ndim - 1) * factor for start, factor in zip(starts, factors)
        ]
        return moved, factors

    totals = _means(score, varied, draw, samples, rows)
    scores = own_scores(score, varied, varied.leaves)
    baseline_scores = _reference_scores(score, varied, references, chosen)
    gap = (sums(totals) - (scores.double() - baseline_scores.double())).abs()
    evaluations = torch.full((varied.examples,), samples)
    return Attribution(varied.tree(totals), scores, baseline_scores, gap, None, evaluations)


def _reference_scores(score: Score, varied: Varied, references: list[Tensor], chosen: Tensor) -> Tensor:
    """The mean score of the references that were drawn, with what is fixed in each example, `[B]`."""
    counts = torch.bincount(chosen, minlength=len(references[0])).to(torch.float64)
    device, found = references[0].device, []
    for example in range(varied.examples):
        rows = torch.full((len(references[0]),), example, device=device)
        with torch.no_grad():
            found.append((score(varied.of(rows, references)).double() * counts.to(device)).sum() / len(chosen))
    return torch.stack(found)


def _means(score: Score, varied: Varied, draw: _Draw, samples: int, rows: int) -> list[Tensor]:
    """The mean of the gradients, times the factors of `draw`."""
    check_rows(rows)
    if samples < 1:
        raise ValueError(f"samples must be 1 or more, got {samples}")
    device = varied.leaves[0].device
    totals = [torch.zeros(leaf.shape, dtype=torch.float64, device=device) for leaf in varied.leaves]
    for example in range(varied.examples):
        for numbers in torch.arange(samples, device=device).split(rows):
            values, factors = draw(example, numbers)
            found = slopes(score, varied, torch.full_like(numbers, example), values)
            for place, (total, gradient) in enumerate(zip(totals, found.gradients)):
                part = gradient.double() if factors is None else gradient.double() * factors[place].double()
                total[example] += part.sum(0)
    return [(total / samples).to(leaf.dtype) for total, leaf in zip(totals, varied.leaves)]


def _normal(key: int, like: Tensor) -> Tensor:
    return torch.randn(like.shape, generator=generator(key), dtype=like.dtype).to(like.device)
