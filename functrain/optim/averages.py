"""Which parameters to evaluate with, of an optimizer whose state knows averages of them."""

from abc import ABC, abstractmethod
from collections.abc import Mapping

import optree
import torch

from functrain.foundation import trees
from functrain.foundation.trees import Tree


class KnowsAverages(ABC):
    """A part of an optimizer's state that knows better parameters to evaluate with than those in training."""

    @abstractmethod
    def averages(self, params: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """The averages, by path, of the parameters that the part trains.

        Args:
            params: by path, at least those that the part trains.

        Raises:
            ValueError: some are not there.
        """


def evaluation_params(opt_state: Tree, params: Tree) -> Tree:
    """The parameters to evaluate with: the averages of a schedule-free optimizer or ASGD, else `params` themselves.

    Args:
        opt_state: state of any optimizer, with averaging ones in it or not.
        params: the parameters of that state.

    Returns:
        A tree like `params`; leaves that no averaging optimizer trains are those of `params`.

    Raises:
        ValueError: the state is of other parameters.

    Example:
        >>> from functrain import optim
        >>> optimizer, params = optim.schedule_free_sgd(0.1), {"w": torch.tensor(1.0)}
        >>> _, state = optimizer.update({"w": torch.tensor(2.0)}, optimizer.init(params), params)
        >>> evaluation_params(state, {"w": torch.tensor(0.8)})
        {'w': tensor(0.8000)}
        >>> evaluation_params((), params)
        {'w': tensor(1.)}
    """
    parts = optree.tree_leaves(opt_state, is_leaf=_knows_averages, namespace=trees.NAMESPACE)
    states = [part for part in parts if isinstance(part, KnowsAverages)]
    if not states:
        return params
    leaves, spec = trees.flatten(params)
    by_path = dict(zip(trees.paths(params), leaves))
    for state in states:
        by_path.update(state.averages(by_path))
    return trees.unflatten(spec, list(by_path.values()))


def keeps_averages(opt_state: Tree) -> bool:
    """Whether `evaluation_params` takes any of an optimizer's state.

    Example:
        >>> from functrain import optim
        >>> [keeps_averages(each(0.1).init({"w": torch.zeros(1)})) for each in (optim.schedule_free_sgd, optim.sgd)]
        [True, False]
    """
    parts = optree.tree_leaves(opt_state, is_leaf=_knows_averages, namespace=trees.NAMESPACE)
    return any(map(_knows_averages, parts))


def trained_by(tree: Tree, params: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Those of the parameters that are in a state's tree of moments, in its order.

    Raises:
        ValueError: some are not there.

    Example:
        >>> trained_by({"w": torch.zeros(1)}, {"v": torch.ones(1), "w": torch.ones(1)})
        {'w': tensor([1.])}
    """
    paths = trees.paths(tree)
    if unknown := [path for path in paths if path not in params]:
        raise ValueError(f"the optimizer's state has parameters that are not there: {unknown[:5]}")
    return {path: params[path] for path in paths}


def _knows_averages(part: object) -> bool:
    return isinstance(part, KnowsAverages)
