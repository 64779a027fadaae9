"""Copies of a state that the next step overwrites, in memory that is kept for the next save.

Fresh memory costs more than the copy itself: the system clears and hands out each page at its first use (2.5 us,
122,000 pages for 500 MB, on the virtual machine where it was measured). A save needs the second state in any case,
while training goes on, so keeping it takes no more memory at the peak than giving it back does.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch

from functrain.checkpoint import arrays
from functrain.foundation.torch_internals import copy_all

_ALIGNMENT = 64
# Larger tensors are copied in pieces by several threads, smaller ones one after the other.
_LARGE_NBYTES = 2**20
_PIECE_NBYTES = 2**24

_Signature = list[tuple[torch.Size, torch.dtype, tuple[int, ...]]]


class Staging:
    """Memory for the copies of one save at a time."""

    def __init__(self) -> None:
        self._signature: _Signature = []
        self._places: list[torch.Tensor | None] = []

    def copy(self, tensors: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Copies with the same bits, shapes and strides; the next call overwrites them.

        Args:
            tensors: on the CPU.
        """
        signature = [(tensor.shape, tensor.dtype, tensor.stride()) for tensor in tensors]
        if signature != self._signature:
            self.release()
            self._places, self._signature = _places(tensors), signature
        # What has holes, overlaps or a pending conjugation is rare and copied as torch does it.
        copies = [
            tensor.clone() if place is None or tensor.is_conj() or tensor.is_neg() else place
            for tensor, place in zip(tensors, self._places, strict=True)
        ]
        _fill([(place, tensor) for place, tensor, copy in zip(self._places, tensors, copies) if copy is place])
        return copies

    def release(self) -> None:
        """Give the memory back."""
        self._signature, self._places = [], []


def _places(tensors: Sequence[torch.Tensor]) -> list[torch.Tensor | None]:
    """Room for each tensor that fills its memory, all in one block."""
    fits = [tensor.numel() > 0 and arrays.is_dense(tuple(tensor.shape), tuple(tensor.stride())) for tensor in tensors]
    offsets, end = [], 0
    for tensor, fit in zip(tensors, fits, strict=True):
        offsets.append(end)
        if fit:
            end += -(-tensor.nbytes // _ALIGNMENT) * _ALIGNMENT
    block = torch.empty(end, dtype=torch.uint8)
    return [
        block[offset : offset + tensor.nbytes].view(tensor.dtype).as_strided(tensor.shape, tensor.stride())
        if fit
        else None
        for tensor, fit, offset in zip(tensors, fits, offsets, strict=True)
    ]


def _fill(pairs: Sequence[tuple[torch.Tensor, torch.Tensor]]) -> None:
    small = [pair for pair in pairs if pair[0].nbytes < _LARGE_NBYTES]
    if small:
        copy_all([target for target, _ in small], [source.detach() for _, source in small])
    pieces = [
        (target[start : start + _PIECE_NBYTES], source[start : start + _PIECE_NBYTES])
        for pair in pairs
        if pair[0].nbytes >= _LARGE_NBYTES
        for target, source in [tuple(map(_memory, pair))]
        for start in range(0, len(target), _PIECE_NBYTES)
    ]
    if len(pieces) == 1:
        np.copyto(*pieces[0])
    elif pieces:
        with ThreadPoolExecutor(torch.get_num_threads(), "functrain-staging") as pool:
            list(pool.map(lambda piece: np.copyto(*piece), pieces))


def _memory(tensor: torch.Tensor) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """The bytes of a tensor that fills its memory, in the order in which they lie there."""
    flat: np.ndarray[tuple[int, ...], np.dtype[np.uint8]] = (
        tensor.detach().as_strided((tensor.numel(),), (1,)).view(torch.uint8).numpy()
    )
    return flat
