"""The states of torch.optim's Adam, AdamW and SGD <-> functrain's optimizer states.

Both sides name their moments alike (`exp_avg`, `momentum_buffer`, ...). They differ in the rest: torch
numbers the parameters and counts updates for each, functrain names them and counts once; and torch keeps
hyperparameters beside the state, where functrain's are in the optimizer itself and not read from files.
"""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import optree
import torch
from torch import Tensor, nn

from functrain.checkpoint.foreign.state_dicts import plain_names, strangeness
from functrain.foundation import trees
from functrain.foundation.errors import CheckpointError
from functrain.foundation.trees import NAMESPACE, Tree
from functrain.optim import LearningRateState
from functrain.step.state import TrainState

# The sets of moments that an optimizer state may have to be exchanged, by torch's names.
_MOMENTS = (
    frozenset({"exp_avg", "exp_avg_sq"}),
    frozenset({"exp_avg", "exp_avg_sq", "max_exp_avg_sq"}),
    frozenset({"momentum_buffer"}),
    frozenset[str](),
)
_SHOWN = 8


def skeleton(state: TrainState) -> nn.Module:
    """The state's module without storage, for its names, their order and its ties."""
    params = {name: torch.empty_like(p, device="meta") for name, p in state.params.items()}
    buffers = {name: torch.empty_like(b, device="meta") for name, b in state.buffers.items()}
    return state.recipe.network.module(params, buffers)


def moments_of(opt_state: Tree) -> dict[str, dict[str, Tensor]]:
    """An optimizer state's moments: kind -> parameter's name -> tensor.

    Raises:
        CheckpointError: it is not a state of Adam, AdamW or SGD.
    """
    moments: dict[str, dict[str, Tensor]] = {}
    for entries, leaf in _parts(opt_state)[0]:
        if _is_moment(entries):
            moments.setdefault(str(entries[-2]), {})[str(entries[-1])] = leaf
        elif not isinstance(leaf, LearningRateState) and entries[-1] != "count":
            raise CheckpointError(_not_torchs("/".join(map(str, entries))))
    if frozenset(moments) not in _MOMENTS:
        raise CheckpointError(_not_torchs(", ".join(sorted(moments))))
    return moments


def from_torch(state: TrainState, saved: Any, step: int | None, path: Path) -> tuple[Tree, int]:
    """The state's optimizer state with the moments and counts of a torch optimizer's state dict.

    Args:
        state: gives structure, shapes, dtypes and devices; its learning rate stays.
        saved: what `optimizer.state_dict()` returned.
        step: updates done, for SGD, which does not count them.
        path: where `saved` is from, for messages.

    Returns:
        The optimizer state and the number of updates.

    Raises:
        CheckpointError: it is another optimizer's, or of other parameters.
    """
    try:
        groups, slots = list(saved["param_groups"]), dict(saved["state"])
        numbers = [list(group["params"]) for group in groups]
    except (TypeError, KeyError, ValueError) as error:
        raise CheckpointError(f"the optimizer state in {path} is not what optimizer.state_dict() returns") from error
    names = parameter_names(state, numbers, [group.get("param_names") for group in groups], f"of {path}")
    moments = moments_of(state.opt_state)
    by_name = {names[number]: slot for number, slot in slots.items() if number in names and _holds_state(slot)}
    _check_kinds(moments, by_name, path)
    _check_shapes(moments, by_name, path)
    count = _count(by_name, step, path)

    def replaced(entries: tuple[Any, ...], part: Any) -> Any:
        if _is_moment(entries):
            return torch.empty_like(part).copy_(by_name[str(entries[-1])][str(entries[-2])])
        if isinstance(part, LearningRateState):
            return dataclasses.replace(part, count=torch.full_like(part.count, count))
        return torch.full_like(part, count)

    parts, spec = _parts(state.opt_state)
    return trees.unflatten(spec, [replaced(entries, part) for entries, part in parts]), count


