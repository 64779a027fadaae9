"""The terms of a `weighted_sum`: losses of outputs, contrast between outputs, penalties.

A term is a function of one forward pass. It returns either a `Loss`, sums over examples, or a 0-d tensor, a value
that belongs to the parameters and not to any example.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from functrain.metrics.weighted_sums import per_example as mean_per_example
from functrain.metrics.weighted_sums import sum_dtype, times_example_weight
from functrain.objectives import losses
from functrain.objectives.binding import BoundLoss, bind
from functrain.objectives.loss import Loss
from functrain.objectives.uncounted import zero_uncounted


class Pass(NamedTuple):
    """One forward pass, which all terms share.

    Attributes:
        model: the network bound to its parameters.
        inputs: of the batch.
        outputs: the model's, of these inputs.
        targets: of the batch.
        weight: `[B]` of the batch, or None.

    Example:
        >>> entropy = lambda seen: Loss((-seen.outputs * seen.outputs.log()).sum(), len(seen.outputs))  # a term
        >>> import torch
        >>> entropy(Pass(None, None, torch.full((2, 4), 0.25), None, None)).totals().means()["loss"]
        tensor(1.3863, dtype=torch.float64)
    """

    model: Any
    inputs: Any
    outputs: Any
    targets: Any
    weight: Tensor | None


Term = Callable[[Pass], Loss | Tensor]


def term(
    loss: str | losses.LossFunction,
    *,
    output: str | int | None = None,
    target: str | int | None = None,
    weight: str | None = None,
    per_example: bool = False,
    options: dict[str, Any] | None = None,
) -> Term:
    """A loss of one of the model's outputs against one of the targets.

    Args:
        loss: the name of a loss of `losses.REGISTRY`, or a function `(predictions, targets) -> PerExample`.
        output: which of the model's outputs (a key of a mapping, an index of a tuple); None: the only one.
        target: which of the targets, likewise.
        weight: key of the targets under which a further weight `[B]` lies, 0 where an example has no such target.
        per_example: take the mean over each example's positions first, so that pixels or tokens and examples
            are not mixed up between terms; see `losses.per_example`.
        options: keyword arguments of the loss.

    Raises:
        ValueError: for a loss or an option that does not exist; when called, for an output or a target that does
            not.

    Example:
        >>> depth = term("huber", output="depth", target="depth", weight="has_depth", options={"delta": 0.5})
    """
    return LossTerm(bind(loss, options), output, target, weight, per_example)


def contrastive(
    first: str | int,
    second: str | int,
    *,
    temperature: float = 0.07,
    symmetric: bool = True,
    groups: str | None = None,
) -> Term:
    """InfoNCE between two of the model's outputs, `[B, D]` each; see `losses.info_nce`.

    Its negatives are in the same micro-batch, so more micro-batches of the same window are not a bigger batch to
    it. With `groups` negatives are those of the same group only, and any cut between groups gives the same update.

    Args:
        first: which of the outputs has the queries.
        second: which has the keys.
        temperature: greater than 0.
        symmetric: look for queries by keys too.
        groups: key of the targets under which int `[B]` numbers lie; None: the micro-batch is one group.

    Raises:
        ValueError: for a temperature out of range.

    Example:
        >>> image_and_text = contrastive("image", "text", temperature=0.1)
    """
    if not 0.0 < temperature < float("inf"):
        raise ValueError(f"temperature must be greater than 0 and finite, got {temperature}")
    options = {"temperature": temperature, "symmetric": symmetric}
    return _Contrastive(bind("info_nce", options), first, second, groups)


def l1_penalty(pattern: str | Sequence[str] = "*") -> Term:
    """The sum of the magnitudes of all elements of the parameters whose names match.

    Args:
        pattern: with `*` and `?`, as in "encoder.*.weight"; or several, of which one must match. Names are
            those of the model's `named_parameters()`.

    Raises:
        ValueError: when called, if no parameter matches.

    References:
        Tibshirani 1996, "Regression Shrinkage and Selection via the Lasso".

    Example:
        >>> import torch
        >>> model = torch.nn.Linear(2, 1)
        >>> l1_penalty("weight")(Pass(model, None, None, None, None)) == model.weight.abs().sum()
        tensor(True)
    """
    return _Penalty(1, _patterns(pattern))


def l2_penalty(pattern: str | Sequence[str] = "*") -> Term:
    """The sum of the squares of all elements of the parameters whose names match; arguments as of `l1_penalty`.

    With weight c its gradient is that of torch's coupled `weight_decay=2 * c`.

    Example:
        >>> import torch
        >>> model = torch.nn.Linear(2, 1)
        >>> l2_penalty("weight")(Pass(model, None, None, None, None)) == model.weight.square().sum()
        tensor(True)
    """
    return _Penalty(2, _patterns(pattern))


@dataclass(frozen=True)
class LossTerm:
    """What `term` makes."""

    loss: BoundLoss
    output: str | int | None
    target: str | int | None
    weight: str | None
    per_example: bool

    def compared(self, outputs: Any, targets: Any) -> tuple[Any, Any]:
        """The output and the target of the loss."""
        return chosen("output", outputs, self.output), chosen("target", targets, self.target)

    def __call__(self, seen: Pass) -> Loss:  # noqa: D102 - of Term
        output, target = self.compared(seen.outputs, seen.targets)
        weight = seen.weight
        if self.weight is not None:
            own = chosen("target", seen.targets, self.weight)
            weight = own if weight is None else weight * own
        if not self.per_example:
            return Loss(*self.loss(output, target, weight).sums())
        loss = mean_per_example(self.loss(zero_uncounted(output, weight), zero_uncounted(target, weight)))
        return Loss(*times_example_weight(loss, weight).sums())


@dataclass(frozen=True)
class _Contrastive:
    loss: BoundLoss
    first: str | int
    second: str | int
    groups: str | None

    def __call__(self, seen: Pass) -> Loss:
        tensors = {} if self.groups is None else {"groups": chosen("target", seen.targets, self.groups)}
        queries, keys = chosen("output", seen.outputs, self.first), chosen("output", seen.outputs, self.second)
        return Loss(*self.loss(queries, keys, seen.weight, **tensors).sums())


@dataclass(frozen=True)
class _Penalty:
    power: int
    patterns: tuple[str, ...]

    def __call__(self, seen: Pass) -> Tensor:
        if not isinstance(seen.model, nn.Module):
            raise TypeError(f"a penalty needs the parameters of a torch.nn.Module, got {type(seen.model).__name__}")
        parameters = dict(seen.model.named_parameters())
        matched = [p for name, p in parameters.items() if any(fnmatchcase(name, each) for each in self.patterns)]
        if not matched:
            raise ValueError(
                f"no parameter matches {' or '.join(map(repr, self.patterns))}; the model has {', '.join(parameters)}"
            )
        wide = [p.to(sum_dtype(p)) for p in matched]
        return torch.stack([(p.abs() if self.power == 1 else p.square()).sum() for p in wide]).sum()


def chosen(kind: str, values: Any, key: str | int | None) -> Any:
    """One of several outputs or targets.

    Raises:
        ValueError: if there is none of this key.

    Example:
        >>> chosen("output", {"logits": 1, "depth": 2}, "depth")
        2
    """
    if key is None:
        return values
    if isinstance(values, Mapping):
        if key in values:
            return values[key]
        known = ", ".join(map(repr, values))
    elif isinstance(values, (tuple, list)):
        if isinstance(key, int) and -len(values) <= key < len(values):
            return values[key]
        known = f"0 to {len(values) - 1}"
    else:
        known = f"a single {type(values).__name__}"
    raise ValueError(f"there is no {kind} {key!r}; the {kind}s are {known}")


def _patterns(pattern: str | Sequence[str]) -> tuple[str, ...]:
    patterns = (pattern,) if isinstance(pattern, str) else tuple(pattern)
    if not patterns:
        raise ValueError("a penalty needs a pattern of parameter names, such as '*.weight'; got none")
    return patterns
