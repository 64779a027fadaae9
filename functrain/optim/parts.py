"""The small parts that most optimizers are chained from: sign, weight decay, centring."""

from collections.abc import Callable

import optree
import torch

from functrain.foundation import trees
from functrain.foundation.making import remembered
from functrain.foundation.trees import Tree, node, static
from functrain.optim.base import Optimizer, identity, stateless, zero_count
from functrain.optim.checks import require_flag, require_non_negative
from functrain.optim.foreach import Scalar, add_scaled, add_scaled_into, aligned_leaves, foreach
from functrain.optim.masks import Mask, masked
from functrain.optim.schedules import Hyperparameter, Schedule, number_of, rate_at


@remembered
def scale(factor: float) -> Optimizer:
    """Multiply the updates by a constant; `scale(-1.0)` first in a chain maximises.

    Example:
        >>> scale(-1.0).update({"w": torch.tensor(3.0)}, (), {})
        ({'w': tensor(-3.)}, ())
    """

    def update(updates: Tree, _params: Tree) -> Tree:
        leaves, spec = trees.flatten(updates)
        return trees.unflatten(spec, foreach("mul", leaves, factor))

    return stateless(update)


def ascend_if(maximize: bool) -> Optimizer:
    """Turn the gradients round, or leave them.

    Example:
        >>> ascend_if(True).update({"w": torch.tensor(3.0)}, (), {})
        ({'w': tensor(-3.)}, ())
    """
    require_flag("maximize", maximize)
    return scale(-1.0) if maximize else identity()


@node
class FreezeState:
    """State of `freeze`: no tensor, but what it leaves alone."""

    paths: tuple[str, ...] = static()


@remembered
def freeze() -> Optimizer:
    """Make every update zero, so that the parameters stay as they are; for groups of `optim.partition`.

    `init_state` refuses an optimizer that freezes every parameter.

    Example:
        >>> freeze().update({"w": torch.tensor(3.0)}, (), {})
        ({'w': tensor(0.)}, ())
    """

    def update(updates: Tree, state: FreezeState, _params: Tree) -> tuple[Tree, FreezeState]:
        return trees.tree_map(torch.zeros_like, updates), state

    return Optimizer(lambda params: FreezeState(tuple(trees.paths(params))), update)


def frozen_paths(opt_state: Tree) -> set[str]:
    """The paths of the parameters that a `freeze` in an optimizer leaves as they are, found in its state.

    Example:
        >>> frozen_paths((freeze().init({"w": torch.zeros(2)}), ()))
        {'w'}
    """
    nodes = optree.tree_leaves(opt_state, is_leaf=lambda x: isinstance(x, FreezeState), namespace=trees.NAMESPACE)
    return {path for node in nodes if isinstance(node, FreezeState) for path in node.paths}


@remembered
def centralize() -> Optimizer:
    """Subtract from the gradient of each matrix (or kernel) its mean over all dimensions but the first.

    References:
        Yong et al., Gradient Centralization: A New Optimization Technique for Deep Neural Networks, ECCV 2020,
        equation 1.

    Example:
        >>> centralize().update({"w": torch.tensor([[1.0, 3.0]]), "b": torch.tensor([5.0])}, (), {})[0]
        {'w': tensor([[-1.,  1.]]), 'b': tensor([5.])}
    """

    def centred(grad: torch.Tensor) -> torch.Tensor:
        return grad if grad.ndim < 2 else grad - grad.mean(dim=tuple(range(1, grad.ndim)), keepdim=True)

    return stateless(lambda updates, _params: trees.tree_map(centred, updates))


@node
class CountState:
    """State of a part that only counts: what a scheduled hyperparameter needs."""

    count: torch.Tensor  # updates so far, int64 []


@remembered
def add_decayed_weights(weight_decay: Hyperparameter) -> Optimizer:
    """Add `weight_decay * params` to the updates.

    Before a preconditioner (Adam's second moment) this is L2 regularisation, after it decoupled decay. A
    scheduled coefficient has a count of its own in the state, a number has no state.

    References:
        Loshchilov & Hutter, Decoupled Weight Decay Regularization, ICLR 2019.

    Example:
        >>> add_decayed_weights(0.1).update({"w": torch.tensor(1.0)}, (), {"w": torch.tensor(5.0)})
        ({'w': tensor(1.5000)}, ())
    """
    return _decay(weight_decay, add_scaled)


def weight_decay_if(weight_decay: Hyperparameter, mask: Mask | None) -> Optimizer:
    """The decay, where the mask says so; a decay of 0 costs nothing.

    Example:
        >>> weight_decay_if(0.0, None).update({"w": 1.0}, (), {})
        ({'w': 1.0}, ())
    """
    return _unless_zero(weight_decay, mask, add_scaled)


def decoupled_decay_if(weight_decay: Hyperparameter, mask: Mask | None) -> Optimizer:
    """As `weight_decay_if`, behind a part of the same chain that has made its updates itself and keeps none.

    Their memory is written again, as by `optim.rates.descend`.

    Example:
        >>> decoupled_decay_if(0.5, None).update({"w": torch.tensor(1.0)}, (), {"w": torch.tensor(4.0)})
        ({'w': tensor(3.)}, ())
    """
    return _unless_zero(weight_decay, mask, add_scaled_into)


Adding = Callable[[list[torch.Tensor], list[torch.Tensor], Scalar], list[torch.Tensor]]


def _unless_zero(weight_decay: Hyperparameter, mask: Mask | None, add: Adding) -> Optimizer:
    decay = _decay(weight_decay, add)  # before the test for 0, for it refuses bad values
    if weight_decay == 0:
        return identity()
    return decay if mask is None else masked(decay, mask)


def _decay(weight_decay: Hyperparameter, add: Adding) -> Optimizer:
    if callable(weight_decay):
        return _scheduled_decay(weight_decay, add)
    require_non_negative("weight_decay", weight_decay)
    return stateless(lambda updates, params: _decayed(updates, params, number_of(weight_decay), add))


def _scheduled_decay(schedule: Schedule, add: Adding) -> Optimizer:
    def update(updates: Tree, state: CountState, params: Tree) -> tuple[Tree, CountState]:
        coefficient = rate_at(schedule, state.count)
        return _decayed(updates, params, coefficient, add), CountState(state.count + 1)

    return Optimizer(lambda params: CountState(zero_count(params)), update)


def _decayed(updates: Tree, params: Tree, coefficient: Scalar, add: Adding) -> Tree:
    spec, (leaves, weights) = aligned_leaves(updates=updates, params=params)
    return trees.unflatten(spec, add(leaves, weights, coefficient))
