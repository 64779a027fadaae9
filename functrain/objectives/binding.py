"""A loss with its options, as a value that can be compared and hashed."""

import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, get_type_hints

from torch import Tensor

from functrain.metrics.ones import are_ones
from functrain.metrics.weighted_sums import LossFunction, times_example_weight
from functrain.objectives.losses import REGISTRY, PerExample, cross_entropy
from functrain.objectives.uncounted import zero_uncounted


@dataclass(frozen=True)
class BoundLoss:
    """A loss function and its options.

    Equal ones are equal and hash alike, so that a state's recipe can be compared with another's.
    """

    fn: LossFunction
    options: tuple[tuple[str, Any], ...] = ()

    @functools.cached_property
    def is_ours(self) -> bool:
        """Whether it is one of functrain's losses."""
        return self.fn in REGISTRY.values()

    @functools.cached_property
    def _takes_weight(self) -> bool:
        return takes(self.fn, "weight")

    def __call__(self, predictions: Any, targets: Any, weight: Tensor | None = None, **tensors: Tensor) -> PerExample:
        """The loss, with each example's weight `[B]` on its positions; `tensors` are arguments that vary."""
        if targets is None and self.is_ours:
            raise TypeError(
                f"the loss {_name(self.fn)} needs targets, and the batch's are None. Give (inputs, targets); for data "
                "without targets write an objective of your own, (model, batch) -> Loss"
            )
        if weight is not None and self._takes_weight:
            tensors["weight"] = weight
        all_count = weight is None or are_ones(weight)
        if not all_count:
            predictions, targets = zero_uncounted(predictions, weight), zero_uncounted(targets, weight)
        result = self.fn(predictions, targets, **dict(self.options), **tensors)
        if not isinstance(result, PerExample):
            raise TypeError(
                f"the loss {_name(self.fn)} returned {type(result).__name__}, not a PerExample(values, weights). A "
                "mean loss becomes an objective with functrain.supervised"
            )
        if weight is None or (all_count and weight.shape == result.weights.shape[:1]):
            return result
        return times_example_weight(result, weight)


def bind(
    loss: str | LossFunction, options: Mapping[str, Any] | None = None, known: Mapping[str, LossFunction] = REGISTRY
) -> BoundLoss:
    """A loss by name, or one's own, with its options.

    Args:
        loss: a key of `known`, or a function `(predictions, targets, **options) -> PerExample`.
        options: keyword arguments of the loss; lists become tuples.
        known: the losses that may be named.

    Raises:
        ValueError: for a name or an option that does not exist.
        TypeError: if `loss` is neither name nor function, or an option cannot be hashed.

    Example:
        >>> bind("huber", {"delta": 2.0}).options
        (('delta', 2.0),)
    """
    if isinstance(loss, str):
        if loss not in known:
            raise ValueError(f"there is no loss {loss!r} here; known: {', '.join(known)}. Or give a function")
        loss = known[loss]
    if not callable(loss):
        raise TypeError(f"a loss is a name or a function (predictions, targets) -> PerExample, got {loss!r}")
    given = {name: _frozen(name, value) for name, value in (options or {}).items()}
    allowed = options_of(loss)
    if allowed is not None and (unknown := given.keys() - set(allowed)):
        raise ValueError(
            f"the loss {_name(loss)} has no option {', '.join(map(repr, sorted(unknown)))}; it has "
            f"{', '.join(allowed) or 'none'}"
        )
    return BoundLoss(loss, tuple(sorted(given.items())))


def smoothing_of(loss: Any) -> float | None:
    """The label smoothing of a bound cross-entropy; None of anything else.

    Example:
        >>> smoothing_of(bind("cross_entropy")), smoothing_of(bind("focal"))
        (0.0, None)
    """
    if not isinstance(loss, BoundLoss) or loss.fn is not cross_entropy:
        return None
    return float(dict(loss.options).get("label_smoothing", 0.0))


def with_smoothing(loss: Any, label_smoothing: Any) -> BoundLoss:
    """A bound cross-entropy with another label smoothing."""
    return BoundLoss(loss.fn, tuple(sorted((dict(loss.options) | {"label_smoothing": label_smoothing}).items())))


def options_of(loss: Callable[..., Any]) -> tuple[str, ...] | None:
    """The names of a loss's options; None if it takes any, or does not say."""
    try:
        parameters = inspect.signature(loss).parameters
    except (TypeError, ValueError):
        return None
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return None
    return tuple(
        name for name, p in list(parameters.items())[2:] if p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD)
    )


def takes(loss: Callable[..., Any], option: str) -> bool:
    """Whether a loss says that it has this option."""
    return option in (options_of(loss) or ())


def returns_per_example(loss: Callable[..., Any]) -> bool:
    """Whether a function says, by its annotation `-> PerExample`, that it is a loss that is not reduced."""
    while isinstance(loss, functools.partial):
        loss = loss.func
    try:
        return get_type_hints(loss).get("return") is PerExample
    except Exception:  # annotations that name what is not there, or none at all: then they say nothing
        return False


def _frozen(name: str, value: Any) -> Any:
    value = tuple(value) if isinstance(value, list) else value
    try:
        hash(value)
    except TypeError:
        raise TypeError(
            f"option {name!r} must be a value that can be hashed (a number, text or a tuple), got {value!r}"
        ) from None
    return value


def _name(loss: Callable[..., Any]) -> str:
    return getattr(loss, "__name__", type(loss).__name__)
