"""A digest of a state: equal exactly where `diff_states` finds no difference."""

import hashlib
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from functrain.foundation.pieces import Piece
from functrain.foundation.trees import leaves_with_paths
from functrain.step.state import TrainState

DIGITS = 32  # of SHA-256's 64: 128 bits
SMALL = 2**16  # bytes of a leaf in shards, below which its rows travel with those of others


@torch.no_grad()
def digest(state: Any) -> str:
    """The digest of a state's bits, or of any other tree's: equal for equal states, and different for different ones.

    It covers each leaf's path, dtype, shape and bits. The device, the layout in memory, the recipe, and the way in
    which a step ran do not count. A digest waits for the device. SHA-256 takes about a millisecond for each megabyte.
    Of a state in shards all processes must ask; process 0 takes it, and gets the rows of the others in turn.

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
    exchange = state.recipe.exchange if isinstance(state, TrainState) else None
    if exchange is None:
        return _digest(state, lambda _: ())
    if not exchange.is_in_pieces:
        return _digest(exchange.whole(state), lambda _: ())
    device = state.device
    found = _digest(
        exchange.in_pieces(state, gathered_below=SMALL), lambda piece: exchange.rows_on_first(piece, device)
    )
    return exchange.told_by_first(found)


def _digest(tree: Any, rows: Callable[[Piece], Iterable[Tensor]]) -> str:
    """Of a tree in which pieces may stand for tensors, whose rows are asked for one after the other."""
    found = hashlib.sha256()
    leaves = leaves_with_paths(tree)
    # First all forms, then all bits: so no two trees give the same bytes.
    found.update("\n".join(f"{path}\0{_form(leaf)}" for path, leaf in leaves).encode(errors="surrogatepass") + b"\0\0")
    for _, leaf in leaves:
        for part in rows(leaf) if isinstance(leaf, Piece) else (leaf,):
            if isinstance(part, Tensor):
                found.update(_bits(part))
    return found.hexdigest()[:DIGITS]


def _form(leaf: Any) -> str:
    if isinstance(leaf, (Tensor, Piece)):
        return f"{leaf.dtype}{list(leaf.shape)}"
    return f"{type(leaf).__name__} {leaf!r}"


def _bits(tensor: Tensor) -> memoryview:
    """The bytes in row-major order."""
    tensor = tensor.detach().cpu().resolve_conj().resolve_neg().contiguous()
    return tensor.reshape(-1).view(torch.uint8).numpy().data
