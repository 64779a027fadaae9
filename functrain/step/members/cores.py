"""A core over members: their computations in one, vectorised or one after the other."""

import dataclasses
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from functrain.foundation.errors import FunctrainError
from functrain.foundation.trees import flatten, node, static, tree_map, unflatten
from functrain.step.execution import Core
from functrain.step.members.draws import Given
from functrain.step.members.dropping import OwnRates
from functrain.step.state import Recipe, TrainState


@node
class PerMember:
    """A batch for each member: every tensor has a first dimension with a row for each.

    Example:
        >>> import functrain as ft
        >>> states = [ft.init_state(torch.nn.Linear(2, 1), ft.regression(), ft.optim.sgd(0.1)) for _ in range(3)]
        >>> batch = PerMember((torch.ones(3, 4, 2), torch.zeros(3, 4, 1)))  # 4 examples for each
        >>> stacked, metrics = ft.train_step(ft.stack(states), batch)
        >>> metrics["loss"].shape
        torch.Size([3])
    """

    batch: Any


@node
class Fed:
    """A batch, and what else members get.

    Attributes:
        batch: one for all, or `PerMember`.
        drawn: their random numbers: of each random operation a tensor with a row for each member where members are
            vectorised; else for each member its tensors.
        train: which of those that are computed train, bool `[M]`; None: all.
        rows: the numbers of those that are computed, int64 `[M]`; None: all.
        numbers: likewise, as a part of the graph, where members are one after another.
        count: how many are computed, where that is not all: programs of other numbers are for no other batches.
    """

    batch: Any
    drawn: tuple[Any, ...] = ()
    train: Tensor | None = None
    rows: Tensor | None = None
    numbers: tuple[int, ...] = static(default=())
    count: int = static(default=0)


def over_members(core: Core) -> Core:
    """The core that does for each member of a stack what `core` does for one state."""

    def of_all(state: TrainState, given: Any) -> Any:
        fed = given if isinstance(given, Fed) else Fed(given)
        assert state.recipe.stacked is not None
        run = _vectorised if state.recipe.stacked.form == "vmap" else _unrolled
        result = run(core, state, fed)
        if not core.carries_state:
            return result
        new, out = result
        new = new.replace(members=state.members, recipe=state.recipe)
        if fed.train is not None:
            new = _kept(fed.train, new, _chosen(state, fed.rows))
        return (new, out) if fed.rows is None else (_put_back(new, state, fed.rows), _in_rows(out, state, fed.rows))

    return Core(of_all, core.name, carries_state=core.carries_state)


def member_recipe(recipe: Recipe, values: dict[str, Tensor]) -> Recipe:
    """The recipe of a member with these hyperparameters."""
    assert recipe.stacked is not None
    make = recipe.stacked.own
    return dataclasses.replace(recipe, stacked=None, **({} if make is None else make(values)))


def _vectorised(core: Core, state: TrainState, fed: Fed) -> Any:
    """All members in one `torch.func.vmap`. What is not a tensor is the same for all."""
    state = _chosen(state, fed.rows)
    assert state.members is not None
    own = isinstance(fed.batch, PerMember)
    state_leaves, state_spec = flatten(state.replace(members=None))
    batch_leaves, batch_spec = flatten(_selected(fed.batch.batch, fed.rows) if own else fed.batch)
    result_leaves: list[Any] = []
    result_spec: Any = None

    def one(tensors: list[Tensor], values: dict[str, Tensor], batch_tensors: list[Tensor]) -> list[Tensor]:
        nonlocal result_leaves, result_spec
        member = unflatten(state_spec, _filled(state_leaves, tensors))
        member = member.replace(recipe=member_recipe(member.recipe, values))
        with OwnRates(values):
            result = core.fn(member, unflatten(batch_spec, _filled(batch_leaves, batch_tensors)))
        result_leaves, result_spec = flatten(result)
        return _tensors(result_leaves)

    vectorised = torch.func.vmap(one, in_dims=(0, 0, 0 if own else None), randomness="different")
    with _given(fed.drawn), _attention_by_products(state.device):
        try:
            results = vectorised(_tensors(state_leaves), state.members.values, _tensors(batch_leaves))
        except RuntimeError as error:
            if "vmap" not in str(error):
                raise
            raise FunctrainError(
                "this step cannot be vectorised over members; functrain.stack(states, vectorize=False) has them one "
                f"after the other in one graph. torch said: {error}"
            ) from error
    return unflatten(result_spec, _filled(result_leaves, [_owned(tensor) for tensor in results]))


