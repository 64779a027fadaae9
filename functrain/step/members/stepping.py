"""What a step does for a stack beside its core: random numbers, and who trains."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from functrain.foundation.containers import register_containers
from functrain.foundation.errors import DataError, FunctrainError
from functrain.foundation.keys import fold_in
from functrain.foundation.trees import flatten, structure, tree_map
from functrain.step.execution import Core, eager
from functrain.step.members.cores import Fed, PerMember, member_of
from functrain.step.members.draws import Draw, drawn_by, noted
from functrain.step.state import Members, TrainState

WORTH_IT = 2**16  # parameters of a stack: with fewer a step takes as long with fewer members, and each program costs


def fed(core: Core, state: TrainState, batch: Any, path: Sequence[Any]) -> Any:
    """What the members' core gets: the batch alone, where nothing is drawn and all train.

    Args:
        core: that of a single state.
        state: a stack.
        batch: for all, or `PerMember`.
        path: what is folded into each member's key.
    """
    members = state.members
    assert members is not None
    _check_rows(batch, len(members))
    numbers = tuple(range(len(members)))
    if core.carries_state and sum(leaf.numel() for leaf in state.params.values()) >= WORTH_IT:
        numbers = computed(members.stopped_at)
    drawn = _drawn(core, state, batch, path, numbers)
    if not core.carries_state or all(train := members.train()):
        return Fed(batch, drawn) if drawn else batch
    return Fed(
        batch,
        drawn,
        torch.tensor([train[number] for number in numbers], device=state.device),
        None if len(numbers) == len(members) else torch.tensor(numbers, device=state.device),
        () if state.recipe.stacked is None or state.recipe.stacked.form == "vmap" else numbers,
        0 if len(numbers) == len(members) else len(numbers),
    )


@functools.lru_cache(maxsize=8)
def computed(stopped_at: tuple[tuple[int, int, int], ...]) -> tuple[int, ...]:
    """The members that a step computes: those that train, filled up to a power of two by those that stopped last.

    So a stack's programs are as many as there are powers of two, whoever stops when.

    Example:
        >>> trains, stopped = (-1, -1, -1), (9, 1, 0)
        >>> computed((trains, stopped, trains, trains)), computed((trains, stopped, stopped, trains))
        ((0, 1, 2, 3), (0, 3))
    """
    trains = [at[0] < 0 for at in stopped_at]
    count = min(len(trains), 1 << max(sum(trains) - 1, 0).bit_length())
    last_first = sorted(range(len(trains)), key=lambda number: (trains[number], stopped_at[number]), reverse=True)
    return tuple(sorted(last_first[:count]))


def advanced(members: Members, examples: int | Sequence[int]) -> Members:
    """Members after a micro-batch with so many examples, or so many of each."""
    more = [examples] * len(members) if isinstance(examples, int) else examples
    samples = tuple(
        done + (own if train else 0) for done, own, train in zip(members.samples, more, members.train(), strict=True)
    )
    return dataclasses.replace(members, samples=samples)


def stopped(state: TrainState, numbers: Sequence[int]) -> TrainState:
    """The stack when these members have stopped: their values stay from here on."""
    members = state.members
    assert members is not None
    here = (state.step, state.epoch, state.batch_idx)
    at = tuple(here if number in numbers and was[0] < 0 else was for number, was in enumerate(members.stopped_at))
    return state.replace(members=dataclasses.replace(members, stopped_at=at))


def failed(state: TrainState, refused: int) -> list[int]:
    """The members that train and whose last updates, so many, were all refused."""
    members, found = state.members, state.counts.skipped_in_a_row >= refused
    if members is None or not found.any().item():
        return []
    return [number for number, (bad, train) in enumerate(zip(found.tolist(), members.train())) if bad and train]


def of_chosen(chosen: Sequence[bool], after: Any, before: Any) -> Any:
    """A tree of members' tensors: the rows of the chosen ones from `after`, the others from `before`."""

    def choose(new: Any, old: Any) -> Any:
        if not isinstance(new, Tensor) or new is old:
            return new
        mask = torch.tensor(chosen, device=new.device).view(-1, *[1] * (new.ndim - 1))
        return torch.where(mask, new, old)

    return tree_map(choose, after, before)


