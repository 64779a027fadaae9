"""What an optimizer is: a pair of pure functions, and how pairs are put together.

Every algorithm of this layer is an `Optimizer`, from `scale` to `adamw`: it turns a tree of gradients into
a tree of updates that are *added* to the parameters. Hyperparameters live in closures, everything that
varies lives in the state as tensors, so a checkpoint of the state is the whole optimizer.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch

from functrain.foundation import trees
from functrain.foundation.dtypes import is_floating
from functrain.foundation.making import remembered
from functrain.foundation.trees import Tree
from functrain.optim.foreach import aligned_leaves, are_ours, foreach, overwrite


class Optimizer(NamedTuple):
    """A gradient transformation: two functions without side effects.

    Attributes:
        init: `init(params) -> opt_state`. `params` is any tree of tensors; the state is a tree of tensors.
        update: `update(grads, opt_state, params) -> (updates, opt_state)`. `grads` and `updates` have the
            structure of `params`; the new state has the structure, shapes and dtypes of the old one.

    Example:
        >>> halve = Optimizer(lambda params: (), lambda grads, state, params: ({"w": grads["w"] / 2}, state))
        >>> halve.update({"w": torch.tensor(3.0)}, (), {"w": torch.tensor(1.0)})
        ({'w': tensor(1.5000)}, ())
    """

    init: Callable[[Tree], Tree]
    update: Callable[[Tree, Tree, Tree], tuple[Tree, Tree]]


def require_optimizer(taker: str, value: object) -> None:
    """Raise unless `value` is an `Optimizer`; a function that makes one, not called, is the likely mistake.

    Example:
        >>> require_optimizer("chain", 0.1)
        Traceback (most recent call last):
        ...
        TypeError: chain takes optimizers and transforms, such as sgd(0.1) and clip_by_value(1.0); got 0.1
    """
    if not isinstance(value, Optimizer):
        raise TypeError(
            f"{taker} takes optimizers and transforms, such as sgd(0.1) and clip_by_value(1.0); got {value!r}"
        )


def apply_updates(params: Tree, updates: Tree) -> Tree:
    """Add updates to parameters; each sum keeps its parameter's dtype.

    Args:
        params: tree of tensors.
        updates: tree of the same structure, from `Optimizer.update`.

    Returns:
        The new parameters; neither argument is changed.

    Raises:
        ValueError: the structures differ.

    Example:
        >>> apply_updates({"w": torch.tensor([1.0])}, {"w": torch.tensor([-0.25])})
        {'w': tensor([0.7500])}
    """
    spec, (param_leaves, update_leaves) = aligned_leaves(params=params, updates=updates)
    return trees.unflatten(spec, foreach("add", param_leaves, update_leaves))


def step(optimizer: Optimizer, grads: Tree, opt_state: Tree, params: Tree) -> tuple[Tree, Tree]:
    """One update: `optimizer.update`, then `apply_updates`. No argument is changed, and the bits are theirs.

    The sums take the memory of the updates where nobody else holds them: a fresh result costs a write to new memory.

    Args:
        optimizer: any.
        grads: tree like `params`.
        opt_state: of the optimizer.
        params: tree of tensors.

    Returns:
        The new parameters and the new state.

    Raises:
        ValueError: the structures differ.

    Example:
        >>> from functrain.optim.sgd import sgd
        >>> params = {"w": torch.tensor([1.0])}
        >>> params, state = step(sgd(0.5), {"w": torch.tensor([4.0])}, sgd(0.5).init(params), params)
        >>> params
        {'w': tensor([-1.])}
    """
    updates, new_state = optimizer.update(grads, opt_state, params)
    spec, (param_leaves, update_leaves) = aligned_leaves(params=params, updates=updates)
    del updates  # so that only its leaves are left, unless somebody holds them
    if are_ours(update_leaves) and all(map(_alike, update_leaves, param_leaves)):
        return trees.unflatten(spec, overwrite("add", update_leaves, param_leaves)), new_state
    return trees.unflatten(spec, foreach("add", param_leaves, update_leaves)), new_state


def _alike(left: torch.Tensor, right: torch.Tensor) -> bool:
    return left.shape == right.shape and left.dtype == right.dtype and left.stride() == right.stride()


@remembered
def chain(*transforms: Optimizer) -> Optimizer:
    """Apply transforms in order, each to the updates of the one before; the state is a tuple of states.

    Raises:
        TypeError: one of them is no `Optimizer`.

    Example:
        >>> from functrain.optim.parts import scale
        >>> updates, state = chain(scale(2.0), scale(-1.0)).update({"w": torch.tensor(3.0)}, ((), ()), {})
        >>> updates, state
        ({'w': tensor(-6.)}, ((), ()))
    """
    for transform in transforms:
        require_optimizer("chain", transform)

    def init(params: Tree) -> Tree:
        return tuple(transform.init(params) for transform in transforms)

    def update(updates: Tree, state: Tree, params: Tree) -> tuple[Tree, Tree]:
        if len(state) != len(transforms):
            raise ValueError(
                f"the state of a chain of {len(transforms)} transforms must have as many parts, "
                f"got {len(state)}; make it with the init of the same chain"
            )
        new_state = []
        for transform, old in zip(transforms, state):
            updates, new = transform.update(updates, old, params)
            new_state.append(new)
        return updates, tuple(new_state)

    return Optimizer(init, update)


def stateless(fn: Callable[[Tree, Tree], Tree]) -> Optimizer:
    """The transform of a function `(updates, params) -> updates` that needs no state.

    Example:
        >>> stateless(lambda updates, params: params).update({}, (), {"w": 1})
        ({'w': 1}, ())
    """
    return Optimizer(lambda _params: (), lambda updates, state, params: (fn(updates, params), state))


@remembered
def identity() -> Optimizer:
    """The transform that changes nothing.

    It stands in a chain for a part that is switched off, so that the state's structure, and with it a
    checkpoint, does not depend on whether a hyperparameter such as `weight_decay` is 0.

    Example:
        >>> identity().update({"w": 1.0}, (), {})
        ({'w': 1.0}, ())
    """
    return stateless(lambda updates, _params: updates)


def zeros_like(params: Tree) -> Tree:
    """Zeros of the parameters' shapes, dtypes and devices: where moments start.

    Raises:
        TypeError: a leaf is not a real floating-point tensor, so it has no gradient to average.

    Example:
        >>> zeros_like({"w": torch.ones(2)})
        {'w': tensor([0., 0.])}
    """
    for path, leaf in trees.leaves_with_paths(params):
        if not is_floating(leaf):
            given = leaf.dtype if isinstance(leaf, torch.Tensor) else type(leaf).__name__
            raise TypeError(
                f"parameter {path!r} is {given}, an optimizer takes real floating-point tensors; "
                "keep other tensors among the buffers, or split a complex parameter with torch.view_as_real"
            )
    return trees.tree_map(torch.zeros_like, params)


def zero_count(params: Tree) -> torch.Tensor:
    """A step count: int64 0-d zero on the parameters' device (on the CPU for an empty tree).

    Example:
        >>> zero_count({"w": torch.ones(2)})
        tensor(0)
    """
    device = next((leaf.device for leaf in trees.tensors(params)), torch.device("cpu"))
    return torch.zeros((), dtype=torch.int64, device=device)
