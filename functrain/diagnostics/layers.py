"""The layers of a model: their parameters, and what each gave out in a forward pass."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from functrain.foundation.containers import register_containers
from functrain.foundation.trees import leaves_with_paths

MOST = 4  # tensors of an output that are listed


@dataclass(frozen=True)
class Layer:
    """A module of a model.

    Attributes:
        path: in the model; "" is the model itself.
        kind: the name of its class.
        depth: how many modules it is in.
        parameters: numbers in it and in the modules within; one that is used in several places counts once.
        trainable: those of them that are trained.
        output: the shapes that it gave out at first; "" if it was not called, or that is not known.
        calls: how often the forward pass called it; None if that is not known.
        tied: its own parameters that stand in another module, too, by their names there.
    """

    path: str
    kind: str
    depth: int
    parameters: int
    trainable: int
    output: str = ""
    calls: int | None = None
    tied: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The last part of its path."""
        return self.path.rpartition(".")[2]


@dataclass
class Outputs:
    """What modules gave out, by their paths.

    Attributes:
        shapes: of the first call.
        calls: how many there were.
    """

    shapes: dict[str, str] = field(default_factory=dict)
    calls: dict[str, int] = field(default_factory=dict)

    def note(self, path: str, output: Any) -> None:
        """A module has been called."""
        self.calls[path] = self.calls.get(path, 0) + 1
        self.shapes.setdefault(path, shapes_of(output))


@contextmanager
def noted(modules: Iterable[tuple[str, nn.Module]], outputs: Outputs) -> Iterator[None]:
    """Within, take down what modules give out.

    Example:
        >>> import torch
        >>> net = nn.Sequential(nn.Linear(2, 3), nn.ReLU())
        >>> with noted(net.named_modules(), outputs := Outputs()):
        ...     _ = net(torch.ones(4, 2))
        >>> outputs.shapes["0"], outputs.calls
        ('[4, 3]', {'0': 1, '1': 1, '': 1})
    """
    with ExitStack() as stack:
        for path, module in modules:

            def hook(_module: nn.Module, _inputs: Any, output: Any, path: str = path) -> None:
                outputs.note(path, output)

            with suppress(RuntimeError):  # a compiled TorchScript module takes no hook
                stack.callback(module.register_forward_hook(hook).remove)
        yield


def shapes_of(value: Any, *, types: bool = False) -> str:
    """The shapes of the tensors in a value; with their names, where they have some.

    Args:
        value: any tree.
        types: with the types of their numbers.

    Example:
        >>> import torch
        >>> shapes_of((torch.ones(4, 2), torch.ones(4, dtype=torch.int64)), types=True)
        'float32 [4, 2], int64 [4]'
        >>> shapes_of(torch.ones(4, 2)), shapes_of({"logits": torch.ones(4, 2), "loss": torch.ones(())})
        ('[4, 2]', 'logits [4, 2], loss []')
    """

    def shape(tensor: Tensor) -> str:
        kind = f"{str(tensor.dtype).removeprefix('torch.')} " if types else ""
        return f"{kind}{list(tensor.shape)}"

    if isinstance(value, Tensor):
        return shape(value)
    register_containers(value)
    found = [(path, leaf) for path, leaf in leaves_with_paths(value) if isinstance(leaf, Tensor)]
    listed = [f"{'' if path.isdigit() else f'{path} '}{shape(leaf)}" for path, leaf in found[:MOST]]
    return ", ".join([*listed, *["..."] * (len(found) > MOST)])


def layers_of(modules: Iterable[tuple[str, nn.Module]], outputs: Outputs | None) -> tuple[Layer, ...]:
    """The layers of a model.

    Args:
        modules: all modules by their paths, the model itself first.
        outputs: of a forward pass; None if there was none.
    """
    listed = list(modules)
    homes: dict[int, str] = {}
    for path, module in listed:
        for name, parameter in _own(path, module):
            homes.setdefault(id(parameter), name)
    return tuple(_layer(path, module, homes, outputs) for path, module in listed)


def _layer(path: str, module: nn.Module, homes: Mapping[int, str], outputs: Outputs | None) -> Layer:
    inside = list(module.parameters())
    tied = {homes[id(parameter)] for name, parameter in _own(path, module) if homes[id(parameter)] != name}
    return Layer(
        path,
        type(module).__name__,
        path.count(".") + 1 if path else 0,
        sum(_numbers(parameter) for parameter in inside),
        sum(_numbers(parameter) for parameter in inside if parameter.requires_grad),
        "" if outputs is None else outputs.shapes.get(path, ""),
        None if outputs is None else outputs.calls.get(path, 0),
        tuple(sorted(tied)),
    )


def _own(path: str, module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """The parameters that a module itself holds, by their names in the model."""
    yield from module.named_parameters(prefix=path, recurse=False, remove_duplicate=False)


def _numbers(parameter: Tensor) -> int:
    """How many a parameter holds; none yet, if it is lazy."""
    return 0 if nn.parameter.is_lazy(parameter) else parameter.numel()
