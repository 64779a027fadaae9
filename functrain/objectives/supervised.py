"""Ready-made objectives: `(model, batch) -> Loss` for supervised learning.

An `Objective` is any function `(model, batch) -> Loss`; these are the usual ones. They take batches
as in `batch.py` and respect each example's weight, which lets a ragged batch be padded.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from functrain.foundation.trees import leaves
from functrain.metrics.weighted_sums import PerExample, one_each, sum_dtype, times_example_weight, total
from functrain.objectives import losses
from functrain.objectives.batch import batch_length, unpack
from functrain.objectives.binding import BoundLoss, bind, returns_per_example
from functrain.objectives.loss import Loss
from functrain.objectives.mean_losses import refuse_own_denominator, single_values
from functrain.objectives.outputs import Key, output_of
from functrain.objectives.tasks import task_of_loss
from functrain.objectives.uncounted import zero_uncounted

Objective = Callable[[Any, Any], Loss]
ExampleMetric = Callable[[Any, Any], Tensor]


def takes_weight(objective: Objective) -> bool:
    """Whether an objective respects a weight in the batch, so that padding with weight 0 is exact.

    Of your own objective, say so by an attribute: `objective.takes_weight = True`.
    """
    return bool(getattr(objective, "takes_weight", False))


def may_lack_loss(objective: Objective) -> bool:
    """Whether an objective raises `NoLossError` for models that compute no loss in evaluation mode."""
    return bool(getattr(objective, "may_lack_loss", False))


def takes_step(objective: Objective) -> bool:
    """Whether an objective changes with training and is called with `step=`, the number of past updates.

    The step passes a 0-d integer tensor, which is constant within an accumulation window.
    """
    return bool(getattr(objective, "takes_step", False))


def supervised(
    loss_fn: str | Callable[..., Any],
    metrics: Mapping[str, ExampleMetric] | None = None,
    *,
    output: Key | None = None,
    options: dict[str, Any] | None = None,
) -> Objective:
    """Make an objective of a loss over `(inputs, targets)`.

    The loss is one of functrain's (or one's own in their form), whose sums add up over micro-batches; or an
    ordinary mean loss. Its weight is then the number of examples, so the mean must be a plain one over them. One
    that divides by something else (class weights, ignored targets) is refused where that shows, and
    `classification` is there for it.

    Args:
        loss_fn: the name of a loss of `functrain.losses.REGISTRY`; a function annotated
            `(outputs, targets) -> PerExample`; or a function `(outputs, targets) -> 0-d mean`. The last, with a
            `reduction` parameter (as in `torch.nn.functional`), is asked for single values when examples
            have weights.
        metrics: name -> `(outputs, targets) -> [B] values`, averaged over the examples.
        output: which of the model's outputs the loss gets (a name or an index); None: all that the model returns.
        options: keyword arguments of functrain's loss; of a mean loss, take `functools.partial`.

    Raises:
        TypeError: if `loss_fn` is neither name nor function.
        ValueError: for a mean with class weights, an `ignore_index`, or a reduction other than the mean; for a
            loss or an option that does not exist.

    Example:
        >>> objective = supervised(torch.nn.functional.mse_loss)
        >>> loss = objective(torch.nn.Identity(), (torch.ones(4, 1), torch.zeros(4, 1)))
        >>> loss.total.item(), loss.weight.item()
        (4.0, 4.0)
        >>> objective = supervised("binary_focal", options={"gamma": 1.0})
    """
    named = tuple((metrics or {}).items())
    if isinstance(loss_fn, str) or (callable(loss_fn) and returns_per_example(loss_fn)):
        return _PerExample(bind(loss_fn, options), named, output)
    if not callable(loss_fn):
        raise TypeError(
            f"supervised takes the name of a loss or a function (outputs, targets) -> loss, got {loss_fn!r}"
        )
    if options:
        raise ValueError("options are those of functrain's losses; of a mean loss take functools.partial(loss, ...)")
    refuse_own_denominator(loss_fn)
    return _Mean(loss_fn, named, output)


@dataclass(frozen=True)
class _Mean:
    loss_fn: Callable[..., Tensor]
    metrics: tuple[tuple[str, ExampleMetric], ...]
    output: Key | None = None
    takes_weight = True

    @property
    def task(self) -> str | None:
        """What the loss is for."""
        return task_of_loss(self.loss_fn)

    def __call__(self, model: Any, batch: Any) -> Loss:
        inputs, targets, weight = unpack(batch)
        outputs = _chosen(call(model, inputs), self.output)
        examples = batch_length(targets)
        if weight is None:
            mean = self._mean(outputs, targets)
            loss_sum = mean.to(sum_dtype(mean)) * examples
            weight = loss_sum.new_ones(examples)
        else:
            counted = zero_uncounted(outputs, weight), zero_uncounted(targets, weight)
            loss_sum = total(single_values(self.loss_fn, *counted), one_each(weight, examples))
        return Loss(loss_sum, weight.sum(), example_metrics(self.metrics, outputs, targets, weight))

    def _mean(self, outputs: Any, targets: Any) -> Tensor:
        mean = self.loss_fn(outputs, targets)
        if isinstance(mean, PerExample):
            raise TypeError("a loss that returns a PerExample must say so by its annotation: -> PerExample")
        return mean


@dataclass(frozen=True)
class _PerExample:
    loss: BoundLoss
    metrics: tuple[tuple[str, Callable[[Any, Any], Tensor]], ...]
    output: Key | None = None
    takes_weight = True

    @property
    def task(self) -> str | None:
        """What the loss is for."""
        return task_of_loss(self.loss.fn)

    def __call__(self, model: Any, batch: Any) -> Loss:
        inputs, targets, weight = unpack(batch)
        outputs = _chosen(call(model, inputs), self.output)
        sums = self.loss(outputs, targets, weight).sums()
        return Loss(*sums, example_metrics(self.metrics, outputs, targets, weight))


@dataclass(frozen=True)
class _Regression:
    loss: BoundLoss
    output: Key | None = None
    takes_weight = True
    task = "regression"

    def __call__(self, model: Any, batch: Any) -> Loss:
        inputs, targets, weight = unpack(batch)
        predictions = output_of(call(model, inputs), self.output, "logits")
        loss = self.loss(predictions, targets, weight)
        mae = times_example_weight(losses.absolute_error(predictions, targets), weight)
        return Loss(*loss.sums(), {"mae": mae.sums()})


def regression(
    loss: str | losses.LossFunction = "squared_error",
    *,
    output: Key | None = None,
    options: dict[str, Any] | None = None,
) -> Objective:
    """A loss of predictions against targets of the same shape, with the metric `mae`.

    Args:
        loss: "squared_error", "absolute_error", "huber", "smooth_l1", or a function
            `(predictions, targets) -> PerExample`.
        output: which of the model's outputs has the predictions (a name or an index); None: the only one, or "logits".
        options: keyword arguments of the loss.

    Raises:
        ValueError: for a loss or an option that does not exist.

    Example:
        >>> loss = regression()(torch.nn.Identity(), (torch.tensor([[1.0], [3.0]]), torch.zeros(2, 1)))
        >>> loss.total.item(), loss.totals().means()["mae"].item()
        (10.0, 2.0)
        >>> objective = regression("huber", options={"delta": 0.5})
    """
    return _Regression(bind(loss, options, losses.VALUES), output)


def example_metrics(
    metrics: Iterable[tuple[str, ExampleMetric]], outputs: Any, targets: Any, weight: Tensor | None
) -> dict[str, tuple[Tensor, Tensor]]:
    """Name -> (weighted sum, sum of weights) of metrics `(outputs, targets) -> [B] values`."""
    if weight is None:
        examples = batch_length(targets)
        weight = torch.ones(examples, device=leaves(outputs)[0].device)
    return {name: PerExample(fn(outputs, targets), weight).sums() for name, fn in metrics}


def _chosen(outputs: Any, output: Key | None) -> Any:
    return outputs if output is None else output_of(outputs, output, "logits")


def call(model: Any, inputs: Any) -> Any:
    """Call a model with one input, a tuple of inputs, or a mapping of named ones."""
    if type(inputs) is Tensor:
        return model(inputs)
    if isinstance(inputs, Mapping):
        return model(**inputs)
    return model(*inputs) if isinstance(inputs, (tuple, list)) else model(inputs)
