"""The parameters and buffers in a file, by the names of an uncompiled module on one device."""

import os
import re
import warnings
from collections import Counter
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from functrain.checkpoint.errors import passing
from functrain.checkpoint.foreign.archive import is_archive, open_archive
from functrain.checkpoint.foreign.safetensors_format import read_safetensors
from functrain.checkpoint.index import INDEX_FILE
from functrain.checkpoint.reader import read_arrays
from functrain.checkpoint.uninterrupted import uninterrupted
from functrain.foundation.errors import CheckpointError
from functrain.foundation.regular_files import require_regular

# Where files keep the model's state dict; without any of these keys the file is the state dict.
MODEL_KEYS = ("model_state_dict", "state_dict", "model")
# How Accelerate (`save_state`) and transformers name the file with the weights in a folder of several.
WEIGHTS_FILES = ("model.safetensors", "pytorch_model.bin")
_COMPILED = re.compile(r"(^|\.)(?:_orig_mod\.)+")
_WRAPPED = re.compile(r"(?:module\.)*")
_SHOWN = 8


def load_state_dict(path: str | os.PathLike[str], *, prefix: str = "") -> dict[str, Tensor]:
    """Load a model's parameters and buffers, whoever wrote the file.

    Understood are files of `torch.save` (.pt, .pth, .pth.tar, .ckpt, ...) that hold a state dict, alone or under
    `model_state_dict`, `state_dict` or `model`; safetensors files; folders that hold a `model.safetensors` or
    `pytorch_model.bin`, as Accelerate's do; and functrain's own checkpoints and archives. Names lose `_orig_mod.`
    (torch.compile) wherever it stands, and a leading `module.` (DataParallel and DistributedDataParallel) that
    all names have.

    Args:
        path: a file, or the directory of a checkpoint.
        prefix: of the model's names in the file, such as "model." in a checkpoint of Lightning; names
            without it are left out.

    Returns:
        Tensors on the CPU by name.

    Raises:
        CheckpointError: the file cannot be read, holds anything but plain data, or no state dict.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as directory:
        ...     torch.save({"state_dict": {"module.weight": torch.ones(2)}, "epoch": 3}, f"{directory}/old.pth.tar")
        ...     load_state_dict(f"{directory}/old.pth.tar")
        {'weight': tensor([1., 1.])}
    """
    path = weights_file(Path(path))
    if path.is_dir() and not (path / INDEX_FILE).exists():
        raise CheckpointError(
            f"{path} is neither a checkpoint of functrain (it has no {INDEX_FILE}) nor a folder with the weights in a "
            f"file {' or '.join(WEIGHTS_FILES)}"
        )
    if path.is_dir():
        groups = read_arrays(path, groups=("params", "buffers"))
        found = {re.sub(r"\\(.)", r"\1", name): leaf for leaves in groups.values() for name, leaf in leaves.items()}
        return _chosen({name: leaf for name, leaf in found.items() if isinstance(leaf, Tensor)}, prefix, path)
    if is_archive(path):
        with open_archive(path) as archive:
            return _chosen(archive.tensors(), prefix, path)
    if path.suffix == ".safetensors":
        return _chosen(strip_wrappers(read_safetensors(path), path), prefix, path)
    return model_of(load_plain(path), path, prefix)


def weights_file(path: Path) -> Path:
    """The file with the weights in a folder of Accelerate or transformers; anything else as it is."""
    if path.is_dir() and not (path / INDEX_FILE).exists():
        return next((path / name for name in WEIGHTS_FILES if (path / name).is_file()), path)
    return path


def load_plain(path: Path) -> Mapping[Any, Any]:
    """What a file of `torch.save` holds: a mapping of plain data. Code in the file is never run.

    Raises:
        CheckpointError: it cannot be read, or holds other things.
    """
    return uninterrupted(partial(_load_plain, path))


