"""A batch taken apart into what has a row for each example, and all else."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from functrain.foundation.trees import flatten, unflatten
from functrain.objectives.examples import count_examples, require_examples, takes_lists


@dataclass(frozen=True)
class Rows:
    """A batch whose examples can be computed one by one.

    Attributes:
        tensors: those with a row for each example, in the order of the batch's leaves.
        count: how many examples there are.
    """

    tensors: tuple[Tensor, ...]
    count: int
    _leaves: tuple[Any, ...]
    _spec: Any

    def batch(self, tensors: Sequence[Tensor]) -> Any:
        """The batch of some examples, of whom these are the rows.

        Example:
            >>> import torch
            >>> rows = rows_of((torch.arange(3), "name", torch.ones(())), None)
            >>> rows.batch([tensor[:1] for tensor in rows.tensors])
            (tensor([0]), 'name', tensor(1.))
        """
        given = iter(tensors)
        return unflatten(self._spec, [next(given) if leaf is None else leaf for leaf in self._leaves])


def rows_of(batch: Any, objective: Any) -> Rows:
    """Take a batch apart.

    Args:
        batch: as the objective takes it.
        objective: says how examples are counted.

    Raises:
        TypeError: the batch cannot be cut into examples.
    """
    if takes_lists(objective):
        raise TypeError(
            "gradients of single examples need a batch of tensors with a row for each example; this objective takes "
            "lists (takes_lists). Call train_step or functrain's gradients with batches of one example instead"
        )
    require_examples(batch, "a gradient of single examples", lists=False)
    count = count_examples(objective)(batch)
    leaves, spec = flatten(batch)
    is_row = [isinstance(leaf, Tensor) and leaf.ndim > 0 and len(leaf) == count for leaf in leaves]
    rest = tuple(None if row else leaf for leaf, row in zip(leaves, is_row))
    return Rows(tuple(leaf for leaf, row in zip(leaves, is_row) if row), count, rest, spec)
