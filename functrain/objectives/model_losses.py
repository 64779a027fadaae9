"""An objective for models that compute their loss themselves."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from functrain.foundation.errors import NoLossError
from functrain.metrics.weighted_sums import sum_dtype
from functrain.objectives.batch import replaced
from functrain.objectives.examples import list_length
from functrain.objectives.loss import Loss
from functrain.objectives.outputs import Key, at, described, named_outputs
from functrain.objectives.supervised import Objective, call

Count = Callable[[Any], Tensor | int]
OutputMetric = Callable[[Any, Any], Tensor]
KINDS = ("examples", "labels", "next_labels")


def model_loss(
    *,
    mean_over: str | Count | None = None,
    loss: Key = "loss",
    ignore_index: int = -100,
    metrics: Mapping[str, OutputMetric] | None = None,
) -> Objective:
    """The loss that a model returns, as an objective: for models of transformers, diffusers, torchvision's detection.

    A mapping is passed to the model as keyword arguments, a tuple or a list as positional ones, anything else (a
    graph) as the only argument. The model may return the loss alone; an object, a mapping or a tuple that holds it; or
    a mapping of losses only, which are added up and logged by name.

    Such a loss is a mean. Accumulation, epoch metrics and several ranks need sums, so say what it is a mean over:

    | `mean_over` | what is counted | for |
    |---|---|---|
    | "examples" | rows of the batch | regression, several labels, contrast, detection |
    | "labels" | `batch["labels"]` other than `ignore_index` | classes, masked tokens, sequence-to-sequence |
    | "next_labels" | the same, without each row's first | causal language models, which shift labels by one |
    | a function of the batch | the 0-d tensor or number that it returns | any other mean |

    A step with `accumulate=1` does not depend on it. Examples cannot have weights, as the model does not know them: a
    ragged batch is not padded. Labels of `ignore_index` leave an example out.

    Args:
        mean_over: see above. None: "labels" for integer labels `[B]`, "examples" for floating-point ones and where
            there are none; integer labels `[B, T]` are refused until you choose.
        loss: name or index of the loss among the outputs.
        ignore_index: label that the model's loss does not count.
        metrics: name -> `(outputs, batch) -> 0-d mean` over the same.

    Raises:
        ValueError: for a `mean_over` that does not exist; when called, for one that must be said.
        NoLossError: when called, if there is no loss, as of detection models in evaluation mode.
        TypeError: when called, if the batch has weights.

    Example:
        >>> class Model(torch.nn.Linear):
        ...     def forward(self, x, labels):
        ...         return {"loss": (super().forward(x) - labels).square().mean()}
        >>> batch = {"x": torch.ones(4, 2), "labels": torch.ones(4, 1)}
        >>> model_loss()(Model(2, 1), batch).weight.item()
        4.0
    """
    if mean_over is not None and mean_over not in KINDS and not callable(mean_over):
        raise ValueError(
            f"mean_over must be one of {', '.join(KINDS)}, a function of the batch, or None; got {mean_over!r}"
        )
    return _ModelLoss(mean_over, loss, ignore_index, tuple((metrics or {}).items()))


@dataclass(frozen=True)
class _ModelLoss:
    mean_over: str | Count | None
    loss: Key
    ignore_index: int
    metrics: tuple[tuple[str, OutputMetric], ...]
    takes_lists = True
    may_lack_loss = True

    def __call__(self, model: Any, batch: Any) -> Loss:
        if isinstance(batch, Mapping) and "weight" in batch:
            raise TypeError(
                "the batch has a weight for each example, but the model takes the mean of its loss itself. Leave "
                "'weight' out, or give the logits to an objective that takes weights, such as classification()"
            )
        batch, count = self._counted(batch)
        outputs = call(model, batch)
        means = _losses(outputs, self.loss, evaluates=isinstance(model, nn.Module) and not model.training)
        main = means["loss"] if "loss" in means else torch.stack(list(means.values())).sum()
        weight = _as_weight(count, main)
        logged = {name: value for name, value in means.items() if name != "loss"}
        logged |= {name: metric(outputs, batch) for name, metric in self.metrics}
        return Loss(main * weight, weight, {name: value * weight for name, value in logged.items()})

    def _counted(self, batch: Any) -> tuple[Any, Tensor | int]:
        """The batch as the model gets it, and what its loss is a mean over."""
        kind = _usual_kind(batch) if self.mean_over is None else self.mean_over
        if not isinstance(kind, str):
            return batch, kind(batch)
        if kind == "examples":
            return batch, list_length(batch)
        if not isinstance(batch, Mapping) or not isinstance(batch.get("labels"), Tensor):
            raise TypeError(f"mean_over={kind!r} needs a batch that is a mapping with a tensor 'labels' in it")
        labels = batch["labels"]
        counted = (labels if kind == "labels" else labels[..., 1:]) != self.ignore_index
        count = counted.sum()
        # The mean over nothing is NaN, whose gradient would stay so times a weight of 0: let it be over something.
        return replaced(batch, "labels", torch.where(count > 0, labels, 0)), count


def _usual_kind(batch: Any) -> str:
    labels = batch.get("labels") if isinstance(batch, Mapping) else None
    if not isinstance(labels, Tensor) or labels.dtype.is_floating_point:
        return "examples"
    if labels.ndim == 1:
        return "labels"
    raise ValueError(
        f"the labels are integers {list(labels.shape)}: the model's loss may be a mean over all of them, or over those "
        "after the first of each row, as in causal language models, which shift them by one. Say which: "
        "model_loss(mean_over='labels') or model_loss(mean_over='next_labels'); or mean_over='examples'"
    )


def _losses(outputs: Any, key: Key, *, evaluates: bool) -> dict[str, Tensor]:
    """The losses among the outputs: one, under "loss", or several to be added up."""
    found = outputs if isinstance(outputs, Tensor) else at(outputs, key)
    if isinstance(found, Tensor):
        losses = {"loss": found}
    elif found is not None:
        raise TypeError(f"the model's loss at {key!r} must be a tensor, which has a gradient; got {found!r}")
    else:
        losses = dict(named_outputs(outputs) or {})
        if not losses or not all(map(_is_mean, losses.values())):
            raise NoLossError(_no_loss(outputs, key, losses, evaluates=evaluates))
    for name, value in losses.items():
        if not _is_mean(value):
            raise TypeError(
                f"the model's {name!r} must be a mean, a 0-d floating-point tensor; got a tensor {list(value.shape)}, "
                f"{value.dtype}"
            )
    return {name: value.to(sum_dtype(value)) for name, value in losses.items()}


def _no_loss(outputs: Any, key: Key, losses: dict[Any, Any], *, evaluates: bool) -> str:
    what = f"the model returned {described(outputs)}, with no loss at {key!r}{_strangers(losses)}"
    needs = "Does the batch hold what the model needs for it ('labels', mostly)?"
    if evaluates:
        return (
            f"in evaluation mode {what}. {needs} A model that computes its loss in training mode only, as detection "
            "models do, cannot be evaluated by it: look at its predictions (functrain.predict)"
        )
    return f"{what}. {needs} Another place is model_loss(loss=...)"


def _strangers(outputs: dict[Any, Any]) -> str:
    """What keeps several outputs, of which some are means, from being losses to be added up."""
    others = [f"{name!r} is {_shown(value)}" for name, value in outputs.items() if not _is_mean(value)]
    has_means = len(others) < len(outputs)
    return f", and not all are losses to be added up: {', '.join(others)}" if has_means and others else ""


def _is_mean(value: Any) -> bool:
    return isinstance(value, Tensor) and not value.ndim and value.is_floating_point()


def _shown(value: Any) -> str:
    return f"a tensor {list(value.shape)}, {value.dtype}" if isinstance(value, Tensor) else repr(value)


def _as_weight(count: Tensor | int, like: Tensor) -> Tensor:
    if isinstance(count, Tensor):
        return count.detach().to(like.dtype)
    return like.new_full((), float(count))  # an operation of the graph, where torch.tensor would be a constant
