"""Ordinary losses that return a mean, taken apart into single values."""

import copy
import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from functrain.foundation.trees import tree_map
from functrain.metrics.weighted_sums import mean_of_rows


def single_values(loss_fn: Callable[..., Tensor], outputs: Any, targets: Any) -> Tensor:
    """The loss of each example `[B]`, from a function that returns their mean."""
    if isinstance(loss_fn, nn.Module) and hasattr(loss_fn, "reduction"):
        unreduced = copy.copy(loss_fn)
        unreduced.__dict__["reduction"] = "none"
        return mean_of_rows(unreduced(outputs, targets))
    if _has_reduction(loss_fn):
        return mean_of_rows(loss_fn(outputs, targets, reduction="none"))
    one = functools.partial(tree_map, functools.partial(torch.unsqueeze, dim=0))
    return torch.func.vmap(lambda o, t: loss_fn(one(o), one(t)))(outputs, targets)


def _has_reduction(loss_fn: Callable[..., Tensor]) -> bool:
    try:
        return "reduction" in inspect.signature(loss_fn).parameters
    except (TypeError, ValueError):
        return False


def refuse_own_denominator(loss_fn: Callable[..., Any]) -> None:
    """Refuse a loss that shows that its mean is not a plain one over the examples.

    Raises:
        ValueError: for class weights, an `ignore_index`, or a reduction other than the mean.
    """
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
            "batches would not add up to the big batch. Take functrain.classification(class_weights=...) or "
            "segmentation instead"
        )
    if settings.get("ignore_index", -100) != -100:
        raise ValueError(
            "a mean loss with ignore_index divides by the number of targets of its own batch that count, so "
            "micro-batches would not add up to the big batch. Take "
            "functrain.classification(ignore_index=...), segmentation or language_modelling instead"
        )