def _load_plain(path: Path) -> Mapping[Any, Any]:
    try:
        require_regular(path, path.stat())
        with warnings.catch_warnings():
            # torch says how closely it looks at sparse tensors, in each release otherwise; none of them is taken.
            warnings.filterwarnings("ignore", "Validating sparse tensor|Sparse invariant checks")
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        if condition := passing(error):
            raise condition from error
        if isinstance(error, OSError) and error.filename is not None:
            raise CheckpointError(f"cannot read {path}: {error}") from error
        if kind := _other_kind(path):
            raise CheckpointError(
                f"{path} is {kind}, not a file of weights: give a .pt, .pth, .ckpt or .safetensors, the directory of a "
                "checkpoint, or in a configuration that of a run"
            ) from error
        # Torch's advice around its reason, to load the file without weights_only, is not ours.
        text = str(error).rpartition("WeightsUnpickler error: ")[2].strip() or type(error).__name__
        reason = text.splitlines()[0][:200]
        raise CheckpointError(
            f"cannot load {path} with weights_only=True: {reason}. It is damaged, or holds more than tensors, numbers, "
            "strings and containers of these; such a file can run any code when it is opened. If you trust it, open it "
            "yourself and save model.state_dict() alone"
        ) from error
    if not isinstance(content, Mapping):
        raise CheckpointError(f"{path} holds a {type(content).__name__}, not a state dict")
    return content


def _other_kind(path: Path) -> str | None:
    """What a file is that does not begin as those of `torch.save` do; None for one that does."""
    with path.open("rb") as file:
        head = file.read(64)
    if not head:
        return "empty"
    if head.startswith((b"PK", b"\x80")):  # an archive, a pickle
        return None
    return "a text file" if head.isascii() and b"\0" not in head else None


def model_of(content: Mapping[Any, Any], path: Path, prefix: str = "") -> dict[str, Tensor]:
    """The model's state dict in what a file holds, with plain names."""
    found = next((content[key] for key in MODEL_KEYS if isinstance(content.get(key), Mapping)), content)
    others = [key for key, value in found.items() if not (isinstance(key, str) and isinstance(value, Tensor))]
    others = [key for key in others if not str(key).endswith("_extra_state")]  # a module's own, no tensor's
    if others or not found:
        shown = ", ".join(f"{key!r} ({type(found[key]).__name__})" for key in others[:_SHOWN])
        raise CheckpointError(
            f"{path} holds no state dict: it has none under {', '.join(MODEL_KEYS)}, and is none itself"
            + (f", for it holds {shown}" if shown else "")
        )
    tensors = {name: value.detach() for name, value in found.items() if isinstance(value, Tensor)}
    strange = [f"{name} ({kind})" for name, value in tensors.items() if (kind := strangeness(value))]
    if strange:
        raise CheckpointError(
            f"{path} holds tensors that no parameter can take its values from: {', '.join(strange[:_SHOWN])}"
            + (f" and {len(strange) - _SHOWN} more" if len(strange) > _SHOWN else "")
        )
    return _chosen(strip_wrappers(tensors, path), prefix, path)


def strangeness(tensor: Tensor) -> str:
    """What keeps a tensor from being copied into a parameter, or ""."""
    if tensor.is_meta:
        return "on the meta device, without values"
    if tensor.is_nested or tensor.layout != torch.strided:
        return str(tensor.layout).removeprefix("torch.")
    return "quantised" if tensor.is_quantized else ""


def strip_wrappers(tensors: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    """The tensors under the names they have without torch.compile and DataParallel around the module."""
    renamed = plain_names(list(tensors))
    if len(set(renamed)) < len(renamed):
        twice = next(name for name, count in Counter(renamed).items() if count > 1)
        raise CheckpointError(f"{path} has two tensors that are called {twice!r} without their prefixes")
    return dict(zip(renamed, tensors.values()))


def plain_names(names: list[str]) -> list[str]:
    """Names without `_orig_mod.` anywhere, and without a leading `module.` that all of them have.

    Example:
        >>> plain_names(["module._orig_mod.a.weight", "module._orig_mod.a.bias"])
        ['a.weight', 'a.bias']
        >>> plain_names(["module.weight", "head.weight"])
        ['module.weight', 'head.weight']
    """
    names = [_COMPILED.sub(r"\1", name) for name in names]
    common = min((_WRAPPED.match(name).end() for name in names), default=0)  # type: ignore[union-attr]
    return [name[common:] for name in names]


def _chosen(tensors: dict[str, Tensor], prefix: str, path: Path) -> dict[str, Tensor]:
    if not prefix:
        return tensors
    chosen = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
    if not chosen:
        shown = ", ".join(list(tensors)[:_SHOWN])
        raise CheckpointError(f"no name in {path} begins with {prefix!r}; there are {shown}")
    return chosen
