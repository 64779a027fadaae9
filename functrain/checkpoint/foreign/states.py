"""Training states from foreign files, and foreign files from states."""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from functrain.checkpoint.files import write_atomically
from functrain.checkpoint.foreign.fitting import matched
from functrain.checkpoint.foreign.safetensors_format import write_safetensors
from functrain.checkpoint.foreign.state_dicts import load_plain, load_state_dict, model_of, weights_file
from functrain.checkpoint.foreign.torch_optimizers import from_torch, to_torch
from functrain.foundation.errors import CheckpointError
from functrain.step.state import TrainState, empty_accumulator
from functrain.step.to_module import to_module

OPTIMIZER_KEYS = ("optimizer_state_dict", "optimizer", "optimizer_states")
OPTIMIZER_FILE = "optimizer.bin"  # Accelerate's
STEP_KEYS = ("step", "global_step")


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
        allow_dropped: names or patterns of tensors in the file that are left out, also where they would fit.
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
    return _with_weights(state, matched(state, tensors, Path(path), allow_new, allow_dropped))


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
    (Lightning's; its first), and in the file `optimizer.bin` of a folder (Accelerate's). The learning rate and
    the other hyperparameters are those of the state's optimizer, not the file's. Epoch and position in the data
    are not taken over: files do not agree on what they count.

    Args:
        state: a fresh state of the same model and the same kind of optimizer.
        path: the file, or the folder that Accelerate's `save_state` wrote.
        optimizer_path: the file with the optimizer's state, where it is another one.
        step: updates done. Needed for SGD if the file has no integer under `step` or `global_step`, as
            Accelerate's have none.
        prefix: of the model's names in the file.

    Raises:
        CheckpointError: a file cannot be read or does not fit; nothing is left out here.
    """
    folder, path = Path(path), weights_file(Path(path))
    if optimizer_path is None and folder != path:
        optimizer_path = folder / OPTIMIZER_FILE
    own = optimizer_path is None
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
    loaded = _with_weights(state, matched(state, tensors, path, (), ()))
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
