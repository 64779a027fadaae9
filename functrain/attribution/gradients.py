"""Attributions that take one gradient of each example."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from functrain.attribution.rows import ROWS, Score, Slopes, Varied, check_rows, slopes


class Attribution(NamedTuple):
    """How much the inputs contribute to a score.

    Attributes:
        values: a tree like the inputs with attributions in the places of floating tensors, None in others.
        scores: of each example, `[B]`.
        baseline_scores: of the baselines, `[B]`; None for methods without a baseline.
        completeness: |sum of the attributions - (score - baseline's score)|, float64 `[B]`; None without a baseline.
        error: the estimated error of the integral, summed over the inputs, float64 `[B]`; of integrated gradients.
        evaluations: gradients that were computed for each example, int64 `[B]`.
    """

    values: Any
    scores: Tensor
    baseline_scores: Tensor | None
    completeness: Tensor | None
    error: Tensor | None
    evaluations: Tensor


def saliency(score: Score, inputs: Any, *, rows: int = ROWS) -> Attribution:
    """The magnitude of the gradient. Its last bits may depend on the other examples of a call of the score.

    Args:
        score: from inputs to a score for each row.
        inputs: a tree of tensors with a row for each example.
        rows: examples that the score gets at once.

    Raises:
        ValueError: for inputs without a floating tensor, or a score of another shape.

    Example:
        >>> saliency(lambda x: (x**2).sum(1), torch.tensor([[1.0, -3.0]])).values
        tensor([[2., 6.]])

    References:
        Simonyan, Vedaldi and Zisserman 2014, "Deep Inside Convolutional Networks", section 3.
    """
    varied, found = _of_inputs(score, inputs, rows)
    return _attribution(varied, [gradient.abs() for gradient in found.gradients], found.scores)


def input_x_gradient(score: Score, inputs: Any, *, rows: int = ROWS) -> Attribution:
    """The input times its gradient. Arguments and errors as of `saliency`.

    Example:
        >>> input_x_gradient(lambda x: (x**2).sum(1), torch.tensor([[1.0, -3.0]])).values
        tensor([[ 2., 18.]])

    References:
        Shrikumar, Greenside, Shcherbina and Kundaje 2016, "Not Just a Black Box", section 2.
    """
    varied, found = _of_inputs(score, inputs, rows)
    return _attribution(varied, [g * leaf for g, leaf in zip(found.gradients, varied.leaves)], found.scores)


def _of_inputs(score: Score, inputs: Any, rows: int) -> tuple[Varied, Slopes]:
    check_rows(rows)
    varied = Varied(inputs)
    every = torch.arange(varied.examples, device=varied.leaves[0].device)
    found = [slopes(score, varied, part, [leaf[part] for leaf in varied.leaves]) for part in every.split(rows)]
    gradients = [torch.cat(column) for column in zip(*(each.gradients for each in found))]
    return varied, Slopes(torch.cat([each.scores for each in found]), gradients)


def _attribution(varied: Varied, values: list[Tensor], scores: Tensor) -> Attribution:
    ones = torch.ones(varied.examples, dtype=torch.int64, device=scores.device)
    return Attribution(varied.tree(values), scores, None, None, None, ones)
