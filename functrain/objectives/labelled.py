"""Ready-made objectives of labels: classes, regions, tokens, yes or no."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from functrain.metrics.classes import accuracy_sums
from functrain.metrics.ones import are_ones
from functrain.metrics.weighted_sums import PerExample, sum_dtype
from functrain.objectives import losses
from functrain.objectives.batch import has_labels, unpack
from functrain.objectives.binding import BoundLoss, bind, takes
from functrain.objectives.loss import Loss
from functrain.objectives.losses.labels import are_shares, are_soft, check_label_smoothing, class_numbers, likeliest
from functrain.objectives.outputs import Key, output_of
from functrain.objectives.supervised import Objective, call


@dataclass(frozen=True)
class _Classes:
    loss: BoundLoss
    ignore_index: int
    class_dim: int
    output: Key | None = None
    next_token: bool | None = False
    parts: str = ""  # "pixels" or "tokens": each example has several labels
    takes_weight = True

    def __call__(self, model: Any, batch: Any) -> Loss:
        inputs, targets, weight = unpack(batch)
        if self.next_token is None and has_labels(batch):
            raise ValueError(
                "the labels of language_modelling may be the targets of the same positions, or the tokens of the "
                "input, each the target of the position before. Say which: next_token=False or next_token=True"
            )
        logits, targets = self.compared(call(model, inputs), targets)
        if self.parts and logits.ndim < 3:
            raise ValueError(
                f"this objective takes a label for each of an example's {self.parts}; got logits {list(logits.shape)} "
                f"and targets {list(targets.shape)}. For one label an example take classification()"
            )
        loss = self.loss(logits, targets, weight)
        total, weights = loss.sums()
        if are_soft(logits, targets):
            targets = likeliest(targets, self.ignore_index)
        right, dtype = logits.argmax(1) == targets, sum_dtype(logits)
        if self.loss.is_ours and loss.weights.shape == right.shape and are_ones(loss.weights):  # every label counts
            accuracy = right.sum(dtype=dtype), weights.to(dtype)
        else:
            accuracy = accuracy_sums(right, targets != self.ignore_index, weight, dtype)
        return Loss(total, weights, {"accuracy": accuracy})

    @property
    def task(self) -> str:
        """What it is for."""
        return {"pixels": "segmentation", "tokens": "language_modelling"}.get(self.parts, "classification")

    def compared(self, outputs: Any, targets: Any) -> tuple[Tensor, Tensor]:
        """The logits with their classes in dimension 1, and the targets that they are of, soft ones likewise."""
        logits = output_of(outputs, self.output, "logits")
        if self.class_dim != 1:
            logits = logits.movedim(self.class_dim, 1)
            if isinstance(targets, Tensor) and targets.is_floating_point() and targets.ndim == logits.ndim:
                targets = targets.movedim(self.class_dim, 1)
        return (logits[:, :, :-1], targets[..., 1:]) if self.next_token else (logits, targets)

    def complaint(self, model: Any, batch: Any) -> str | None:
        """What is wrong with a batch's labels, in words; None if nothing is. For error messages only."""
        inputs, targets, _ = unpack(batch)
        classes = output_of(call(model, inputs), self.output, "logits").shape[self.class_dim]
        if targets.is_floating_point():
            return _wrong_shares(targets if self.class_dim == 1 else targets.movedim(self.class_dim, 1))
        bad = (targets != self.ignore_index) & ((targets < 0) | (targets >= classes))
        if not bad.any():
            return None
        where = bad.nonzero()[0].tolist()
        allowed = f"labels must be 0 to {classes - 1}, or {self.ignore_index} (ignore_index) to be left out"
        if classes == 1:
            allowed = "one logit is not enough for a choice of classes: take binary_classification(), or give it more"
        return (
            f"label {int(targets[bad][0])} at position {where} of the batch is out of range: the model has "
            f"{classes} class{'' if classes == 1 else 'es'}, so {allowed}"
        )