def _unrolled(core: Core, state: TrainState, fed: Fed) -> Any:
    """Member after member, each by the very operations that it has alone."""
    assert state.members is not None
    results = []
    for place, number in enumerate(fed.numbers or range(len(state.members))):
        batch = fed.batch
        if isinstance(batch, PerMember):
            batch = tree_map(lambda leaf, number=number: _row(leaf, number), batch.batch)
        with _given(fed.drawn[place] if fed.drawn else ()):
            results.append(core.fn(member_of(state, number), batch))
    specs = [flatten(result) for result in results]
    columns = zip(*(leaves for leaves, _ in specs))
    return unflatten(specs[0][1], [_stacked(column) for column in columns])


def member_of(state: TrainState, number: int) -> TrainState:
    """A member as a state of its own, whose tensors are views; its host values are the stack's."""
    assert state.recipe.stacked is not None
    member: TrainState = tree_map(lambda leaf: _row(leaf, number), state.replace(members=None))
    return member.replace(recipe=state.recipe.stacked.recipes[number])


def _selected(tree: Any, rows: Tensor | None) -> Any:
    """The rows of a tree's tensors; all of them for None."""
    if rows is None:
        return tree
    return tree_map(lambda leaf: leaf.index_select(0, rows) if isinstance(leaf, Tensor) else leaf, tree)


def _chosen(state: TrainState, rows: Tensor | None) -> TrainState:
    """The members of these numbers; what the host has of members stays that of all."""
    chosen: TrainState = _selected(state, rows)
    return chosen


def _put_back(new: TrainState, state: TrainState, rows: Tensor) -> TrainState:
    """The stack with new values of these members."""

    def put(after: Any, before: Any) -> Any:
        return before.index_copy(0, rows, after) if isinstance(after, Tensor) else after

    whole: TrainState = tree_map(put, new.replace(members=None), state.replace(members=None))
    return whole.replace(members=state.members)


def _in_rows(out: Any, state: TrainState, rows: Tensor) -> Any:
    """What members gave beside their states, with 0 for those that were not computed."""
    assert state.members is not None
    count = len(state.members)

    def put(leaf: Any) -> Any:
        return leaf.new_zeros(count, *leaf.shape[1:]).index_copy(0, rows, leaf) if isinstance(leaf, Tensor) else leaf

    return tree_map(put, out)


def _kept(train: Tensor, new: TrainState, old: TrainState) -> TrainState:
    """The new values of those that train, and the old ones of the others."""

    def choose(after: Any, before: Any) -> Any:
        if not isinstance(after, Tensor):
            return after
        return torch.where(train.view(-1, *[1] * (after.ndim - 1)), after, before)

    kept: TrainState = tree_map(choose, new.replace(members=None), old.replace(members=None))
    return kept.replace(members=old.members)


def _attention_by_products(device: torch.device) -> AbstractContextManager[object]:
    """On a CPU torch's other kernel of attention has no batching rule (2.13): it would loop over members, and warn."""
    if device.type != "cpu":
        return nullcontext()
    from torch.nn.attention import SDPBackend, sdpa_kernel  # 10 ms of a program's start

    return sdpa_kernel(SDPBackend.MATH)


def _given(drawn: Sequence[Tensor]) -> AbstractContextManager[object]:
    return Given(drawn) if drawn else nullcontext()


def _filled(leaves: list[Any], tensors: Sequence[Tensor]) -> list[Any]:
    rest = iter(tensors)
    return [next(rest) if isinstance(leaf, Tensor) else leaf for leaf in leaves]


def _tensors(leaves: Sequence[Any]) -> list[Tensor]:
    return [leaf for leaf in leaves if isinstance(leaf, Tensor)]


def _owned(tensor: Tensor) -> Tensor:
    """With memory of its own for each member: where all have the same, vmap gives one row several times."""
    return tensor.contiguous()


def _row(leaf: Any, number: int) -> Any:
    return leaf[number] if isinstance(leaf, Tensor) else leaf


def _stacked(column: Sequence[Any]) -> Any:
    return torch.stack(list(column)) if isinstance(column[0], Tensor) else column[0]
