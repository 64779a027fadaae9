"""Training states from foreign files, and foreign files from states.

Imports torch, functrain.foundation, functrain.step and the neighbouring modules only.
"""

import dataclasses
import os
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from functrain.checkpoint.files import write_atomically
from functrain.checkpoint.foreign.safetensors_format import write_safetensors
from functrain.checkpoint.foreign.state_dicts import load_plain, load_state_dict, model_of
from functrain.checkpoint.foreign.torch_optimizers import from_torch, skeleton, to_torch
from functrain.foundation.errors import CheckpointError
from functrain.step.state import TrainState, empty_accumulator, to_module

OPTIMIZER_KEYS = ("optimizer_state_dict", "optimizer", "optimizer_states")
STEP_KEYS = ("step", "global_step")
_SHOWN = 20


def init_from(
    state: TrainState,
    path: str | os.PathLike[str],
    *,
    allow_new: Sequence[str] = (),
    allow_dropped: Sequence[str] = (),
    prefix: str = "",
) -> TrainState:
    """Start from the parameters and buffers of a file; nothing else is taken over.

    A leaf is loaded if the file has one of its name and shape; floating-point values are converted to the
    state's dtype, as `init_state` converts a model's. Anything else is an error, unless it is named. The
    optimizer state, the averages and the accumulator are those of a state that begins with these
    parameters; key and counters stay.

    Args:
        state: a fresh state.
        path: anything that `load_state_dict` reads: .pt, .pth, .safetensors, a functrain checkpoint.
        allow_new: leaves that may keep their initial value; names or patterns such as "head.*".
        allow_dropped: names or patterns of tensors in the file that are left out.
        prefix: of the model's names in the file.

    Raises:
        CheckpointError: the file cannot be read, or does not fit; the message lists what.
        ValueError: a name or pattern fits nothing.

    Example:
        >>> import tempfile, functrain as ft
        >>> state = ft.init_state(torch.nn.Linear(2, 1), ft.regression(), ft.optim.sgd(0.1))
        >>> with tempfile.TemporaryDirectory() as directory:
        ...     torch.save({"weight": torch.ones(1, 2), "bias": torch.zeros(1)}, f"{directory}/linear.pt")
        ...     init_from(state, f"{directory}/linear.pt").params["weight"]
        tensor([[1., 1.]])
    """
    tensors = load_state_dict(path, prefix=prefix)
    return _with_weights(state, _matched(state, tensors, Path(path), allow_new, allow_dropped))


def load_torch(
    state: TrainState,
    path: str | os.PathLike[str],
    *,
    optimizer_path: str | os.PathLike[str] | None = None,
    step: int | None = None,
    prefix: str = "",
) -> TrainState:
    """Go on from a torch training checkpoint: parameters, buffers, and the state of Adam, AdamW or SGD.

    The optimizer's state is looked for under `optimizer_state_dict`, `optimizer` and `optimizer_states`
    (Lightning's; its first). The learning rate and the other hyperparameters are those of the state's
    optimizer, not the file's. Epoch and position in the data are not taken over: files do not agree on
    what they count.

    Args:
        state: a fresh state of the same model and the same kind of optimizer.
        path: the file.
        optimizer_path: the file with the optimizer's state, where it is another one (Accelerate's).
        step: updates done. Needed for SGD if the file has no integer under `step` or `global_step`.
        prefix: of the model's names in the file.

    Raises:
        CheckpointError: a file cannot be read or does not fit; nothing is left out here.
    """
    path, own = Path(path), optimizer_path is None
    content: Mapping[Any, Any] = {}
    if own or path.suffix != ".safetensors":
        content = load_plain(path)
        tensors = model_of(content, path, prefix)
    else:
        tensors = load_state_dict(path, prefix=prefix)
    source = path if optimizer_path is None else Path(optimizer_path)
    holder = content if own else load_plain(source)
    saved = next((holder[key] for key in OPTIMIZER_KEYS if key in holder), None if own else holder)
    if isinstance(saved, (list, tuple)) and saved:
        saved = saved[0]
    if saved is None:
        raise CheckpointError(
            f"{path} holds no optimizer state (looked for under {', '.join(OPTIMIZER_KEYS)}): to start from its "
            "parameters alone, use init_from"
        )
    if step is None:
        step = next((content[key] for key in STEP_KEYS if type(content.get(key)) is int), None)
    loaded = _with_weights(state, _matched(state, tensors, path, (), ()))
    opt_state, count = from_torch(loaded, saved, step, source)
    done = count if step is None else step
    counts = dataclasses.replace(loaded.counts, applied=torch.full_like(loaded.counts.applied, done))
    return loaded.replace(opt_state=opt_state, step=done, counts=counts)


