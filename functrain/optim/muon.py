"""Muon: momentum whose matrices are made orthogonal, with AdamW for what is no matrix."""

import math
from collections.abc import Callable
from typing import Literal, get_args

import torch

from functrain.foundation import trees
from functrain.foundation.making import remembered
from functrain.foundation.trees import Tree, node
from functrain.optim.adam import scale_by_adam
from functrain.optim.base import Optimizer, chain, zero_count, zeros_like
from functrain.optim.checks import (
    require_betas,
    require_choice,
    require_fraction,
    require_length,
    require_non_negative,
    require_number,
    require_steps,
    unless_schedule,
)
from functrain.optim.foreach import aligned_leaves, lerp
from functrain.optim.masks import Mask, masked
from functrain.optim.parts import ascend_if, decoupled_decay_if
from functrain.optim.rates import descend
from functrain.optim.schedules import Hyperparameter, value_at

# Keller Jordan's quintic: the largest slope at zero for which singular values stay near 1.
NS_COEFFICIENTS = (3.4445, -4.7750, 2.0315)

Adjustment = Literal["original", "match_rms_adamw", "spectral_unclamped"]


def orthogonalize(
    matrix: torch.Tensor,
    ns_coefficients: tuple[float, float, float] = NS_COEFFICIENTS,
    ns_steps: int = 5,
    eps: float = 1e-7,
) -> torch.Tensor:
    """The matrix with its singular values brought to about 1 (0.7 to 1.2), by Newton-Schulz iterations.

    Args:
        matrix: floating point `[n, m]`.
        ns_coefficients: a, b, c of `x -> a x + b x³ + c x⁵` on the singular values.
        ns_steps: iterations.
        eps: least norm to divide by.

    Returns:
        bfloat16 `[n, m]`, in which the iterations run, as torch.optim.Muon's do.

    Example:
        >>> orthogonalize(torch.tensor([[0.0, 5.0], [5.0, 0.0]])).abs().argmax(dim=1)
        tensor([1, 0])
    """
    a, b, c = ns_coefficients
    wide = matrix.bfloat16()
    tall = matrix.shape[0] > matrix.shape[1]
    x = wide.T if tall else wide
    x = x / x.norm().clamp(min=eps)
    for _ in range(ns_steps):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.T if tall else x


@node
class MuonState:
    """State of `scale_by_muon`."""

    count: torch.Tensor  # updates so far, int64 []
    momentum_buffer: Tree  # as params


@remembered
def scale_by_muon(
    momentum: Hyperparameter = 0.95,
    nesterov: bool = True,
    ns_coefficients: tuple[float, float, float] = NS_COEFFICIENTS,
    eps: float = 1e-7,
    ns_steps: int = 5,
    adjust_lr_fn: Adjustment | None = None,
) -> Optimizer:
    """The momentum of each matrix, made orthogonal and scaled for its shape; all leaves must be matrices.

    Example:
        >>> transform, params = scale_by_muon(), {"w": torch.zeros(2, 2)}
        >>> updates, _ = transform.update({"w": torch.eye(2)}, transform.init(params), params)
        >>> updates["w"].round()
        tensor([[1., 0.], [0., 1.]])
    """
    unless_schedule(require_fraction, momentum=momentum)
    require_non_negative("eps", eps)
    require_steps("ns_steps", ns_steps)
    require_length("ns_coefficients", ns_coefficients, 3, "three numbers")
    for index, coefficient in enumerate(ns_coefficients):
        require_number(f"ns_coefficients[{index}]", coefficient)
    if adjust_lr_fn is not None:
        require_choice("adjust_lr_fn", adjust_lr_fn, get_args(Adjustment))

    def init(params: Tree) -> MuonState:
        return MuonState(zero_count(params), zeros_like(params))

    def update(updates: Tree, state: MuonState, _params: Tree) -> tuple[Tree, MuonState]:
        spec, (grads, buffers) = aligned_leaves(updates=updates, momentum_buffer=state.momentum_buffer)
        now = value_at(momentum, state.count)
        buffers = lerp(buffers, grads, 1 - now)
        ahead = lerp(grads, buffers, now) if nesterov else buffers
        directions = [
            orthogonalize(leaf, ns_coefficients, ns_steps, eps).to(leaf.dtype) * _shape_factor(leaf, adjust_lr_fn)
            for leaf in ahead
        ]
        new_state = MuonState(state.count + 1, trees.unflatten(spec, buffers))
        return trees.unflatten(spec, directions), new_state

    return Optimizer(init, update)


