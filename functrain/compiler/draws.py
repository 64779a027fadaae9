"""Random numbers that a traced step draws again after it has put a generator back: the graph takes the first ones.

`torch.utils.checkpoint` runs a part of the network again in the backward pass, with the generator put back to the state
that it had at the first time, so that dropout has the same mask. A graph has no generators' states.
"""

from typing import Any

import torch
from torch import Tensor

from functrain.foundation.errors import TracingError
from functrain.foundation.torch_internals import TorchDispatchMode, draws


class KeptDraws(TorchDispatchMode):
    """Keeps what is drawn in each state of a generator, and gives it again when the state comes again.

    Tracing draws nothing, so that a generator would stay where it is. Here each draw moves it on: to a new seed, which
    tells its states apart. The caller seeds the generators, and puts them back.

    Args:
        name: of the step, for the refusal of a generator of the model's own.
    """

    supports_higher_order_operators = True

    def __init__(self, name: str) -> None:
        super().__init__()
        self._name = name
        self._kept: dict[Any, tuple[Any, int]] = {}

    @property
    def any(self) -> bool:
        """Whether something was drawn."""
        return bool(self._kept)

    @classmethod
    def ignore_compile_internals(cls) -> bool:
        """Let Dynamo, which torch.cond calls for its branches, work within this mode."""
        return True

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run `func`, or take its result from the first time."""
        kwargs = kwargs or {}
        if kwargs.get("generator") is not None:
            raise TracingError(
                f"the {self._name} step cannot be compiled: {func} draws from a torch.Generator of its own, whose "
                "state is no part of the training state. Draw without generator=: the step seeds the default one (or "
                "run without compiling, compile=False)"
            )
        if not draws(func):
            return func(*args, **kwargs)
        generator = _generator_of(args, kwargs)
        state = generator.device, generator.initial_seed(), func, _forms((args, sorted(kwargs.items())))
        if state not in self._kept:
            result = func(*args, **kwargs)
            # A copy: the result itself may be written to, as dropout does with its mask.
            self._kept[state] = _copied(result), len(self._kept) + 1
            generator.manual_seed(self._kept[state][1])
            return result
        kept, following = self._kept[state]
        generator.manual_seed(following)
        return args[0].copy_(kept) if func._schema.is_mutable else _copied(kept)


def drop_unused_copies(graph: torch.fx.Graph) -> None:
    """Erase the copies of draws that did not come again."""
    for node in reversed(graph.find_nodes(op="call_function", target=torch.ops.aten.clone.default)):
        if not node.users:
            graph.erase_node(node)


def _generator_of(args: Any, kwargs: Any) -> torch.Generator:
    devices = [arg.device for arg in args if isinstance(arg, Tensor)]
    device = torch.device(kwargs.get("device") or (devices[0] if devices else "cpu"))
    if device.type != "cuda":
        return torch.default_generator
    return torch.cuda.default_generators[torch.cuda.current_device() if device.index is None else device.index]


def _forms(value: Any) -> Any:
    if isinstance(value, (tuple, list)):
        return tuple(map(_forms, value))
    return _form(value) if isinstance(value, Tensor) else repr(value)


def _form(tensor: Tensor) -> tuple[Any, ...]:
    """Shape and dtype of a tensor, as a key; a size that is not known is like any other such."""
    return tuple([size if isinstance(size, int) else "?" for size in tensor.shape]), tensor.dtype


def _copied(value: Any) -> Any:
    if isinstance(value, (tuple, list)):
        return type(value)(map(_copied, value))
    return value.clone() if isinstance(value, Tensor) else value
