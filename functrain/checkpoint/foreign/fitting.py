"""Which tensor of a file belongs to which leaf of a state, and what does not fit."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from functrain.checkpoint.foreign.torch_optimizers import skeleton
from functrain.foundation.errors import CheckpointError
from functrain.foundation.patterns import did_you_mean, fits
from functrain.foundation.printing import printable
from functrain.step.state import TrainState

_SHOWN = 20


def matched(
    state: TrainState, tensors: Mapping[str, Tensor], path: Path, allow_new: Sequence[str], allow_dropped: Sequence[str]
) -> dict[str, Tensor]:
    """The file's tensors by the state's names; everything that does not fit is named by the caller or an error."""
    leaves = {**state.params, **state.buffers}
    aliases = _names(state)
    owners = {name: name for name in leaves} | aliases  # non-persistent buffers may be there or not
    _require_use("allow_new", allow_new, leaves)
    _require_use("allow_dropped", allow_dropped, tensors)
    chosen: dict[str, Tensor] = {}
    seen: set[str] = set()
    problems: list[str] = []
    for name, value in tensors.items():
        owner = owners.get(name)
        if fits(name, allow_dropped):
            continue
        if owner is None:
            problems.append(f"{name}: {_describe(value)} in the file, not in the state")
            continue
        seen.add(owner)
        if not _fits(value, leaves[owner]):
            if not fits(owner, allow_new):
                problems.append(f"{name}: {_describe(value)} in the file, {_describe(leaves[owner])} in the state")
        elif owner in chosen and not torch.equal(chosen[owner], value):
            problems.append(f"{name}: not equal to {owner} in the file, tied to it in the state")
        else:
            chosen[owner] = value
    for owner in dict.fromkeys(aliases.values()):
        if owner not in seen and not fits(owner, allow_new):
            problems.append(f"{owner}: not in the file, {_describe(leaves[owner])} in the state")
    if problems:
        raise CheckpointError("".join(_misfit(path, problems, _common_prefix(aliases, tensors))))
    return chosen


def _names(state: TrainState) -> dict[str, str]:
    """Every name of the module's state dict, and the state's name for it, which differ where tensors are tied."""
    module = skeleton(state)
    owners = {id(t): name for name, t in [*module.named_parameters(), *module.named_buffers()]}
    return {name: owners[id(t)] for name, t in module.state_dict(keep_vars=True).items() if id(t) in owners}


def _fits(value: Tensor, leaf: Tensor) -> bool:
    same_kind = value.dtype == leaf.dtype or (value.dtype.is_floating_point and leaf.dtype.is_floating_point)
    return same_kind and value.shape == leaf.shape


def _require_use(argument: str, patterns: Sequence[str], names: Mapping[str, Any]) -> None:
    if isinstance(patterns, str):
        raise ValueError(f"{argument} must be a list of names, got the string {patterns!r}")
    for pattern in patterns:
        if not any(fits(name, [pattern]) for name in names):
            shown, meant = ", ".join(list(names)[:_SHOWN]), did_you_mean(pattern, list(names)).rstrip(".")
            raise ValueError(f"{argument} names {pattern!r}, which fits nothing; there are {printable(shown + meant)}")


def _describe(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}"


def _common_prefix(names: Mapping[str, Any], tensors: Mapping[str, Any]) -> str:
    """What the file has before each of the model's names, if it has them all; else ""."""
    first = next(iter(names), "")
    candidates = [found.removesuffix(first) for found in tensors if first and found.endswith("." + first)]
    candidates = candidates[:_SHOWN]  # a file may have any number of names that end so
    return next((prefix for prefix in candidates if all(prefix + name in tensors for name in names)), "")


def _misfit(path: Path, problems: Sequence[str], prefix: str) -> Iterator[str]:
    yield f"{path} does not fit the model:"
    yield from (f"\n  {problem}" for problem in problems[:_SHOWN])
    if len(problems) > _SHOWN:
        yield f"\n  ... and {len(problems) - _SHOWN} more"
    if prefix:
        yield f"\nIn the file all names of the model are there behind {prefix!r}: give that as prefix."
        return
    yield (
        "\nName what may keep its initial value in allow_new, and what may be left out in allow_dropped (patterns such "
        "as 'head.*' too); where all names differ by a common beginning, name it with prefix."
    )
