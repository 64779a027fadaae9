"""The batches of a loader, as often as they are asked for."""

from collections.abc import Iterator
from typing import Any

from functrain.data import as_stream, to_device
from functrain.foundation.containers import register_containers
from functrain.foundation.errors import DataError
from functrain.foundation.keys import fold_in
from functrain.step.state import TrainState


class Batches:
    """The batches of a loader's first pass, on the state's device; each iteration gives them again.

    Args:
        state: whose key decides the order and the draws of a loader that shuffles or augments.
        loader: as for `fit`, or a single pass over a list.

    Raises:
        TypeError: an iterator, which could be read only once, or no loader.
        DataError: on iteration, if there is no batch.

    Example:
        >>> import torch, functrain as ft
        >>> state = ft.init_state(torch.nn.Linear(2, 1), ft.regression(), ft.optim.sgd(0.1))
        >>> batches = Batches(state, [(torch.ones(4, 2), torch.zeros(4, 1))])
        >>> [len(targets) for _ in range(2) for _, targets in batches]
        [4, 4]
    """

    def __init__(self, state: TrainState, loader: Any) -> None:
        if isinstance(loader, Iterator):
            raise TypeError(
                f"the loader is an iterator ({type(loader).__name__}), which gives its batches only once, and they are "
                "read several times. Give an object whose __iter__ starts anew: a list, a DataLoader, ft.data.Loader"
            )
        self._loader, self._device, self._key = loader, state.device, fold_in(state.key, "transforms")

    def __iter__(self) -> Iterator[Any]:
        stream, found = as_stream(self._loader, self._key, what="given"), False
        try:
            for batch in stream.batches(0):
                found = True
                register_containers(batch)
                yield to_device(batch, self._device)
        finally:
            stream.close()
        if not found:
            raise DataError("the loader gave no batch, so there is nothing to compute with")
