"""What each layer of a network gives out, by hooks for the time of one forward pass."""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from functrain.foundation.trees import tensors
from functrain.metrics.layer_statistics import STATISTICS, Statistics, each_parameter, tree_statistics

Seen = dict[str, list[tuple[Tensor, int]]]  # module -> for each tensor it gave: its statistics and number of elements


@contextlib.contextmanager
def watching(module: nn.Module, seen: Seen) -> Iterator[None]:
    """Take down what the modules in `module` that have none in them give out, within the context.

    The numbers are taken at once: an activation may later be overwritten in place.

    Example:
        >>> seen: Seen = {}
        >>> net = nn.Sequential(nn.Linear(2, 3), nn.ReLU())
        >>> with watching(net, seen):
        ...     _ = net(torch.ones(4, 2))
        >>> sorted(seen)
        ['0', '1']
    """
    with contextlib.ExitStack() as stack:
        for name, layer in module.named_modules():
            if name and next(layer.children(), None) is None:
                stack.enter_context(_hooked(name, layer, seen))
        yield


@contextlib.contextmanager
def _hooked(name: str, layer: nn.Module, seen: Seen) -> Iterator[None]:
    def hook(_layer: nn.Module, _inputs: Any, output: Any) -> None:
        for tensor in tensors(output):
            if tensor.is_floating_point():
                row = tree_statistics({name: tensor}, layer=each_parameter).values[0]
                seen.setdefault(name, []).append((row, tensor.numel()))

    handle = layer.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


def activation_statistics(seen: Seen) -> Statistics:
    """One row for each module, all its outputs taken together.

    Raises:
        ValueError: if there was none.

    Example:
        >>> row = torch.tensor([3.0, 1.0, 2.0, 0.5])  # norm, mean, max, zeros
        >>> activation_statistics({"a": [(row, 4), (row, 4)]}).values
        tensor([[4.2426, 1.0000, 2.0000, 0.5000]])
    """
    if not seen:
        raise ValueError("activations=True finds no module within the model that gives out tensors")
    return Statistics(torch.stack([_together(outputs) for outputs in seen.values()]), tuple(seen), STATISTICS)


def _together(outputs: list[tuple[Tensor, int]]) -> Tensor:
    if len(outputs) == 1:
        return outputs[0][0]
    norms, means, largest, zeros = torch.stack([row for row, _ in outputs]).unbind(1)
    shares = norms.new_tensor([count for _, count in outputs])
    shares = shares / shares.sum().clamp(min=1)
    return torch.stack([norms.square().sum().sqrt(), (means * shares).sum(), largest.amax(), (zeros * shares).sum()])