def save_torch(
    state: TrainState,
    path: str | os.PathLike[str],
    *,
    ema: bool = False,
    optimizer: torch.optim.Optimizer | None = None,
) -> None:
    """Write a file for those who use torch without functrain; it loads with `weights_only=True`.

    It holds `model_state_dict`, `epoch` and `step`, and with `optimizer` also `optimizer_state_dict`, which
    that optimizer's `load_state_dict` takes.

    Args:
        state: any state.
        path: the file, such as model.pt; an existing one is replaced when the new one is complete.
        ema: write the averaged parameters.
        optimizer: a torch optimizer over the parameters of `to_module(state)`, of the state's kind (Adam,
            AdamW or SGD) and with the hyperparameters that are to be written; it is not changed.

    Raises:
        CheckpointError: the file cannot be written, or the optimizer is of another kind.
        ValueError: `ema` is asked of a state without one.

    Example:
        >>> import tempfile, functrain as ft
        >>> state = ft.init_state(torch.nn.Linear(2, 1), ft.regression(), ft.optim.sgd(0.1))
        >>> with tempfile.TemporaryDirectory() as directory:
        ...     save_torch(state, f"{directory}/linear.pt")
        ...     saved = torch.load(f"{directory}/linear.pt", weights_only=True)
        >>> torch.nn.Linear(2, 1).load_state_dict(saved["model_state_dict"])
        <All keys matched successfully>
    """
    content: dict[str, Any] = {
        "model_state_dict": dict(to_module(state, ema=ema).state_dict()),
        "epoch": state.epoch,
        "step": state.step,
    }
    if optimizer is not None:
        content["optimizer_state_dict"] = to_torch(state, optimizer)
    with write_atomically(Path(path)) as file:
        torch.save(content, file)


def save_safetensors(
    state: TrainState, path: str | os.PathLike[str], *, ema: bool = False, metadata: Mapping[str, str] = {}
) -> None:
    """Write the model's parameters and buffers as safetensors.

    Of tied tensors the first is written; the metadata say for the other names which one that is, as the
    safetensors library's `save_model` does.

    Args:
        state: any state.
        path: the file; an existing one is replaced when the new one is complete.
        ema: write the averaged parameters.
        metadata: strings by name, for the header.

    Raises:
        CheckpointError: the file cannot be written.
        TypeError: the format has no such dtype.
        ValueError: `ema` is asked of a state without one.
    """
    module = to_module(state, ema=ema)
    tensors: dict[str, Tensor] = {}
    first: dict[int, str] = {}
    ties: dict[str, str] = {}
    for name, value in module.state_dict(keep_vars=True).items():
        if not isinstance(value, Tensor):
            continue
        owner = first.setdefault(id(value), name)
        if owner == name:
            tensors[name] = value.detach()
        else:
            ties[name] = owner
    write_safetensors(tensors, path, {"format": "pt", **ties, **metadata})


def _matched(
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
        if owner is None:
            if not _named(name, allow_dropped):
                problems.append(f"{name}: {_describe(value)} in the file, not in the state")
            continue
        seen.add(owner)
        if not _fits(value, leaves[owner]):
            if not _named(owner, allow_new):
                problems.append(f"{name}: {_describe(value)} in the file, {_describe(leaves[owner])} in the state")
        elif owner in chosen and not torch.equal(chosen[owner], value):
            problems.append(f"{name}: not equal to {owner} in the file, tied to it in the state")
        else:
            chosen[owner] = value
    for owner in dict.fromkeys(aliases.values()):
        if owner not in seen and not _named(owner, allow_new):
            problems.append(f"{owner}: not in the file, {_describe(leaves[owner])} in the state")
    if problems:
        raise CheckpointError(_misfit(path, problems))
    return chosen


def _names(state: TrainState) -> dict[str, str]:
    """Every name of the module's state dict, and the state's name for it, which differ where tensors are tied."""
    module = skeleton(state)
    owners = {id(t): name for name, t in [*module.named_parameters(), *module.named_buffers()]}
    return {name: owners[id(t)] for name, t in module.state_dict(keep_vars=True).items() if id(t) in owners}


def _fits(value: Tensor, leaf: Tensor) -> bool:
    same_kind = value.dtype == leaf.dtype or (value.dtype.is_floating_point and leaf.dtype.is_floating_point)
    return same_kind and value.shape == leaf.shape


def _with_weights(state: TrainState, values: Mapping[str, Tensor]) -> TrainState:
    def replaced(leaves: Mapping[str, Tensor]) -> dict[str, Tensor]:
        # A copy in the layout, dtype and place of the leaf.
        return {n: torch.empty_like(leaf).copy_(values[n]) if n in values else leaf for n, leaf in leaves.items()}

    params, buffers = replaced(state.params), replaced(state.buffers)
    trainable = {name: params[name] for name in state.recipe.network.trainable}
    return state.replace(
        params=params,
        buffers=buffers,
        opt_state=state.recipe.optimizer.init(trainable),
        ema=None if state.recipe.ema is None else state.recipe.ema.init(trainable, buffers),
        accumulator=None if state.accumulator is None else empty_accumulator(trainable, buffers),
    )


def _named(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _require_use(argument: str, patterns: Sequence[str], names: Mapping[str, Any]) -> None:
    if isinstance(patterns, str):
        raise ValueError(f"{argument} must be a list of names, got the string {patterns!r}")
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            shown = ", ".join(list(names)[:_SHOWN])
            raise ValueError(f"{argument} names {pattern!r}, which fits nothing; there are {shown}")


def _describe(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}"


def _misfit(path: Path, problems: Sequence[str]) -> str:
    return "".join(_misfit_lines(path, problems))


def _misfit_lines(path: Path, problems: Sequence[str]) -> Iterator[str]:
    yield f"{path} does not fit the model:"
    yield from (f"\n  {problem}" for problem in problems[:_SHOWN])
    if len(problems) > _SHOWN:
        yield f"\n  ... and {len(problems) - _SHOWN} more"
    yield (
        "\nName what may keep its initial value in allow_new, and what may be left out in allow_dropped (patterns such "
        "as 'head.*' too); where all names differ by a common beginning, name it with prefix."
    )