def is_matrix(_path: str, parameter: torch.Tensor) -> bool:
    """The default choice of what `muon` makes orthogonal.

    Example:
        >>> is_matrix("linear.weight", torch.zeros(3, 4)), is_matrix("conv.weight", torch.zeros(3, 4, 5, 5))
        (True, False)
    """
    return parameter.ndim == 2


@remembered
def muon(
    lr: Hyperparameter = 1e-3,
    weight_decay: Hyperparameter = 0.1,
    momentum: Hyperparameter = 0.95,
    nesterov: bool = True,
    ns_coefficients: tuple[float, float, float] = NS_COEFFICIENTS,
    eps: float = 1e-7,
    ns_steps: int = 5,
    adjust_lr_fn: Adjustment | None = None,
    *,
    adamw_betas: tuple[Hyperparameter, Hyperparameter] = (0.9, 0.999),
    adamw_eps: Hyperparameter = 1e-8,
    orthogonal: Callable[[str, torch.Tensor], bool] = is_matrix,
    maximize: bool = False,
    weight_decay_mask: Mask | None = None,
) -> Optimizer:
    """Momentum made orthogonal for matrices, AdamW for all other parameters.

        b = momentum b + (1 - momentum) g;  d = (1 - momentum) g + momentum b  (nesterov)
        p -= lr (f orthogonalize(d) + weight_decay p)

    with `f = sqrt(max(1, n / m))` for an n x m matrix, or `0.2 sqrt(max(n, m))` for "match_rms_adamw", with
    which both kinds of parameters want one learning rate, or `sqrt(n / m)` for "spectral_unclamped". On matrices equal
    to torch.optim.Muon. For two rates, or to keep embeddings and the output layer with AdamW, give `orthogonal`, or
    use `optim.partition`.

    Args:
        lr: learning rate of all parameters, number >= 0 or schedule.
        weight_decay: coefficient of the decoupled decay of all parameters, >= 0 or schedule.
        momentum: decay of the buffer, in [0, 1) or a schedule.
        nesterov: look one update ahead.
        ns_coefficients: a, b, c of `orthogonalize`.
        eps, ns_steps: likewise.
        adjust_lr_fn: None or "original", or "match_rms_adamw", or "spectral_unclamped".
        adamw_betas: of AdamW, each in [0, 1) or a schedule.
        adamw_eps: of AdamW, >= 0 or schedule.
        orthogonal: `(path, parameter) -> bool`: which parameters are Muon's, matrices all.
        maximize: ascend; the decay still shrinks.
        weight_decay_mask: which parameters decay; all by default.

    Raises:
        TypeError: an argument is of the wrong type.
        ValueError: an argument is out of range.

    References:
        Jordan et al., Muon: An optimizer for hidden layers in neural networks, 2024; Liu et al., Muon is
        Scalable for LLM Training, 2025, equation 4 ("match_rms_adamw"); Bernstein, Deriving Muon, 2025
        ("spectral_unclamped").

    Example:
        >>> params = {"b": torch.zeros(2), "w": torch.zeros(2, 2)}
        >>> optimizer = muon(1.0)
        >>> updates, _ = optimizer.update({"b": torch.ones(2), "w": torch.eye(2)}, optimizer.init(params), params)
        >>> updates["b"].round(), updates["w"].round()
        (tensor([-1., -1.]), tensor([[-1., -0.], [-0., -1.]]))
    """
    require_betas(adamw_betas, "adamw_betas")
    unless_schedule(require_non_negative, adamw_eps=adamw_eps)
    return chain(
        ascend_if(maximize),
        masked(scale_by_muon(momentum, nesterov, ns_coefficients, eps, ns_steps, adjust_lr_fn), orthogonal),
        masked(scale_by_adam(adamw_betas, adamw_eps), lambda path, leaf: not orthogonal(path, leaf)),
        decoupled_decay_if(weight_decay, weight_decay_mask),
        descend(lr),
    )


def _shape_factor(matrix: torch.Tensor, adjust_lr_fn: Adjustment | None) -> float:
    rows, columns = max(matrix.shape[0], 1), max(matrix.shape[1], 1)
    if adjust_lr_fn == "match_rms_adamw":
        return 0.2 * math.sqrt(max(rows, columns))
    if adjust_lr_fn == "spectral_unclamped":
        return math.sqrt(rows / columns)
    return math.sqrt(max(1.0, rows / columns))
