"""One optimizer for each group of parameters, chosen by the parameters' paths."""

from collections.abc import Mapping
from fnmatch import fnmatchcase

from functrain.foundation import trees
from functrain.foundation.making import remembered
from functrain.foundation.trees import Tree
from functrain.optim.base import Optimizer
from functrain.optim.foreach import aligned_leaves
from functrain.optim.masks import select


@remembered
def partition(groups: Mapping[str, Optimizer]) -> Optimizer:
    """Give each parameter to the optimizer of the first pattern that matches its path.

    Args:
        groups: pattern -> optimizer, in order. Patterns are shell-style (`*`, `?`, `[ab]`; `*` crosses dots and
            slashes too) and match whole paths, as `foundation.trees.paths` names them: "layers.0.weight" in a
            training state. `optim.freeze()` leaves a group as it is.

    Returns:
        The optimizer; its state is a tuple with one state for each pattern, in order.

    Raises:
        TypeError: one of the groups has no `Optimizer`.
        ValueError: at `init`, if a parameter matches no pattern, or a pattern is the first match of none.

    Example:
        >>> import torch
        >>> from functrain.optim.parts import freeze
        >>> from functrain.optim.sgd import sgd
        >>> optimizer = partition({"head.*": sgd(0.1), "*": freeze()})
        >>> params = {"body.weight": torch.ones(1), "head.weight": torch.ones(1)}
        >>> optimizer.update(params, optimizer.init(params), params)[0]
        {'body.weight': tensor([0.]), 'head.weight': tensor([-0.1000])}
    """
    if not isinstance(groups, Mapping):
        raise TypeError(
            "partition takes a dictionary from patterns of parameters' names to optimizers, such as "
            f"{{'head.*': sgd(0.1), '*': freeze()}}; got {groups!r}"
        )
    patterns, optimizers = tuple(groups), tuple(groups.values())
    for pattern, optimizer in groups.items():
        if not isinstance(optimizer, Optimizer):
            raise TypeError(f"the group {pattern!r} must have an optimizer, got {optimizer!r}")

    def init(params: Tree) -> Tree:
        members = _assigned(patterns, trees.paths(params))
        if empty := [pattern for index, pattern in enumerate(patterns) if index not in members]:
            raise ValueError(
                f"the pattern {empty[0]!r} matches no parameter that an earlier one has not taken; the parameters are "
                f"{_named(trees.paths(params))}"
            )
        return tuple(
            optimizer.init(select(params, [member == index for member in members]))
            for index, optimizer in enumerate(optimizers)
        )

    def update(updates: Tree, state: Tree, params: Tree) -> tuple[Tree, Tree]:
        spec, (leaves, _) = aligned_leaves(updates=updates, params=params)
        members, new_state = _assigned(patterns, trees.paths(params)), []
        for index, (optimizer, old) in enumerate(zip(optimizers, state, strict=True)):
            chosen = [member == index for member in members]
            changed, new = optimizer.update(select(updates, chosen), old, select(params, chosen))
            replacements = iter(trees.leaves(changed))
            leaves = [next(replacements) if mine else leaf for leaf, mine in zip(leaves, chosen)]
            new_state.append(new)
        return trees.unflatten(spec, leaves), tuple(new_state)

    return Optimizer(init, update)


def _assigned(patterns: tuple[str, ...], paths: list[str]) -> list[int]:
    """For each path the index of the first pattern that matches."""
    found = [next((i for i, p in enumerate(patterns) if fnmatchcase(path, p)), None) for path in paths]
    if None in found:
        left = [path for path, index in zip(paths, found) if index is None]
        raise ValueError(
            f"no pattern of {', '.join(map(repr, patterns))} matches {_named(left)}; add a last pattern '*' for all "
            "that is left, with optim.freeze() to leave it as it is"
        )
    return [index for index in found if index is not None]


def _named(paths: list[str]) -> str:
    shown = ", ".join(map(repr, paths[:5])) or "none"
    return shown if len(paths) <= 5 else f"{shown} and {len(paths) - 5} more"
