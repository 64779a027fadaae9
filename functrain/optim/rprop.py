"""Rprop: steps from the signs of gradients alone."""

from typing import Any

import torch

from functrain.foundation import trees
from functrain.foundation.making import remembered
from functrain.foundation.trees import Tree, node
from functrain.optim.base import Optimizer, chain, zeros_like
from functrain.optim.checks import require_length, require_non_negative, require_positive
from functrain.optim.foreach import aligned_leaves, foreach, overwrite
from functrain.optim.parts import ascend_if


@node
class RpropState:
    """State of `scale_by_rprop`."""

    prev: Tree  # gradient before, zero where it had just changed its sign, as params
    step_size: Tree  # as params


@remembered
def scale_by_rprop(
    lr: float = 1e-2, etas: tuple[float, float] = (0.5, 1.2), step_sizes: tuple[float, float] = (1e-6, 50.0)
) -> Optimizer:
    """The step of `rprop`, to be added to the parameters as it is.

    Example:
        >>> rprop, params = scale_by_rprop(0.1), {"w": torch.tensor(0.0)}
        >>> rprop.update({"w": torch.tensor(-7.0)}, rprop.init(params), params)[0]
        {'w': tensor(0.1000)}
    """
    _check(lr, etas, step_sizes)
    (eta_minus, eta_plus), (smallest, largest) = etas, step_sizes

    def init(params: Tree) -> RpropState:
        zeros = zeros_like(params)
        return RpropState(prev=zeros, step_size=trees.tree_map(lambda zero: torch.full_like(zero, lr), zeros))

    def update(updates: Tree, state: RpropState, _params: Tree) -> tuple[Tree, RpropState]:
        spec, (grads, before, sizes) = aligned_leaves(updates=updates, prev=state.prev, step_size=state.step_size)
        agreements = foreach("mul", grads, before)
        factors = [_factor(agreement, eta_minus, eta_plus) for agreement in agreements]
        sizes = overwrite("clamp_max", overwrite("clamp_min", foreach("mul", sizes, factors), smallest), largest)
        # Where the sign has changed, the parameter rests for one update.
        kept = [torch.where(agreement < 0, 0.0, grad) for agreement, grad in zip(agreements, grads)]
        steps = overwrite("mul", overwrite("neg", foreach("sign", kept)), sizes)
        return trees.unflatten(spec, steps), RpropState(trees.unflatten(spec, kept), trees.unflatten(spec, sizes))

    return Optimizer(init, update)


@remembered
def rprop(
    lr: float = 1e-2,
    etas: tuple[float, float] = (0.5, 1.2),
    step_sizes: tuple[float, float] = (1e-6, 50.0),
    *,
    maximize: bool = False,
) -> Optimizer:
    """Resilient backpropagation: a step size for each element, which grows while the gradient keeps its sign.

        s *= eta_plus if g g_prev > 0, eta_minus if < 0;  s = clamp(s, step_sizes)
        g = 0 where g g_prev < 0;  p -= s sign(g);  g_prev = g

    Equal to torch.optim.Rprop. For full batches: the sign of a noisy gradient says little.

    Args:
        lr: the first step size, a number >= 0. It is no learning rate: no schedule drives it.
        etas: factors where the sign changes, in (0, 1), and where it stays, > 1.
        step_sizes: the smallest and the largest step.
        maximize: ascend.

    Raises:
        TypeError: an argument is of the wrong type.
        ValueError: an argument is out of range.

    References:
        Riedmiller & Braun, A Direct Adaptive Method for Faster Backpropagation Learning: The RPROP Algorithm,
        ICNN 1993; the variant without weight-backtracking (iRprop-).

    Example:
        >>> params = {"w": torch.tensor(1.0)}
        >>> optimizer = rprop(0.1)
        >>> optimizer.update({"w": torch.tensor(2.0)}, optimizer.init(params), params)[0]
        {'w': tensor(-0.1000)}
    """
    return chain(ascend_if(maximize), scale_by_rprop(lr, etas, step_sizes))


def _factor(agreement: torch.Tensor, eta_minus: float, eta_plus: float) -> torch.Tensor:
    grown = torch.where(agreement > 0, torch.full_like(agreement, eta_plus), 1.0)
    return torch.where(agreement < 0, torch.full_like(agreement, eta_minus), grown)


def _check(lr: Any, etas: Any, step_sizes: Any) -> None:
    if callable(lr):
        raise TypeError(
            "lr must be a number, the first step size: rprop finds its own from there, so a schedule would do nothing"
        )
    require_non_negative("lr", lr)
    require_length("etas", etas, 2, "a factor below 1 and one above 1")
    require_length("step_sizes", step_sizes, 2, "the smallest and the largest step")
    for index in (0, 1):
        require_positive(f"etas[{index}]", etas[index])
        require_positive(f"step_sizes[{index}]", step_sizes[index])
    if not etas[0] < 1 < etas[1]:
        raise ValueError(f"etas must be a factor below 1 and one above 1, got {etas!r}")
    if step_sizes[0] > step_sizes[1]:
        raise ValueError(f"step_sizes must be the smallest and the largest step, got {step_sizes!r}")