def to_torch(state: TrainState, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """What `optimizer.state_dict()` would return had it trained this state.

    Args:
        state: of Adam, AdamW or SGD.
        optimizer: a torch optimizer of the same kind over the state's module; it is not changed. Its
            hyperparameters are written, for functrain's stay within functrain's optimizer.

    Raises:
        CheckpointError: the state is not one of these, or the parameters' order is not known.
    """
    saved = optimizer.state_dict()
    groups = saved["param_groups"]
    numbers = [group["params"] for group in groups]
    names = parameter_names(state, numbers, [group.get("param_names") for group in groups], "given")
    moments = moments_of(state.opt_state)
    counts = [
        part for entries, part in _parts(state.opt_state)[0] if entries[-1] == "count" and not _is_moment(entries)
    ]
    slots: dict[int, dict[str, Any]] = {}
    for number, name in names.items():
        slot: dict[str, Any] = {kind: moment[name].detach() for kind, moment in moments.items() if name in moment}
        if "exp_avg" in slot:
            # In float32, as torch has it.
            slot = {"step": torch.tensor(float(counts[0]), dtype=torch.float32), **slot}
        if slot:
            slots[number] = slot
    return {"state": slots, "param_groups": groups}


def parameter_names(
    state: TrainState, numbers: Sequence[Sequence[int]], given: Sequence[Any], whose: str
) -> dict[int, str]:
    """The names behind a torch optimizer's numbers.

    With one group the order is that of the module's parameters, or of those that are trained. With more
    it cannot be known unless the optimizer was made from named parameters.

    Raises:
        CheckpointError: the names are not known, or their number differs.
    """
    flat = [number for group in numbers for number in group]
    every = [name for name, _ in skeleton(state).named_parameters()]
    trained = [name for name in every if name in set(state.recipe.network.trainable)]
    if all(isinstance(names, (list, tuple)) and len(names) == len(group) for names, group in zip(given, numbers)):
        names = plain_names([str(name) for group in given for name in group])
        unknown = [name for name in names if name not in state.params]
        if unknown:
            raise CheckpointError(f"the optimizer {whose} has parameters the state lacks: {_listed(unknown)}")
        return dict(zip(flat, names))
    if len(numbers) > 1:
        raise CheckpointError(
            f"the optimizer {whose} has {len(numbers)} parameter groups without names, so the order of its parameters "
            "is not known. Make it from model.named_parameters(), which keeps their names"
        )
    for names in (every, trained):
        if len(names) == len(flat):
            return dict(zip(flat, names))
    raise CheckpointError(
        f"the optimizer {whose} has {len(flat)} parameters, the state has {len(every)}, of which "
        f"{len(trained)} are trained"
    )


def _parts(opt_state: Tree) -> tuple[list[tuple[tuple[Any, ...], Any]], optree.PyTreeSpec]:
    """Paths and leaves, where what is known of the learning rate is one leaf; and the structure of these."""
    paths, leaves, spec = optree.tree_flatten_with_path(
        opt_state, is_leaf=lambda part: isinstance(part, LearningRateState), namespace=NAMESPACE
    )
    return list(zip(paths, leaves)), spec


def _is_moment(entries: tuple[Any, ...]) -> bool:
    """Whether a leaf belongs to a parameter, which may have any name, `count` included."""
    return len(entries) > 1 and any(entries[-2] in kinds for kinds in _MOMENTS)


def _holds_state(slot: Any) -> bool:
    return isinstance(slot, Mapping) and any(value is not None for value in slot.values())


def _check_kinds(moments: Mapping[str, Any], by_name: Mapping[str, Mapping[str, Any]], path: Path) -> None:
    found = {str(key) for slot in by_name.values() for key, value in slot.items() if value is not None} - {"step"}
    if found != set(moments):
        raise CheckpointError(
            f"the optimizer state in {path} holds {_listed(sorted(found))}, the state's optimizer keeps "
            f"{_listed(sorted(moments))}: build the state with the optimizer that wrote the file (with its momentum "
            "and amsgrad)"
        )


def _check_shapes(
    moments: Mapping[str, Mapping[str, Tensor]], by_name: Mapping[str, Mapping[str, Any]], path: Path
) -> None:
    problems = []
    for kind, moment in moments.items():
        for name, leaf in moment.items():
            value = by_name.get(name, {}).get(kind)
            if not isinstance(value, Tensor):
                problems.append(f"{kind} of {name}: not in the file (it was never updated)")
            elif kind_of := strangeness(value):
                problems.append(f"{kind} of {name}: {kind_of}")
            elif value.shape != leaf.shape:
                problems.append(f"{kind} of {name}: {tuple(value.shape)} in the file, {tuple(leaf.shape)} in the state")
        problems += [f"{kind} of {name}: not in the state" for name in by_name if name not in moment]
    if problems:
        raise CheckpointError(
            f"the optimizer state in {path} does not fit the state's:" + "".join(f"\n  {p}" for p in problems[:_SHOWN])
        )


def _count(by_name: Mapping[str, Mapping[str, Any]], step: int | None, path: Path) -> int:
    try:
        counts = {int(slot["step"]) for slot in by_name.values() if slot.get("step") is not None}
    except (TypeError, ValueError, OverflowError, RuntimeError) as error:
        raise CheckpointError(f"the optimizer state in {path} has a step that is no whole number: {error}") from error
    if len(counts) > 1:
        raise CheckpointError(
            f"the parameters in {path} have had different numbers of updates ({_listed(sorted(counts))}); functrain "
            "counts once for all"
        )
    if counts:
        return counts.pop()
    if step is None:
        raise CheckpointError(f"{path} does not say how many updates were done: say it with step=")
    return step


def _not_torchs(what: str) -> str:
    return (
        f"only the states of adam, adamw and sgd can be exchanged with torch.optim; the state's optimizer keeps {what}"
    )


def _listed(items: Iterable[Any]) -> str:
    listed = list(map(str, items))
    return (
        ", ".join(listed[:_SHOWN]) + (f" and {len(listed) - _SHOWN} more" if len(listed) > _SHOWN else "") or "nothing"
    )