@dataclass(frozen=True)
class _Binary:
    loss: BoundLoss
    ignore_index: int
    output: Key | None = None
    takes_weight = True
    task = "binary_classification"

    def __call__(self, model: Any, batch: Any) -> Loss:
        inputs, targets, weight = unpack(batch)
        logits = output_of(call(model, inputs), self.output, "logits")
        sums = self.loss(logits, targets, weight).sums()
        right, counted = (logits.reshape(targets.shape) > 0) == (targets >= 0.5), targets != self.ignore_index
        return Loss(*sums, {"accuracy": accuracy_sums(right, counted, weight, sum_dtype(logits))})

    def complaint(self, _model: Any, batch: Any) -> str | None:
        """What is wrong with a batch's labels, in words; None if nothing is. For error messages only."""
        _, targets, _ = unpack(batch)
        bad = (targets != self.ignore_index) & ~((targets >= 0) & (targets <= 1))
        if not bad.any():
            return None
        where = bad.nonzero()[0].tolist()
        return f"label {targets[bad][0].item()} at position {where} of the batch is out of range: labels must be 0 to 1"


def _wrong_shares(targets: Tensor) -> str | None:
    bad = ~are_shares(targets)
    if not bad.any():
        return None
    where = bad.nonzero()[0].tolist()
    given = targets.movedim(1, -1)[bad][0].tolist()
    return (
        f"the soft target at position {where} of the batch is no share of each class: {given[:8]}. Shares are 0 or "
        "more, with the sum 1. For several labels of an example take binary_classification()"
    )


def classification(
    loss: str | losses.LossFunction = "cross_entropy",
    *,
    label_smoothing: float = 0.0,
    class_weights: tuple[float, ...] | None = None,
    ignore_index: int = -100,
    output: Key | None = None,
    options: dict[str, Any] | None = None,
) -> Objective:
    """A loss of logits `[B, C]` against classes `[B]`, with the metric `accuracy`.

    With "cross_entropy" targets may be soft, `[B, C]`: the share of each class, as `functrain.data.transforms.MixUp`
    gives them. `accuracy` then counts the class with the greatest share.

    Args:
        loss: "cross_entropy", "focal", "dice", "iou", or a function `(logits, targets) -> PerExample`.
        label_smoothing: as of `losses.cross_entropy`.
        class_weights: one number for each class; the mean divides by their sum over the targets, as torch's does.
            `accuracy` does not look at them.
        ignore_index: class of a target that does not count.
        output: which of the model's outputs has the logits (a name or an index); None: the only one, or "logits".
        options: further keyword arguments of the loss.

    Raises:
        ValueError: for a loss that does not exist, or an argument that it does not have.

    Example:
        >>> import torch
        >>> loss = classification()(torch.nn.Identity(), (torch.eye(2), torch.tensor([0, 1])))
        >>> loss.weight.item(), loss.totals().means()["accuracy"].item()
        (2.0, 1.0)
        >>> objective = classification("focal", class_weights=(1.0, 5.0), options={"gamma": 1.5})
    """
    return _classes(loss, label_smoothing, class_weights, ignore_index, output, options, class_dim=1)


def segmentation(
    loss: str | losses.LossFunction = "cross_entropy",
    *,
    label_smoothing: float = 0.0,
    class_weights: tuple[float, ...] | None = None,
    ignore_index: int = -100,
    output: Key | None = None,
    options: dict[str, Any] | None = None,
) -> Objective:
    """A loss of logits `[B, C, H, W]` against classes `[B, H, W]`, with pixel `accuracy`.

    "cross_entropy" and "focal" count by pixels, "dice" and "iou" by examples; for a sum of both, take
    `weighted_sum`. Arguments as of `classification`.

    Example:
        >>> import torch
        >>> objective = segmentation("dice", ignore_index=255, options={"smooth": 0.1})
        >>> batch = (torch.zeros(2, 3, 4, 4), torch.zeros(2, 4, 4, dtype=torch.int64))
        >>> objective(torch.nn.Identity(), batch).weight.item()
        2.0
    """
    objective = _classes(loss, label_smoothing, class_weights, ignore_index, output, options, class_dim=1)
    return dataclasses.replace(objective, parts="pixels")


