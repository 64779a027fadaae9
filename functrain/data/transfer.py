"""Batches to the device that trains."""

from collections import deque
from typing import Any

import numpy as np
import torch

from functrain.foundation.containers import register_containers
from functrain.foundation.trees import flatten, unflatten


def to_device(batch: Any, device: torch.device | str, non_blocking: bool = False) -> Any:
    """The batch with its tensors on `device` and its NumPy arrays as tensors there.

    Args:
        batch: any tree, see `foundation.containers`; leaves that are neither tensors nor arrays stay as they are,
            except that an object with a method `to` is asked to move itself.
        device: where to.
        non_blocking: do not wait for copies from pinned memory.

    Example:
        >>> to_device({"inputs": np.zeros(2), "name": "a"}, "cpu")
        {'inputs': tensor([0., 0.], dtype=torch.float64), 'name': 'a'}
    """

    def move(leaf: Any) -> Any:
        leaf = _as_tensor(leaf)
        if isinstance(leaf, torch.Tensor):
            return leaf.to(device, non_blocking=non_blocking)
        return leaf.to(device) if callable(getattr(leaf, "to", None)) else leaf

    device = torch.device(device)
    if device.type == "cpu" and _is_there(batch):
        return batch
    register_containers(batch)
    leaf_list, spec = flatten(batch)
    if all(type(leaf) is torch.Tensor and leaf.device == device for leaf in leaf_list):
        return batch
    return unflatten(spec, list(map(move, leaf_list)))


class Transfer:
    """Copies batches to a device, where they arrive while it still computes with the ones before.

    On a GPU the host does not wait for the steps that it asks for, so it is ahead of the device when it comes to the
    next batch. That one goes through page-locked memory and a stream of its own, beside the computation, which waits
    for it on the device. No batch is read before it is asked for.

    Args:
        device: where to.
        ahead: how many batches may be on the device beside the one that it computes with; without a bound the host
            would fill the device's memory with them.

    Example:
        >>> Transfer(torch.device("cpu"))((torch.zeros(2), np.ones(1)))
        (tensor([0., 0.]), tensor([1.], dtype=torch.float64))
    """

    def __init__(self, device: torch.device, ahead: int = 2) -> None:
        self._device, self._ahead = device, ahead
        self._is_cpu = device.type == "cpu"
        self._side: torch.cuda.Stream | None = None
        self._used: deque[torch.cuda.Event] = deque()  # each recorded when a batch's work had been asked for

    def __call__(self, batch: Any) -> Any:
        """The batch on the device; leaves as of `to_device`."""
        if self._is_cpu and _is_there(batch):
            return batch
        if self._device.type != "cuda":
            return to_device(batch, self._device)
        register_containers(batch)
        leaf_list, spec = flatten(batch)
        leaf_list = list(map(_as_tensor, leaf_list))
        if any(not isinstance(leaf, torch.Tensor) and callable(getattr(leaf, "to", None)) for leaf in leaf_list):
            return to_device(batch, self._device)  # what moves itself knows nothing of streams
        return unflatten(spec, self._beside(leaf_list))

    def _beside(self, leaf_list: list[Any]) -> list[Any]:
        if self._side is None:
            self._side = torch.cuda.Stream(self._device)
        current = torch.cuda.current_stream(self._device)
        self._used.append(current.record_event())
        if len(self._used) > self._ahead:
            self._used.popleft().synchronize()  # the host waits for a step some steps back, never for the last one
        with torch.cuda.stream(self._side):
            moved = [self._copied(leaf) for leaf in leaf_list]
        current.wait_stream(self._side)
        for before, after in zip(leaf_list, moved):
            if after is not before:
                after.record_stream(current)  # its memory is the side stream's: not to be used anew while in use here
        return moved

    def _copied(self, leaf: Any) -> Any:
        if not isinstance(leaf, torch.Tensor) or leaf.device.type == "cuda":
            return leaf if not isinstance(leaf, torch.Tensor) else leaf.to(self._device)
        pinned = leaf if leaf.is_pinned() else leaf.pin_memory()
        return pinned.to(self._device, non_blocking=True)


def _is_there(batch: Any) -> bool:
    """Whether a batch is a plain sequence of tensors on the CPU: the usual case there, at each step."""
    if type(batch) is not list and type(batch) is not tuple:
        return False
    for leaf in batch:  # noqa: SIM110 - `all` of a generator takes as long as the rest together
        if type(leaf) is not torch.Tensor or not leaf.is_cpu:
            return False
    return True


def _as_tensor(leaf: Any) -> Any:
    """A NumPy array of numbers as a tensor; any other leaf as it is."""
    if not isinstance(leaf, np.ndarray) or leaf.dtype.kind not in "biufc":
        return leaf
    return torch.from_numpy(leaf if leaf.flags.writeable else leaf.copy())
