"""Members that go on from others."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import optree
import torch
from torch import Tensor

from functrain.foundation.trees import NAMESPACE, tree_map
from functrain.optim import LearningRateState
from functrain.step.state import TrainState


def copied(state: TrainState, sources: Sequence[int]) -> TrainState:
    """The stack in which each member has the tensors, plateau and early stopping of its source, and its own key.

    Args:
        state: a stack.
        sources: of each member another one, or itself.
    """
    members = state.members
    assert members is not None
    rows = torch.tensor(list(sources), device=state.device)
    moved: TrainState = tree_map(lambda leaf: leaf.index_select(0, rows) if isinstance(leaf, Tensor) else leaf, state)
    return moved.replace(
        members=dataclasses.replace(
            members,
            values={name: values.index_select(0, rows) for name, values in members.values.items()},
            plateaus=tuple(members.plateaus[source] for source in sources),
            stoppers=tuple(members.stoppers[source] for source in sources),
        )
    )


def scaled(state: TrainState, factors: Sequence[float], names: Sequence[str]) -> TrainState:
    """The stack with hyperparameters multiplied by each member's factor.

    Args:
        state: a stack.
        factors: of each member.
        names: "lr", which is the learning rate of every part of the optimizer, and numbers in which members differ.

    Raises:
        ValueError: members differ in no number of this name.
    """
    members = state.members
    assert members is not None
    by = torch.tensor(list(factors), dtype=torch.float64, device=state.device)
    values = dict(members.values)
    for name in names:
        found = [key for key in values if key.rpartition(".")[2].partition("[")[0] == name and name != "lr"]
        if name != "lr" and not found:
            known = sorted({key.rpartition(".")[2] for key in values if values[key].is_floating_point()})
            raise ValueError(f"members differ in no number {name!r}; they differ in {', '.join(known) or 'none'}")
        for key in found:
            values[key] = values[key] * by
    opt_state = _with_rates(state.opt_state, by) if "lr" in names else state.opt_state
    return state.replace(opt_state=opt_state, members=dataclasses.replace(members, values=values))


def _with_rates(opt_state: Any, by: Tensor) -> Any:
    def is_rate(part: Any) -> bool:
        return isinstance(part, LearningRateState)

    def scale(part: Any) -> Any:
        return dataclasses.replace(part, reduction=part.reduction * by) if is_rate(part) else part

    return optree.tree_map(scale, opt_state, is_leaf=is_rate, namespace=NAMESPACE)
