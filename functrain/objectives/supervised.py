"""Ready-made objectives: `(model, batch) -> Loss` for supervised learning. Imports foundation and torch only.

An `Objective` is any function `(model, batch) -> Loss`; these are the usual ones. They take batches
as in `batch.py` and respect each example's weight, which lets a ragged batch be padded.
"""

import copy
import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from functrain.foundation.trees import tree_map
from functrain.objectives import losses
from functrain.objectives.batch import batch_length, unpack
from functrain.objectives.loss import Loss

Objective = Callable[[Any, Any], Loss]


def takes_weight(objective: Objective) -> bool:
    """Whether an objective respects a weight in the batch, so that padding with weight 0 is exact.

    Of your own objective, say so by an attribute: `objective.takes_weight = True`.
    """
    return bool(getattr(objective, "takes_weight", False))


def supervised(
    loss_fn: Callable[[Any, Any], Tensor], metrics: Mapping[str, Callable[[Any, Any], Tensor]] | None = None
) -> Objective:
    """Make an objective of an ordinary mean loss over `(inputs, targets)`.

    The loss's weight is the number of examples, so the mean must be a plain one over them. One that divides
    by something else (class weights, ignored targets) cannot be added up over micro-batches; it is refused
    where that shows, and `classification` is there for ignored targets.

    Args:
        loss_fn: `(outputs, targets) -> 0-d mean`. With a `reduction` parameter (as in
            `torch.nn.functional`) it is asked for single values when examples have weights.
        metrics: name -> `(outputs, targets) -> [B] values`, averaged like the loss.

    Raises:
        TypeError: if `loss_fn` is no function.
        ValueError: for class weights, an `ignore_index`, or a reduction other than the mean.

    Example:
        >>> objective = supervised(torch.nn.functional.mse_loss)
        >>> loss = objective(torch.nn.Identity(), (torch.ones(4, 1), torch.zeros(4, 1)))
        >>> loss.total.item(), loss.weight.item()
        (4.0, 4.0)
    """
    if not callable(loss_fn):
        raise TypeError(f"supervised takes a function (outputs, targets) -> mean loss, got {loss_fn!r}")
    _refuse_own_denominator(loss_fn)
    return _Supervised(loss_fn, tuple((metrics or {}).items()))


@dataclass(frozen=True)
class _Supervised:
    loss_fn: Callable[[Any, Any], Tensor]
    metrics: tuple[tuple[str, Callable[[Any, Any], Tensor]], ...]
    takes_weight = True

    def __call__(self, model: Any, batch: Any) -> Loss:
        inputs, targets, weight = unpack(batch)
        outputs = call(model, inputs)
        examples = batch_length(targets)
        if weight is None:
            mean = self.loss_fn(outputs, targets)
            total = mean.to(_sum_dtype(mean)) * examples
            weight = total.new_ones(examples)
        else:
            total = weighted_sum(_values(self.loss_fn, outputs, targets), _one_each(weight, examples))
        sums = {name: weighted_sum(fn(outputs, targets), weight) for name, fn in self.metrics}
        return Loss(total, weight.sum(), sums)


@dataclass(frozen=True)
class _CrossEntropy:
    label_smoothing: float
    ignore_index: int
    class_dim: int
    takes_weight = True

    def __call__(self, model: Any, batch: Any) -> Loss:
        inputs, targets, weight = unpack(batch)
        logits = call(model, inputs).movedim(self.class_dim, 1)
        values, weights = losses.cross_entropy(
            logits, targets, label_smoothing=self.label_smoothing, ignore_index=self.ignore_index
        )
        if weight is not None:
            weight = _one_each(weight, len(targets)).to(weights.dtype)
            weights = weights * weight.view(-1, *[1] * (weights.ndim - 1))
        correct = (logits.argmax(1) == targets).to(weights.dtype)
        return Loss(weighted_sum(values, weights), weights.sum(), {"accuracy": weighted_sum(correct, weights)})

    def complaint(self, model: Any, batch: Any) -> str | None:
        """What is wrong with a batch's labels, in words; None if nothing is. For error messages only."""
        inputs, targets, _ = unpack(batch)
        classes = call(model, inputs).shape[self.class_dim]
        bad = (targets != self.ignore_index) & ((targets < 0) | (targets >= classes))
        if not bad.any():
            return None
        where = bad.nonzero()[0].tolist()
        return (
            f"label {int(targets[bad][0])} at position {where} of the batch is out of range: the model has "
            f"{classes} classes, so labels must be 0 to {classes - 1}"
        )


@dataclass(frozen=True)
class _Regression:
    takes_weight = True

    def __call__(self, model: Any, batch: Any) -> Loss:
        inputs, targets, weight = unpack(batch)
        predictions = call(model, inputs)
        values, ones = losses.squared_error(predictions, targets)
        weight = ones if weight is None else _one_each(weight, len(ones)).to(ones.dtype)
        mae = losses.absolute_error(predictions, targets).values
        return Loss(weighted_sum(values, weight), weight.sum(), {"mae": weighted_sum(mae, weight)})