def first_batch(batch: Any) -> Any:
    """The batch that the first member gets."""
    if not isinstance(batch, PerMember):
        return batch
    return tree_map(lambda leaf: leaf[0] if isinstance(leaf, Tensor) else leaf, batch.batch)


def first_alone(state: TrainState, batch: Any) -> tuple[TrainState, Any]:
    """The first member and its batch; of no stack, both as they are."""
    return (state, batch) if state.members is None else (member_of(state, 0), first_batch(batch))


def side_by_side(batches: Sequence[Any]) -> PerMember:
    """A batch of each member as one.

    Raises:
        DataError: they are not tensors of one shape in one structure.

    Example:
        >>> side_by_side([(torch.zeros(2), torch.ones(1))] * 3).batch[0].shape
        torch.Size([3, 2])
    """
    specs = [structure(batch) for batch in batches]
    if any(spec != specs[0] for spec in specs):
        other = next(spec for spec in specs if spec != specs[0])
        raise DataError(f"the batches of members must be alike; got {specs[0]} and {other}")
    return PerMember(tree_map(_one, *batches))


def _one(*leaves: Any) -> Tensor:
    if not isinstance(leaves[0], Tensor):
        raise DataError(f"the batches of members must be tensors; got {type(leaves[0]).__name__}")
    if any(leaf.shape != leaves[0].shape for leaf in leaves):
        shapes = sorted({str(list(leaf.shape)) for leaf in leaves})
        raise DataError(f"the batches of members must have one shape; got {' and '.join(shapes)}")
    return torch.stack(leaves)


def _drawn(core: Core, state: TrainState, batch: Any, path: Sequence[Any], numbers: Sequence[int]) -> tuple[Any, ...]:
    """The random numbers of these members, as `Fed` has them."""
    plans, stacked, members = _plans(core, state, batch), state.recipe.stacked, state.members
    if not any(plans):
        return ()
    assert stacked is not None
    assert members is not None
    keys = [fold_in(members.keys[number], *path) for number in numbers]  # 5 us each
    plans = plans * len(keys) if len(plans) == 1 else tuple(plans[number] for number in numbers)
    if stacked.form != "vmap":
        return tuple(drawn_by(plans, keys, state.device))
    return tuple(torch.stack(column) for column in zip(*drawn_by(plans, keys, state.device)))


def _plans(core: Core, state: TrainState, batch: Any) -> tuple[tuple[Draw, ...], ...]:
    """What each member draws in a step, found out by one step of each; of those that all draw alike, of the first."""
    stacked = state.recipe.stacked
    assert stacked is not None
    leaves, spec = flatten(batch)
    form = (core, spec, tuple([(leaf.shape, leaf.dtype) if isinstance(leaf, Tensor) else leaf for leaf in leaves]))
    plans: tuple[tuple[Draw, ...], ...] | None = stacked.draws.get(form)
    if plans is None:
        if torch.compiler.is_dynamo_compiling():
            raise FunctrainError(
                "a stack cannot be trained within a torch.compile of your own: use functrain.compile, or fit"
            )
        count = 1 if stacked.form == "vmap" and not stacked.draw_otherwise else len(stacked.recipes)
        plans = tuple(noted(_one_step(core, state, batch, number)) for number in range(count))
        stacked.draws[form] = plans
    return plans


def _one_step(core: Core, state: TrainState, batch: Any, number: int) -> Callable[[], Any]:
    member, own = member_of(state, number), first_batch(batch)
    register_containers(own)

    def run() -> None:
        with member.recipe.network.put_back():
            eager(core, member, own, key=partial(fold_in, state.key, "draws"), device=state.device)

    return run


def _check_rows(batch: Any, count: int) -> None:
    if not isinstance(batch, PerMember):
        return
    for leaf in flatten(batch)[0]:
        if not isinstance(leaf, Tensor):
            raise TypeError(f"a PerMember batch has tensors only, got {type(leaf).__name__}")
        if leaf.ndim == 0 or leaf.shape[0] != count:
            raise ValueError(
                f"each tensor of a PerMember batch has a row for each of the {count} members; got shape "
                f"{list(leaf.shape)}"
            )
