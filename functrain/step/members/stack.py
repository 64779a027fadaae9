"""Several states as one, and back."""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from functrain.foundation.trees import flatten, leaves_with_paths, tree_map, unflatten
from functrain.step.members.alike import DifferentError, Hyperparameters, one_recipe, require_one_step
from functrain.step.members.dropping import has_rates
from functrain.step.state import Members, Stacked, TrainState, require_state

_COUNTERS = ("step", "epoch", "batch_idx", "micro_step")


def stack(states: Iterable[TrainState], *, vectorize: bool | None = None) -> TrainState:
    """One state of several: `train_step`, `eval_step` and `fit` then train all of them in one compiled step.

    Each member trains as if it were alone: with its own random key, so its own dropout masks and, in `fit`, its own
    order of the data; its own learning rate, and other numbers of its optimizer; its own metrics, loss scale, refused
    updates, plateau and early stopping. Metrics are tensors `[N]`. `unstack` gives ordinary states back.

    Args:
        states: of models of one architecture, at the same step; from `init_state`, or trained.
        vectorize: True: one `torch.func.vmap` over all members, equal to training alone but for rounding; the models
            must be alike but for dropout rates; optimizers may differ in numbers and schedules, and cross-entropies in
            label smoothing. False: one member after the other in one
            graph, equal to training alone to the bit in eager steps; members may differ in objectives
            and optimizers too, as long as their states have one form. None: vectorised where members are alike, and
            `fit` measures which form is faster.

    Returns:
        A state whose tensors have a first dimension of N rows.

    Raises:
        TypeError: something is no TrainState.
        ValueError: there is no state, or the states do not fit together; the message says in what they differ.

    Example:
        >>> import functrain as ft
        >>> def member(lr):
        ...     return ft.init_state(torch.nn.Linear(2, 1), ft.regression(), ft.optim.sgd(lr))
        >>> state = ft.stack([member(0.1), member(0.01)])
        >>> state, metrics = ft.train_step(state, (torch.ones(4, 2), torch.zeros(4, 1)))
        >>> metrics["lr"]
        tensor([0.1000, 0.0100], dtype=torch.float64)
        >>> [member.step for member in ft.unstack(state)]
        [1, 1]
    """
    if isinstance(states, TrainState) or not isinstance(states, Iterable):
        raise TypeError(f"stack takes a list of states, got {type(states).__name__}")
    members = list(states)
    _check_kind(members)
    recipes = [member.recipe for member in members]
    require_one_step(recipes)
    _check_forms(members)
    make, found = None, Hyperparameters()
    form = "unroll"
    if vectorize is not False:
        try:
            make, found = one_recipe(members)
            form = "vmap"
        except DifferentError as error:
            if vectorize:
                raise ValueError(
                    f"these members cannot be vectorised: {error}. vectorize=False has them one after the other in one "
                    "graph"
                ) from None
    first = members[0]
    rows, spec = zip(*(flatten(member)[0] for member in members)), flatten(first)[1]
    state: TrainState = unflatten(spec, [_stacked(row) for row in rows])
    return state.replace(
        recipe=dataclasses.replace(
            first.recipe, stacked=Stacked(tuple(recipes), form, vectorize is not None, make, has_rates(found.values))
        ),
        samples_seen=max(member.samples_seen for member in members),
        members=Members(
            keys=tuple(member.key for member in members),
            samples=tuple(member.samples_seen for member in members),
            stopped_at=((-1, -1, -1),) * len(members),
            plateaus=tuple(member.plateau for member in members),
            stoppers=tuple(member.stopper for member in members),
            values=found.tensors(first.device),
        ),
    )


def unstack(state: TrainState) -> list[TrainState]:
    """The members of a stack as ordinary states, with tensors of their own.

    Raises:
        TypeError: it is no TrainState.
        ValueError: it is no stack.

    Example:
        >>> import functrain as ft
        >>> alone = ft.init_state(torch.nn.Linear(2, 1), ft.regression(), ft.optim.sgd(0.1))
        >>> [member] = ft.unstack(ft.stack([alone]))
        >>> ft.digest(member) == ft.digest(alone)
        True
    """
    require_state("unstack", state, members=True)
    members, stacked = state.members, state.recipe.stacked
    if members is None or stacked is None:
        raise ValueError("unstack takes a state from functrain.stack; this is one member alone")
    return [_member(state, members, stacked, number) for number in range(len(members))]


def in_form(state: TrainState, form: str) -> TrainState:
    """The stack with its step in a form, "vmap" or "unroll"."""
    stacked = state.recipe.stacked
    assert stacked is not None
    other = dataclasses.replace(stacked, form=form, draws={})
    return state.replace(recipe=dataclasses.replace(state.recipe, stacked=other))


def _member(state: TrainState, members: Members, stacked: Stacked, number: int) -> TrainState:
    own: TrainState = tree_map(
        lambda leaf: leaf[number].clone() if isinstance(leaf, Tensor) else leaf, state.replace(members=None)
    )
    stopped = members.stopped_at[number]
    step, epoch, batch_idx = stopped if stopped[0] >= 0 else (state.step, state.epoch, state.batch_idx)
    return own.replace(
        recipe=stacked.recipes[number],
        key=members.keys[number],
        step=step,
        epoch=epoch,
        batch_idx=batch_idx,
        samples_seen=members.samples[number],
        plateau=members.plateaus[number],
        stopper=members.stoppers[number],
    )


def _check_kind(members: Sequence[Any]) -> None:
    """Refuse what is no state of one whole model."""
    if not members:
        raise ValueError("stack needs one state at least; got none")
    for member in members:
        require_state("stack", member)
        if member.recipe.exchange is not None:
            raise ValueError("stack takes whole states, and this is from functrain.shard: call functrain.unshard first")


def _check_forms(members: Sequence[TrainState]) -> None:
    """Refuse states that are not at one step, or not of one form."""
    first = members[0]
    forms = [_form(member) for member in members]
    for number, (member, form) in enumerate(zip(members, forms)):
        for name in _COUNTERS:
            if getattr(member, name) != getattr(first, name):
                raise ValueError(
                    f"members of a stack go in step: {name} is {getattr(first, name)} of the first, and "
                    f"{getattr(member, name)} of number {number}"
                )
        if form != forms[0]:
            differing = sorted(set(form.items()) ^ set(forms[0].items()))[0][0]
            raise ValueError(
                f"members of a stack must be states of one form; number {number} differs from the first in "
                f"{differing!r}: {form.get(differing, 'not there')}, and {forms[0].get(differing, 'not there')}"
            )


def _form(state: TrainState) -> dict[str, Any]:
    return {
        path: (tuple(leaf.shape), str(leaf.dtype), str(leaf.device))
        if isinstance(leaf, Tensor)
        else type(leaf).__name__
        for path, leaf in leaves_with_paths(state)
    }


def _stacked(row: Sequence[Any]) -> Any:
    return torch.stack(list(row)) if isinstance(row[0], Tensor) else row[0]
