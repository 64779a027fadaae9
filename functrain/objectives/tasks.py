"""What an objective trains a model to do, so that an evaluation knows which report to make."""

import functools
from collections.abc import Callable
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from functrain.objectives.losses import BINARY, CLASSES, VALUES
from functrain.objectives.outputs import output_of

TASKS = ("classification", "binary_classification", "regression", "segmentation", "language_modelling")
_LOSSES: dict[str, tuple[Any, ...]] = {
    "classification": (*CLASSES.values(), F.cross_entropy, F.nll_loss, nn.CrossEntropyLoss, nn.NLLLoss),
    "binary_classification": (*BINARY.values(), F.binary_cross_entropy_with_logits, nn.BCEWithLogitsLoss),
    "regression": (
        *(*VALUES.values(), F.mse_loss, F.l1_loss, F.smooth_l1_loss, F.huber_loss),
        *(nn.MSELoss, nn.L1Loss, nn.SmoothL1Loss, nn.HuberLoss),
    ),
}


def task_of(objective: Any) -> str | None:
    """One of `TASKS`; None if the objective names none.

    Of your own objective, say it by an attribute: `objective.task = "regression"`.

    Example:
        >>> from functrain.objectives import regression, supervised
        >>> task_of(regression()), task_of(supervised(F.cross_entropy)), task_of(lambda model, batch: None)
        ('regression', 'classification', None)
    """
    return getattr(objective, "task", None)


def task_of_loss(loss_fn: Callable[..., Any]) -> str | None:
    """The task that a well-known loss is for; None for others."""
    function: Any = loss_fn.func if isinstance(loss_fn, functools.partial) else loss_fn
    kind = type(function) if isinstance(function, nn.Module) else function
    return next((task for task, losses in _LOSSES.items() if any(kind is one for one in losses)), None)


def ignored_by(objective: Any) -> int:
    """The label that an objective does not count; by default -100."""
    return int(getattr(objective, "ignore_index", -100))


def compared_by(objective: Any, outputs: Any, targets: Any) -> tuple[Tensor, Tensor]:
    """What an objective compares: a tensor of the model's outputs, and targets.

    An objective of your own may have a method `compared(outputs, targets)`. Without it, the model's only output counts,
    or the one that is named "logits".

    Raises:
        TypeError: if there is no such output.
    """
    own = getattr(objective, "compared", None)
    if own is not None:
        scores, targets = own(outputs, targets)
        return scores, targets
    return output_of(outputs, getattr(objective, "output", None), "logits"), targets
