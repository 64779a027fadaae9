"""Sharpness-aware minimisation: the gradient that counts is taken uphill.

SAM takes two gradients for an update: one at the parameters, which leads uphill, and one of the same data there,
which an ordinary optimizer applies to the parameters. Taking gradients is the training step's part, which finds in
the optimizer's state whether, and where, to take the second one; what is here is arithmetic.
"""

import optree

from functrain.foundation import trees
from functrain.foundation.making import remembered
from functrain.foundation.trees import Tree, node, static
from functrain.optim.base import Optimizer, require_optimizer
from functrain.optim.checks import require_positive
from functrain.optim.clipping import global_norm
from functrain.optim.foreach import aligned_leaves, foreach, overwrite

# Keeps the quotient finite for a zero gradient, as in the authors' code.
NORM_EPS = 1e-12


@node
class SamState:
    """State of `sam`: how far the ascent goes is part of its structure, which a compiled step is made for."""

    inner: Tree  # state of the optimizer within
    paths: tuple[str, ...] = static()  # of the parameters that it was made for
    rho: float = static()
    adaptive: bool = static()


@remembered
def sam(optimizer: Optimizer, rho: float = 0.05, *, adaptive: bool = False) -> Optimizer:
    """Let an optimizer descend from the gradient at the worst point nearby: sharpness-aware minimisation.

        e = rho g / |g|;  adaptive:  e = rho p² g / |p g|       (g at p)
        p += the optimizer's update of the gradient at p + e

    `train_step`, and so `fit`, takes both gradients: an update costs twice the time. Loss, metrics and buffers
    (BatchNorm's statistics) are those of the pass at p; clipping, `grad_norm` and the statistics of gradients see the
    second gradient. On several ranks the ascent follows the whole batch's gradient. In `chain` it may stand with
    others, in a group of `partition` it moves that group's parameters alone. It needs `accumulate=1`: the second
    gradient of a window could not begin before the window's first one is whole.

    Args:
        optimizer: of the second gradient; it keeps its state at p.
        rho: radius of the neighbourhood, > 0; the authors' 0.05, for the adaptive form 10 times more.
        adaptive: measure distances relative to each parameter, so that rescaled layers change nothing (ASAM).

    Raises:
        TypeError: an argument is of the wrong type.
        ValueError: `rho` is not positive.

    References:
        Foret et al., Sharpness-Aware Minimization for Efficiently Improving Generalization, ICLR 2021, algorithm 1;
        Kwon et al., ASAM, ICML 2021, equation 8.

    Example:
        >>> import torch
        >>> from functrain.optim.sgd import sgd
        >>> optimizer, params = sam(sgd(0.1), rho=1.0), {"w": torch.tensor([3.0, 4.0])}
        >>> state = optimizer.init(params)
        >>> ascended_params(state, params, grads=params)  # of |w|² / 2
        {'w': tensor([3.6000, 4.8000])}
        >>> optimizer.update({"w": torch.tensor([3.6, 4.8])}, state, params)[0]
        {'w': tensor([-0.3600, -0.4800])}
    """
    require_optimizer("sam", optimizer)
    require_positive("rho", rho)

    def init(params: Tree) -> SamState:
        return SamState(optimizer.init(params), tuple(trees.paths(params)), rho, adaptive)

    def update(updates: Tree, state: SamState, params: Tree) -> tuple[Tree, SamState]:
        updates, inner = optimizer.update(updates, state.inner, params)
        return updates, SamState(inner, state.paths, state.rho, state.adaptive)

    return Optimizer(init, update)


def takes_two_gradients(opt_state: Tree) -> bool:
    """Whether there is a `sam` in an optimizer's state.

    Example:
        >>> from functrain.optim.sgd import sgd
        >>> takes_two_gradients(sgd().init({})), takes_two_gradients(sam(sgd()).init({}))
        (False, True)
    """
    return bool(_states(opt_state))


def ascended_params(opt_state: Tree, params: Tree, grads: Tree) -> Tree:
    """Where to take the gradient that an optimizer wants: uphill for what a `sam` trains, else at `params` themselves.

    Args:
        opt_state: state of any optimizer, with `sam` in it or not.
        params: the parameters of that state.
        grads: their gradients, of the same structure.

    Returns:
        A tree like `params`; leaves that no `sam` trains are those of `params`.

    Raises:
        ValueError: the structures differ, or the state is of other parameters.

    Example:
        >>> import torch
        >>> ascended_params((), {"w": torch.zeros(2)}, {"w": torch.ones(2)})
        {'w': tensor([0., 0.])}
    """
    states = _states(opt_state)
    if not states:
        return params
    spec, (leaves, slopes) = aligned_leaves(params=params, grads=grads)
    paths = trees.paths(params)
    found, given = dict(zip(paths, leaves)), dict(zip(paths, slopes))
    for state in states:
        if unknown := [path for path in state.paths if path not in found]:
            raise ValueError(f"the optimizer's state has parameters that are not there: {unknown[:5]}")
        mine = {path: found[path] for path in state.paths}
        uphill = sam_ascent(mine, {path: given[path] for path in mine}, state.rho, adaptive=state.adaptive)
        found.update(uphill)
    return trees.unflatten(spec, list(found.values()))


def sam_ascent(params: Tree, grads: Tree, rho: float = 0.05, *, adaptive: bool = False) -> Tree:
    """The parameters moved uphill, to where SAM takes the gradient that counts.

        p + rho g / |g|;  adaptive:  p + rho p² g / |p g|

    Args:
        params: tree of tensors.
        grads: their gradients, of the same structure.
        rho: radius of the neighbourhood, > 0; the authors' 0.05, for the adaptive form 10 times more.
        adaptive: measure distances relative to each parameter, so that rescaled layers change nothing (ASAM).

    Returns:
        The moved parameters, each in its dtype; the arguments are not changed.

    Raises:
        ValueError: `rho` is not positive, or the structures differ.

    References:
        Foret et al., Sharpness-Aware Minimization for Efficiently Improving Generalization, ICLR 2021,
        equation 2; Kwon et al., ASAM, ICML 2021, equation 8.

    Example:
        >>> import torch
        >>> sam_ascent({"w": torch.zeros(2)}, {"w": torch.tensor([3.0, 4.0])}, rho=1.0)
        {'w': tensor([0.6000, 0.8000])}
    """
    require_positive("rho", rho)
    spec, (leaves, slopes) = aligned_leaves(params=params, grads=grads)
    directions, scaled = slopes, slopes
    if adaptive:
        scaled = foreach("mul", leaves, slopes)
        directions = foreach("mul", leaves, scaled)
    factor = rho / (global_norm(scaled) + NORM_EPS)
    return trees.unflatten(spec, overwrite("add", foreach("mul", directions, factor), leaves))


def _states(opt_state: Tree) -> list[SamState]:
    parts = optree.tree_leaves(opt_state, is_leaf=_is_sam, namespace=trees.NAMESPACE)
    return [part for part in parts if isinstance(part, SamState)]


def _is_sam(part: object) -> bool:
    return isinstance(part, SamState)
