"""Linear systems with the damped Hessian, by conjugate gradients."""

from typing import NamedTuple

import torch
from torch import Tensor

from functrain.foundation.errors import FunctrainError
from functrain.step.state import Params
from functrain.transforms.hessian import Product
from functrain.transforms.vectors import flat, unflat


class Solution(NamedTuple):
    """What conjugate gradients came to.

    Attributes:
        vector: x of `(H + damping I) x = b`.
        residual: `|b - (H + damping I) x| / |b|`.
        steps: products with H.
    """

    vector: Params
    residual: float
    steps: int


def solve(product: Product, right: Params, *, damping: float, tolerance: float, max_steps: int) -> Solution:
    """Solve `(H + damping I) x = right`; the matrix must be positive definite.

    Args:
        product: the product with H.
        right: b.
        damping: what is added to the diagonal.
        tolerance: the residual at which the steps end.
        max_steps: or after so many.

    Raises:
        FunctrainError: a direction of no or negative curvature was met.

    References:
        Hestenes and Stiefel 1952, "Methods of Conjugate Gradients for Solving Linear Systems".

    Example:
        >>> b = {"w": torch.tensor([2.0, 6.0])}
        >>> solve(
        ...     lambda v: {"w": v["w"] * torch.tensor([1.0, 2.0])}, b, damping=1.0, tolerance=1e-6, max_steps=9
        ... ).vector
        {'w': tensor([1., 2.])}
    """
    b = flat(right).double()
    x, rest = torch.zeros_like(b), b
    direction, size, first = rest, rest @ rest, b @ b
    steps = 0
    while steps < max_steps and size > tolerance**2 * first:
        image = flat(product(unflat(direction, right))).double() + damping * direction
        curvature = direction @ image
        _require_positive(curvature, direction, damping)
        length = size / curvature
        x, rest = x + length * direction, rest - length * image
        before, size, steps = size, rest @ rest, steps + 1
        direction = rest + (size / before) * direction
    residual = (size / first).sqrt().item() if first > 0 else 0.0
    return Solution(unflat(x, right), residual, steps)


def _require_positive(curvature: Tensor, direction: Tensor, damping: float) -> None:
    value = (curvature / (direction @ direction)).item()
    if not value > 0:
        raise FunctrainError(
            f"the Hessian plus damping={damping} is not positive definite: along one direction the curvature is "
            f"{value:.3g}. Raise damping by more than {abs(value):.3g}, or train until the loss is at a minimum"
        )
