"""The largest eigenvalues of the Hessian, by Lanczos' method.

Each step multiplies once by H. Rounding would let vectors that were found return, so each new one is made orthogonal
to all before, twice (full reorthogonalisation; Parlett 1998, "The Symmetric Eigenvalue Problem", section 13.8).
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from functrain.foundation.keys import fold_in, generator, root_key
from functrain.foundation.numbers import is_integer, is_number
from functrain.step.state import Params, TrainState, require_state
from functrain.transforms.hessian import Product, hessian_of
from functrain.transforms.vectors import flat, trainable_params, unflat


@dataclass(frozen=True)
class Eigenvalues:
    """Eigenvalues of the Hessian of the mean loss.

    Attributes:
        values: the k largest, falling, float64 `[k]`. The first is the sharpness of the loss.
        vectors: the eigenvector of each, of norm 1: name -> tensor like the parameter.
        residuals: the norm of `H v - value v` of each, `[k]`: there is an eigenvalue as near as that.
        steps: products with the Hessian that were made.
    """

    values: Tensor
    vectors: tuple[Params, ...]
    residuals: Tensor
    steps: int


def top_eigenvalues(
    state: TrainState,
    loader: Any,
    k: int = 1,
    *,
    tolerance: float = 1e-3,
    max_steps: int = 100,
    seed: int = 0,
    compile: bool = False,
) -> Eigenvalues:
    """The k largest eigenvalues of the Hessian of the mean loss over a loader, the model in evaluation mode.

    Args:
        state: any state; not changed.
        loader: as for `fit`; all of its first pass is read at each step.
        k: how many; at most the number of trainable parameters.
        tolerance: the steps end when each residual is at most this fraction of the largest magnitude.
        max_steps: or after so many products; each keeps one vector like the parameters, in float64.
        seed: of the vector that the steps begin with.
        compile: compile the product with the Hessian first.

    Raises:
        ValueError: an argument is out of range.
        DataError: the loader gives no batch.

    References:
        Lanczos 1950; Ghorbani, Krishnan and Xiao 2019, "An Investigation into Neural Net Optimization via Hessian
        Eigenvalue Density".

    Example:
        >>> import functrain as ft
        >>> state = ft.init_state(torch.nn.Linear(2, 1, bias=False), ft.regression(), ft.optim.sgd(0.1))
        >>> found = top_eigenvalues(state, [(torch.tensor([[3.0, 4.0]]), torch.zeros(1, 1))], k=2)
        >>> found.values.round(decimals=3) + 0.0  # of 2 x x'
        tensor([50.,  0.], dtype=torch.float64)
    """
    require_state("top_eigenvalues", state)
    like = trainable_params(state)
    size = sum(leaf.numel() for leaf in like.values())
    _check(k, size, tolerance, max_steps)
    start = torch.randn(size, dtype=torch.float64, generator=generator(fold_in(root_key(seed), "lanczos")))
    krylov = _Krylov(hessian_of(state, loader, compile=compile), like, start)
    while True:
        krylov.extend()
        values, weights = krylov.ritz()
        residuals = krylov.residuals(weights[:, :k])
        found = len(values) >= k and bool((residuals <= tolerance * values.abs().max()).all())
        if found or krylov.steps in (size, max(max_steps, k)):
            break
    vectors = torch.stack(krylov.basis[: len(values)], 1) @ weights[:, :k]
    named = tuple(unflat(vector, like) for vector in vectors.T)
    return Eigenvalues(values[:k], named, residuals, krylov.steps)


class _Krylov:
    """An orthonormal basis in which the Hessian is tridiagonal: `alphas` on the diagonal, `betas` beside it."""

    def __init__(self, product: Product, like: Params, start: Tensor) -> None:
        self._product, self._like = product, like
        device = next(iter(like.values())).device
        self.basis = [start.to(device) / start.norm().to(device)]
        self.alphas: list[Tensor] = []
        self.betas: list[Tensor] = []
        self._random = generator(fold_in(root_key(0), "lanczos restart"))

    @property
    def steps(self) -> int:
        """Products so far."""
        return len(self.alphas)

    def extend(self) -> None:
        """One product with the Hessian, and the next vector of the basis."""
        current = self.basis[-1]
        image = flat(self._product(unflat(current, self._like))).double()
        self.alphas.append(current @ image)
        rest = self._orthogonal(image)
        beta = rest.norm()
        scale = torch.stack([alpha.abs() for alpha in self.alphas] + self.betas).max()
        eps = torch.finfo(next(iter(self._like.values())).dtype).eps
        if beta <= 10 * eps * scale or scale == 0:
            # The basis spans an invariant space. A new direction finds what is outside, such as a double eigenvalue.
            beta = torch.zeros_like(beta)
            rest = self._orthogonal(torch.randn(len(rest), dtype=rest.dtype, generator=self._random).to(rest.device))
        self.betas.append(beta)
        norm = rest.norm()
        self.basis.append(rest / torch.where(norm > 0, norm, 1.0))

    def _orthogonal(self, vector: Tensor) -> Tensor:
        basis = torch.stack(self.basis)
        for _ in range(2):
            vector = vector - basis.T @ (basis @ vector)
        return vector

    def ritz(self) -> tuple[Tensor, Tensor]:
        """Eigenvalues of the tridiagonal matrix, falling, and its eigenvectors in columns."""
        matrix = torch.diag(torch.stack(self.alphas))
        if len(self.alphas) > 1:
            beside = torch.stack(self.betas[: len(self.alphas) - 1])
            matrix = matrix + torch.diag(beside, 1) + torch.diag(beside, -1)
        values, vectors = torch.linalg.eigh(matrix.cpu())
        device = self.basis[0].device
        return values.flip(0), vectors.flip(1).to(device)

    def residuals(self, weights: Tensor) -> Tensor:
        """The residual of each Ritz pair, from its last component."""
        return (self.betas[-1] * weights[-1]).abs().cpu()


def _check(k: int, size: int, tolerance: float, max_steps: int) -> None:
    if not is_integer(k, 1) or k > size:
        raise ValueError(f"k must be a whole number from 1 to the {size} trainable parameters; got {k!r}")
    if not is_number(tolerance) or not 0 <= tolerance < 1:
        raise ValueError(f"tolerance must be at least 0 and less than 1; got {tolerance!r}")
    if not is_integer(max_steps, 1):
        raise ValueError(f"max_steps must be a whole number of products, 1 or more; got {max_steps!r}")