def language_modelling(
    loss: str | losses.LossFunction = "cross_entropy",
    *,
    label_smoothing: float = 0.0,
    class_weights: tuple[float, ...] | None = None,
    ignore_index: int = -100,
    output: Key | None = None,
    next_token: bool | None = None,
    options: dict[str, Any] | None = None,
) -> Objective:
    """A loss per token of logits `[B, T, V]` against tokens `[B, T]`, with token `accuracy`.

    The weight is the number of tokens that are not `ignore_index`, so that long and short texts in
    different micro-batches count by their tokens. Other arguments as of `classification`.

    Args:
        next_token: the targets are the tokens of the input: compare the logits of each position with the target
            of the next one. None: do not, and refuse a batch with "labels", which libraries use both ways.

    Example:
        >>> import torch
        >>> batch = (torch.zeros(1, 3, 5), torch.tensor([[4, 2, -100]]))
        >>> language_modelling()(torch.nn.Identity(), batch).weight.item()
        2.0
    """
    objective = _classes(loss, label_smoothing, class_weights, ignore_index, output, options, class_dim=-1)
    return dataclasses.replace(objective, next_token=next_token, parts="tokens")


def binary_classification(
    loss: str | losses.LossFunction = "binary_cross_entropy",
    *,
    ignore_index: int = -100,
    output: Key | None = None,
    options: dict[str, Any] | None = None,
) -> Objective:
    """A loss of logits against labels 0 or 1 of one shape, with the metric `accuracy`: `[B]`, several labels, a mask.

    Args:
        loss: "binary_cross_entropy", "binary_focal", "binary_dice", "binary_iou", or a function
            `(logits, targets) -> PerExample`.
        ignore_index: label that does not count (a missing one).
        output: which of the model's outputs has the logits (a name or an index); None: the only one, or "logits".
        options: further keyword arguments of the loss, such as `pos_weight`.

    Raises:
        ValueError: for a loss or an option that does not exist.

    Example:
        >>> import torch
        >>> objective = binary_classification(options={"pos_weight": 3.0})
        >>> loss = objective(torch.nn.Identity(), (torch.tensor([[1.0], [-1.0]]), torch.tensor([1, 1])))
        >>> loss.totals().means()["accuracy"].item()
        0.5
    """
    return _Binary(_with_ignored(loss, ignore_index, options, losses.BINARY), ignore_index, output)


def _classes(
    loss: str | losses.LossFunction,
    label_smoothing: float,
    class_weights: tuple[float, ...] | None,
    ignore_index: int,
    output: Key | None,
    options: dict[str, Any] | None,
    *,
    class_dim: int,
) -> _Classes:
    given = dict(options or {})
    check_label_smoothing(label_smoothing)
    if label_smoothing:
        given["label_smoothing"] = label_smoothing
    if class_weights is not None:
        given["class_weights"] = class_numbers(class_weights)
    return _Classes(_with_ignored(loss, ignore_index, given, losses.CLASSES), ignore_index, class_dim, output)


def _with_ignored(
    loss: str | losses.LossFunction, ignore_index: int, options: dict[str, Any] | None, known: Any
) -> BoundLoss:
    """The loss with its options and the ignored index, left out where it is the default and the loss has none."""
    given = dict(options or {})
    function: Callable[..., PerExample] | None = known.get(loss) if isinstance(loss, str) else loss
    if ignore_index != -100 or (function is not None and takes(function, "ignore_index")):
        given["ignore_index"] = ignore_index
    return bind(loss, given, known)
