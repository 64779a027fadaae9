"""A core as a function of a list of tensors, which gives a list of tensors: what tracers and compilers take."""

from typing import Any

import torch
from torch import Tensor

from functrain.compiler.layout import Layout
from functrain.foundation.errors import TracingError
from functrain.foundation.trees import flatten, leaves_with_paths
from functrain.step.execution import Core


class FlatCore:
    """A core for arguments of given layouts.

    Args:
        core: the function.
        state, batch: layouts of its arguments.
        donate: write the new state into the old one's tensors.

    Attributes:
        out: layout of the results besides the carried state, known after a call.
    """

    def __init__(self, core: Core, state: Layout, batch: Layout, *, donate: bool) -> None:
        self._core, self._state, self._batch, self._donate = core, state, batch, donate
        self._n_state = sum(state.is_tensor)
        self.out: Layout | None = None

    def __call__(self, tensors: list[Tensor]) -> list[Tensor]:
        """The new state's tensors (unless donated), then those of the other results."""
        core, old = self._core, tensors[: self._n_state]
        result = core.fn(self._state.fill(old), self._batch.fill(tensors[self._n_state :]))
        carried: list[Tensor] = []
        if core.carries_state:
            new_state, result = result
            carried = _same_layout(core, self._state, old, new_state)
        result_leaves, result_spec = flatten(result)
        self.out = Layout.of(result_leaves, result_spec)
        if self._donate:
            for before, after in zip(old, carried):
                if after is not before:
                    before.copy_(after)
            carried = []
        return carried + self.out.tensors(result_leaves)


def _same_layout(core: Core, layout: Layout, old: list[Tensor], new_state: Any) -> list[Tensor]:
    leaf_list, spec = flatten(new_state)
    assert spec == layout.spec, f"{core.name} changed the structure of the state:\n{layout.spec}\n{spec}"
    new = layout.tensors(leaf_list)
    for path, before, after in zip(_tensor_paths(new_state), old, new):
        given, wanted = (after.dtype, after.shape, after.device), (before.dtype, before.shape, before.device)
        if given != wanted:
            raise TracingError(
                f"the {core.name} step cannot be compiled: it turns {path!r} from {_describe(before)} into "
                f"{_describe(after)}, but the state must keep its form. Keep the dtype and shape of what the "
                "model or the optimizer stores"
            )
    return [_strided_as(before, after) for before, after in zip(old, new)]


def _tensor_paths(tree: Any) -> list[str]:
    return [path for path, leaf in leaves_with_paths(tree) if isinstance(leaf, Tensor)]


def _describe(tensor: Tensor) -> str:
    return f"{tensor.dtype} {list(tensor.shape)} on {tensor.device}"


def _strided_as(before: Tensor, after: Tensor) -> Tensor:
    """`after` laid out in memory as `before`, for which the program was compiled."""
    if before.stride() == after.stride():
        return after
    strided = torch.empty_strided(before.shape, before.stride(), dtype=before.dtype, device=before.device)
    return strided.copy_(after)
