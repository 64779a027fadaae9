"""Models that are no state: any function of a batch's inputs, such as a module or another library's model."""

import contextlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from functrain.foundation.trees import tree_map
from functrain.objectives.supervised import call
from functrain.step.execution import Core


@dataclass(frozen=True, eq=False)
class Function:
    """A model of the user's own.

    Attributes:
        call: takes inputs as the loader gives them (one, a tuple of them by place, a mapping of them by name) and
            returns what a loss compares with the targets, as tensors or NumPy arrays.
        name: for people; its errors are noted to be of this model.
    """

    call: Callable[..., Any]
    name: str = ""

    @property
    def device(self) -> torch.device:
        """Where a module's parameters are; else the CPU."""
        found = next(self.call.parameters(), None) if isinstance(self.call, nn.Module) else None
        return torch.device("cpu") if found is None else found.device

    def outputs(self, inputs: Any) -> Any:
        """What it returns, as tensors."""
        try:
            with torch.no_grad():
                return tree_map(_as_tensor, call(self.call, inputs))
        except Exception as error:
            if self.name:
                error.add_note(f"the model {self.name!r} of the comparison raised this")
            raise


FUNCTION = Core(Function.outputs, "function", carries_state=False)


@contextlib.contextmanager
def in_evaluation_mode(functions: Iterable[Any]) -> Iterator[None]:
    """Put the modules among them into evaluation mode, and each part back into its own mode afterwards."""
    modules = [part for each in functions if isinstance(each, nn.Module) for part in each.modules()]
    modes = [part.training for part in modules]
    try:
        for part in modules:
            part.training = False
        yield
    finally:
        for part, mode in zip(modules, modes, strict=True):
            part.training = mode


def _as_tensor(leaf: Any) -> Any:
    return torch.from_numpy(np.ascontiguousarray(leaf)) if isinstance(leaf, (np.ndarray, np.generic)) else leaf
