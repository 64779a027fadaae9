"""Computing with tensors that have shapes and no values: nothing is allocated, nothing is computed.

torch's fake tensors know the device that they stand for, so they take the kernels that real ones take, and a step on
them makes and frees the same tensors. `LiveMemory` adds up what is alive.
"""

import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from functrain.compiler.sizes import fake_mode
from functrain.foundation.containers import register_containers
from functrain.foundation.torch_internals import TorchDispatchMode
from functrain.foundation.trees import Tree, tree_map


@contextmanager
def without_values() -> Iterator[Callable[[Tree], Tree]]:
    """Within, tensors have no values; what it gives makes a tree of such tensors like those of another tree.

    Example:
        >>> with without_values() as like:
        ...     product = like(torch.ones(1000, 2)) @ torch.ones(2, 10**9)
        >>> product.shape
        torch.Size([1000, 1000000000])
    """
    mode = fake_mode(symbols=False)

    def like(tree: Tree) -> Tree:
        register_containers(tree)
        return tree_map(lambda leaf: mode.from_tensor(leaf) if isinstance(leaf, Tensor) else leaf, tree)

    with mode:
        yield like


class LiveMemory(TorchDispatchMode):
    """Adds up the memory of the tensors that are alive, those of real ones or of such without values.

    Attributes:
        now: bytes that are alive.
        peak: the most there were.

    Example:
        >>> with LiveMemory() as memory:
        ...     a = torch.zeros(100)
        ...     b = a.view(10, 10) + 1
        ...     del a, b
        >>> memory.now, memory.peak
        (0, 800)
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._known: dict[int, weakref.ref[Any]] = {}

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Else torch wraps the method below in something that imports all of Dynamo."""
        return True

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run `func` and count what it makes."""
        result = func(*args, **(kwargs or {}))
        self.count(result if isinstance(result, (list, tuple)) else (result,))
        return result

    def count(self, values: Iterable[Any]) -> None:
        """Count the memory of tensors, each storage once."""
        for value in values:
            if isinstance(value, (list, tuple)):
                self.count(value)
            elif isinstance(value, Tensor) and value.layout is torch.strided:
                self._add(value.untyped_storage())

    def _add(self, storage: torch.UntypedStorage) -> None:
        number, size = id(storage), storage.nbytes()
        if number not in self._known:

            def gone(_: Any) -> None:
                self._known.pop(number, None)
                self.now -= size

            self._known[number] = weakref.ref(storage, gone)
            self.now += size
            self.peak = max(self.peak, self.now)
