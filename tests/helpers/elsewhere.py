"""A second device for tests, on a machine that has none: tensors with values that say they are elsewhere.

An operator that mixes tensors of both devices raises, as between a CPU and a GPU, but for 0-d tensors of the CPU.
"""

from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map

ELSEWHERE, CPU = torch.device("xpu", 0), torch.device("cpu")


class Elsewhere(Tensor):
    """A tensor whose device is `ELSEWHERE`, and whose values are in `held`, on the CPU."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor) -> "Elsewhere":
        made = torch.Tensor._make_subclass(cls, held.detach(), held.requires_grad)
        made.held = held.detach()
        return made

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        return ELSEWHERE

    @property
    def is_cpu(self) -> bool:  # type: ignore[override]
        return False

    def __repr__(self) -> str:
        return f"Elsewhere({self.held})"

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        here = [leaf.shape for leaf in tensors if not isinstance(leaf, cls) and leaf.ndim]
        if here and func is not torch.ops.aten.copy_.default:
            raise AssertionError(f"{func} mixes tensors of two devices; on the CPU are {here}")
        to = kwargs.get("device")
        if to is not None and torch.device(to).type == ELSEWHERE.type:
            kwargs = {**kwargs, "device": CPU}
        found = func(*tree_map(_held, args), **tree_map(_held, kwargs))
        if to is not None and torch.device(to).type == "cpu":
            return found
        return tree_map(lambda leaf: cls(leaf) if isinstance(leaf, Tensor) else leaf, found)


def _held(leaf: Any) -> Any:
    return leaf.held if isinstance(leaf, Elsewhere) else leaf


class Transfers(TorchFunctionMode):
    """Within it, tensors can be made on `ELSEWHERE` and sent there and back.

    Attributes:
        sent: how many elements went from one device to the other.
    """

    def __init__(self) -> None:
        super().__init__()
        self.sent = {"to the CPU": 0, "from the CPU": 0}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        target = next((each for each in args[1:] if isinstance(each, torch.device)), None)
        if func is Tensor.to and target is not None and target != args[0].device:
            return self._sent(args[0], target)
        if func is Tensor.cpu and isinstance(args[0], Elsewhere):
            return self._sent(args[0], CPU)
        if kwargs.get("device") != ELSEWHERE:
            return func(*args, **kwargs)
        return Elsewhere(func(*args, **{**kwargs, "device": CPU}))

    def _sent(self, tensor: Tensor, device: torch.device) -> Tensor:
        self.sent["to the CPU" if device == CPU else "from the CPU"] += tensor.numel()
        assert {device, tensor.device} == {CPU, ELSEWHERE}
        return tensor.held.clone() if isinstance(tensor, Elsewhere) else Elsewhere(tensor.clone())
