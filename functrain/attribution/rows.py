"""Scores of rows of inputs, and their gradients.

A call of a score takes rows of one example, wherever an example has several. The last bits of a matrix product depend
on the number of rows and on a row's place among them; so an example's attribution does not depend on the others.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from functrain.foundation.dtypes import is_floating
from functrain.foundation.trees import flatten, paths, unflatten

Score = Callable[[Any], Tensor]
"""From a tree of tensors with R rows each to `[R]`; a row's score depends on this row alone."""

ROWS = 64
"""That a score gets at once, at most."""


class Varied:
    """A tree of inputs, of which the floating tensors are varied.

    Args:
        inputs: tensors with a row for each example.

    Attributes:
        leaves: the tensors that are varied, `[B, ...]`.
        examples: how many there are.

    Raises:
        ValueError: if no tensor is floating, the tensors have different numbers of rows, or none has a row.
    """

    def __init__(self, inputs: Any) -> None:
        self._paths = paths(inputs)
        self._all, self._structure = flatten(inputs)
        self._places = [place for place, leaf in enumerate(self._all) if is_floating(leaf)]
        self.leaves: list[Tensor] = [self._all[place].detach() for place in self._places]
        lengths = {len(leaf) if leaf.ndim else 0 for leaf in self._all if isinstance(leaf, Tensor)}
        if not self.leaves:
            raise ValueError(
                "attributions are gradients, so they need an input of floating-point numbers; of token numbers or "
                "classes there is none. Give the model's embeddings as inputs"
            )
        if len(lengths) > 1 or 0 in lengths:
            raise ValueError(f"all inputs need a row for each example; got tensors of {sorted(lengths)} rows")
        (self.examples,) = lengths

    def of(self, examples: Tensor, values: list[Tensor]) -> Any:
        """The inputs of these examples, in which the varied tensors have other values.

        Args:
            examples: their numbers, int64 `[R]`.
            values: `[R, ...]` for each varied tensor.
        """
        given = [leaf[examples] if isinstance(leaf, Tensor) else leaf for leaf in self._all]
        return self._with(given, values)

    def tree(self, values: list[Tensor]) -> Any:
        """A tree like the inputs with these in the places of the varied tensors, and None in the others."""
        return self._with([None] * len(self._all), values)

    def like(self, given: Any, what: str) -> list[Tensor]:
        """The varied tensors of another tree of this structure; or of a single one, where one is varied.

        Raises:
            ValueError: if the tree has another structure.
        """
        if isinstance(given, Tensor) and len(self.leaves) == 1:
            return [given.to(self.leaves[0])]
        found = flatten(given)[0] if paths(given) == self._paths else []
        if not found or not all(isinstance(found[place], Tensor) for place in self._places):
            raise ValueError(
                f"{what} must be a tensor for each of the inputs, in a tree like theirs: {', '.join(self._paths)}; got "
                f"{', '.join(paths(given)) or type(given).__name__}"
            )
        return [found[place].to(leaf) for place, leaf in zip(self._places, self.leaves)]

    def _with(self, given: list[Any], values: list[Tensor]) -> Any:
        for place, value in zip(self._places, values):
            given[place] = value
        return unflatten(self._structure, given)


class Slopes(NamedTuple):
    """Scores of rows and their gradients.

    Attributes:
        scores: `[R]`.
        gradients: `[R, ...]` of each varied tensor.
    """

    scores: Tensor
    gradients: list[Tensor]


def slopes(score: Score, varied: Varied, examples: Tensor, values: list[Tensor]) -> Slopes:
    """The scores and gradients of some rows.

    Args:
        score: the score.
        varied: the inputs.
        examples: to which example each row belongs, int64 `[R]`.
        values: of the varied tensors, `[R, ...]`.

    Raises:
        ValueError: if the score is no floating-point `[R]`.
    """

    def total(moved: list[Tensor]) -> tuple[Tensor, Tensor]:
        found = score(varied.of(examples, moved))
        if found.shape != (len(examples),) or not found.is_floating_point():
            raise ValueError(
                f"a score must be one floating-point number for each row, [{len(examples)}]; got {list(found.shape)} "
                f"of {found.dtype}"
            )
        return found.sum(), found

    gradients, scores = torch.func.grad(total, has_aux=True)(values)
    return Slopes(scores.detach(), [gradient.detach() for gradient in gradients])


def own_scores(score: Score, varied: Varied, values: list[Tensor]) -> Tensor:
    """The score of each example alone, with these values of the varied tensors, `[B]`."""
    every = torch.arange(varied.examples, device=varied.leaves[0].device)
    with torch.no_grad():
        found = [score(varied.of(one, [value[one] for value in values])) for one in every.split(1)]
    return torch.cat(found)


def column(values: Tensor, dimensions: int) -> Tensor:
    """One number for each row, to be multiplied with rows of so many dimensions."""
    return values.view(-1, *[1] * dimensions)


def sums(values: list[Tensor]) -> Tensor:
    """The sum of each row over all tensors, float64 `[B]`; one by one, since a sum's order may depend on the others."""
    rows = zip(*(value.double() for value in values))
    return torch.stack([torch.stack([part.sum() for part in row]).sum() for row in rows])


def check_rows(rows: int) -> None:
    """Refuse a number of rows below 1.

    Raises:
        ValueError: it is one.
    """
    if rows < 1:
        raise ValueError(f"rows, the number of inputs that the score gets at once, must be 1 or more; got {rows}")