def classification(*, label_smoothing: float = 0.0, ignore_index: int = -100) -> Objective:
    """Cross-entropy of logits `[B, C]` against classes `[B]`, with the metric `accuracy`.

    Example:
        >>> loss = classification()(torch.nn.Identity(), (torch.eye(2), torch.tensor([0, 1])))
        >>> loss.weight.item(), loss.metrics["accuracy"].item()
        (2.0, 2.0)
    """
    return _CrossEntropy(label_smoothing, ignore_index, class_dim=1)


def segmentation(*, label_smoothing: float = 0.0, ignore_index: int = -100) -> Objective:
    """Cross-entropy per pixel of logits `[B, C, H, W]` against classes `[B, H, W]`, with pixel `accuracy`."""
    return _CrossEntropy(label_smoothing, ignore_index, class_dim=1)


def language_modelling(*, label_smoothing: float = 0.0, ignore_index: int = -100) -> Objective:
    """Cross-entropy per token of logits `[B, T, V]` against tokens `[B, T]`, with token `accuracy`.

    The weight is the number of tokens that are not `ignore_index`, so that long and short texts in
    different micro-batches count by their tokens.
    """
    return _CrossEntropy(label_smoothing, ignore_index, class_dim=-1)


def regression() -> Objective:
    """Mean squared error of predictions against targets of the same shape, with the metric `mae`.

    Example:
        >>> loss = regression()(torch.nn.Identity(), (torch.tensor([[1.0], [3.0]]), torch.zeros(2, 1)))
        >>> loss.total.item(), loss.metrics["mae"].item()
        (10.0, 4.0)
    """
    return _Regression()


def weighted_sum(values: Tensor, weights: Tensor) -> Tensor:
    """Sum of values times weights, in float32 or wider; a value of weight 0 does not count, not even NaN.

    (The *gradient* of a NaN of weight 0 may still be NaN, for 0 times NaN is: pad with real examples.)

    Raises:
        ValueError: if the shapes differ; broadcasting [B, 1] with [B] would hide a bug.
    """
    if values.shape != weights.shape:
        raise ValueError(
            f"there must be one value for each weight: got values {list(values.shape)} and weights "
            f"{list(weights.shape)}. A metric returns one value per example, [B], not their mean"
        )
    products = values.to(_sum_dtype(values)) * weights.to(_sum_dtype(weights))
    return torch.where(weights != 0, products, 0.0).sum()


def _sum_dtype(tensor: Tensor) -> torch.dtype:
    """What to sum in: bfloat16 cannot even count to 257."""
    return torch.promote_types(tensor.dtype, torch.float32)


def _one_each(weight: Tensor, examples: int) -> Tensor:
    if weight.shape != (examples,):
        raise ValueError(
            f"a batch's weight has one number for each example, [{examples}] here; got {list(weight.shape)}"
        )
    return weight


def call(model: Any, inputs: Any) -> Any:
    """Call a model with one input, a tuple of inputs, or a mapping of named ones."""
    if isinstance(inputs, Mapping):
        return model(**inputs)
    return model(*inputs) if isinstance(inputs, (tuple, list)) else model(inputs)


def _values(loss_fn: Callable[..., Tensor], outputs: Any, targets: Any) -> Tensor:
    """The loss of each example `[B]`, from a function that returns their mean."""
    if isinstance(loss_fn, nn.Module) and hasattr(loss_fn, "reduction"):
        unreduced = copy.copy(loss_fn)
        unreduced.__dict__["reduction"] = "none"
        return losses.mean_of_rows(unreduced(outputs, targets))
    if _has_reduction(loss_fn):
        return losses.mean_of_rows(loss_fn(outputs, targets, reduction="none"))
    one = functools.partial(tree_map, functools.partial(torch.unsqueeze, dim=0))
    return torch.func.vmap(lambda o, t: loss_fn(one(o), one(t)))(outputs, targets)


def _has_reduction(loss_fn: Callable[..., Tensor]) -> bool:
    try:
        return "reduction" in inspect.signature(loss_fn).parameters
    except (TypeError, ValueError):
        return False


def _refuse_own_denominator(loss_fn: Callable[..., Tensor]) -> None:
    function: Any = loss_fn
    settings: Mapping[str, Any] = {}
    if isinstance(loss_fn, functools.partial):
        function, settings = loss_fn.func, loss_fn.keywords
    elif isinstance(loss_fn, nn.Module):
        function, settings = type(loss_fn), {**vars(loss_fn), **dict(loss_fn.named_buffers(recurse=False))}
    reduction = settings.get("reduction", "mean")
    if isinstance(reduction, str) and reduction != "mean":
        raise ValueError(
            f"supervised takes a mean loss, got reduction={reduction!r}. For sums or single values write an "
            "objective (model, batch) -> Loss(total, weight)"
        )
    if function not in (F.cross_entropy, F.nll_loss, nn.CrossEntropyLoss, nn.NLLLoss):
        return
    if settings.get("weight") is not None:
        raise ValueError(
            "a mean loss with class weights divides by the sum of the weights of its own batch, so micro-"
            "batches would not add up to the big batch. Write an objective (model, batch) -> "
            "Loss(total, weight) instead"
        )
    if settings.get("ignore_index", -100) != -100:
        raise ValueError(
            "a mean loss with ignore_index divides by the number of targets of its own batch that count, so "
            "micro-batches would not add up to the big batch. Take "
            "functrain.classification(ignore_index=...), segmentation or language_modelling instead"
        )
