"""Which parameters the losses of a window use. One that none of them uses is not updated, as torch has it.

torch's optimizers pass over a parameter whose `grad` is None: no decay, no momentum, no moments. Whether a loss depends
on a parameter is known when its graph is built, and so while a step is traced; what an earlier micro-batch or another
rank used is known on the device only.
"""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import optree
import torch
from torch import Tensor
from torch.autograd.graph import get_gradient_edge

from functrain.foundation.trees import flatten, unflatten


class Used(NamedTuple):
    """Which of the trainable parameters, in the network's order, are used.

    Attributes:
        here: whether this micro-batch's loss depends on each, known while its step is traced.
        elsewhere: whether that of an earlier micro-batch of the window, or on another rank, does; bool `[n]`, or None.
    """

    here: tuple[bool, ...]
    elsewhere: Tensor | None = None

    def before(self, window: Tensor) -> "Used":
        """These, and those that the window has used so far."""
        return Used(self.here, window if self.elsewhere is None else self.elsewhere | window)

    def flags(self, like: Tensor) -> Tensor:
        """All of it as one tensor, bool `[n]`."""
        if all(self.here):
            return torch.ones_like(like)
        here = torch.tensor(self.here, device=like.device)
        return here | (torch.zeros_like(like) if self.elsewhere is None else self.elsewhere)


def only_used(used: Used, names: tuple[str, ...], after: Any, before: Any) -> Any:
    """`after`, where its leaves belong to no parameter or to one that is used; elsewhere `before`.

    Args:
        used: which parameters are.
        names: of the parameters, in the order of `used`.
        after, before: trees of one structure, such as an optimizer's states. A leaf belongs to the parameter whose
            name is a dictionary's key on the way to it.

    Example:
        >>> one, two = ({"count": i, "mean": {"a": i, "b": i}} for i in (1, 2))
        >>> only_used(Used((True, False)), ("a", "b"), two, one)
        {'count': 2, 'mean': {'a': 2, 'b': 1}}
    """
    if all(used.here):
        return after
    (new, spec), (old, _) = flatten(after), flatten(before)
    found = owners(spec, names)
    return unflatten(spec, [_chosen(used, *each) for each in zip(found, new, old, strict=True)])


def _chosen(used: Used, owner: int | None, after: Any, before: Any) -> Any:
    if owner is None or used.here[owner]:
        return after
    return before if used.elsewhere is None else torch.where(used.elsewhere[owner], after, before)


def depends_on(result: Tensor, tensors: Sequence[Tensor]) -> tuple[bool, ...]:
    """Whether a result's graph has each of these tensors, of which autograd keeps track, in it.

    Example:
        >>> a, b = (torch.zeros(2, requires_grad=True) for _ in range(2))
        >>> depends_on(a.sum() + b.detach().sum(), [a, b])
        (True, False)
    """
    seen: set[Any] = set()
    nodes = [result.grad_fn]
    while nodes:
        node = nodes.pop()
        if node is not None and node not in seen:
            seen.add(node)
            nodes += [following for following, _ in node.next_functions]
    return tuple(get_gradient_edge(tensor).node in seen for tensor in tensors)


@functools.lru_cache(maxsize=64)
def owners(spec: optree.PyTreeSpec, names: tuple[str, ...]) -> list[int | None]:
    """For each leaf the number of the parameter that it belongs to."""
    numbers = {name: number for number, name in enumerate(names)}

    def owner(accessor: optree.PyTreeAccessor) -> int | None:
        keys = (entry.entry for entry in accessor if isinstance(entry, optree.MappingEntry))
        return next((numbers[key] for key in keys if key in numbers), None)

    return [owner(accessor) for accessor in spec.accessors()]
