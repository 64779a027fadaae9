"""A digest of a state: equal exactly where `diff_states` finds no difference."""

import hashlib
from typing import Any

import torch
from torch import Tensor

from functrain.foundation.trees import leaves_with_paths
from functrain.step.state import TrainState, whole

DIGITS = 32  # of SHA-256's 64: 128 bits


@torch.no_grad()
def digest(state: Any) -> str:
    """The digest of a state's bits, or of any other tree's: equal for equal states, and different for different ones.

    It covers each leaf's path, dtype, shape and bits. The device, the layout in memory, the recipe, and the way in
    which a step ran do not count. A digest waits for the device. SHA-256 takes about a millisecond for each megabyte.

    Args:
        state: a `TrainState`, or a tree of tensors and Python scalars.

    Returns:
        32 hexadecimal digits, the first half of a SHA-256.

    Example:
        >>> digest({"w": torch.tensor([1.0, 2.0]), "step": 3})
        '881da383d63507281d39f053b1bbed6b'
        >>> digest({"w": torch.tensor([0.0])}) == digest({"w": torch.tensor([-0.0])})
        False
    """
    found = hashlib.sha256()
    leaves = leaves_with_paths(whole(state) if isinstance(state, TrainState) else state)
    # First all forms, then all bits: so no two trees give the same bytes.
    found.update("\n".join(f"{path}\0{_form(leaf)}" for path, leaf in leaves).encode(errors="surrogatepass") + b"\0\0")
    for _, leaf in leaves:
        if isinstance(leaf, Tensor):
            found.update(_bits(leaf))
    return found.hexdigest()[:DIGITS]


def _form(leaf: Any) -> str:
    if isinstance(leaf, Tensor):
        return f"{leaf.dtype}{list(leaf.shape)}"
    return f"{type(leaf).__name__} {leaf!r}"


def _bits(tensor: Tensor) -> memoryview:
    """The bytes in row-major order."""
    tensor = tensor.detach().cpu().resolve_conj().resolve_neg().contiguous()
    return tensor.reshape(-1).view(torch.uint8).numpy().data
