"""Sums over the predictions of several members: their metrics, those of their mean, and their disagreement."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from functrain.evaluation.panels import Panel
from functrain.evaluation.panels.probabilities import Histogram
from functrain.foundation.errors import FunctrainError
from functrain.metrics.measuring import Collected, Measures
from functrain.metrics.registry import measures
from functrain.objectives.judged import judged
from functrain.objectives.tasks import task_of
from functrain.step.state import TrainState

USUAL = {
    "classification": ("accuracy", "brier", "calibration_error"),
    "segmentation": ("accuracy",),
    "binary_classification": ("accuracy", "brier", "calibration_error"),
    "regression": ("mse", "mae"),
}


class EnsembleResult(NamedTuple):
    """What `evaluate_ensemble` finds.

    Attributes:
        ensemble: metrics of the members' mean prediction; of classes, `loss` is its negative log likelihood.
        members: the same metrics of each member.
        uncertainty: how sure the ensemble is, and why not. Of classes in nats: `total` (entropy of the mean
            probabilities) = `data` (mean entropy of the members) + `model` (their disagreement, a mutual information);
            and `disagreement`, the fraction of pairs of members that predict different classes. Of regression the root
            mean square of the members' standard deviation, as `model`.
    """

    ensemble: dict[str, float]
    members: list[dict[str, float]]
    uncertainty: dict[str, float]


class EnsembleSums:
    """Sums over batches.

    Args:
        members: the states.
        metrics: names as for `fit`; None: those of `USUAL`, and those that the states were asked for.

    Raises:
        FunctrainError: the objective is of no task that has a mean prediction.
    """

    def __init__(self, members: Sequence[TrainState], metrics: Sequence[Any] | None = None) -> None:
        recipe = members[0].recipe
        self.task = mean_task(recipe.objective)
        self._objective = recipe.objective
        wanted = measures(_usual(self.task, recipe.metrics) if metrics is None else list(metrics))
        self._sums = [_Sums(wanted, self.task) for _ in range(len(members) + 1)]
        self._uncertainty = _Means()
        self._histogram = Histogram("right", "wrong")

    def add(self, answers: Sequence[tuple[Any, Any]]) -> None:
        """Take the outputs and targets of a batch, of each member."""
        each = [judged(self._objective, outputs, (None, targets)) for outputs, targets in answers]
        scores = torch.stack([one.predictions.double() for one in each])
        targets, weight = each[0].targets, each[0].weight
        mean = mean_prediction(scores, self.task)
        for sums, one in zip(self._sums, [mean, *scores], strict=True):
            sums.add(one, targets, weight)
        for name, values in uncertainty(scores, self.task).items():
            weights = torch.ones_like(values) if weight is None else weight.view_as(values)
            self._uncertainty.add(name, values, weights)
            if name == "disagreement":
                self._count(values, _said(mean, self.task), targets, weights)

    def _count(self, disagreement: Tensor, said: Tensor, targets: Tensor, weights: Tensor) -> None:
        right = said == targets.view_as(said)
        for group, chosen in (("right", right), ("wrong", ~right)):
            self._histogram.add(group, disagreement[chosen & (weights > 0)].numpy())

    def result(self) -> EnsembleResult:
        """The metrics over all batches."""
        ensemble, *members = (each.values() for each in self._sums)
        found = self._uncertainty.values()
        if self.task == "regression":
            found = {"model": math.sqrt(found["model"])}
        return EnsembleResult(ensemble, members, found)

    def panel(self) -> Panel | None:
        """How many members disagree where their mean is right, and where it is wrong; None of values."""
        if self.task == "regression":
            return None
        drawn = self._histogram.panel("pairs of members that predict different classes")
        return drawn._replace(name="disagreement", title="Disagreement")


def _usual(task: str, own: Measures | None) -> list[Any]:
    more = () if own is None else own.metrics
    return [*USUAL[task], *(each for each in more if each.name not in USUAL[task])]


def mean_task(objective: Any) -> str:
    """The task of an objective whose members have a mean prediction.

    Raises:
        FunctrainError: it is of another one.
    """
    task = task_of(objective)
    if task not in USUAL:
        raise FunctrainError(
            f"an ensemble has a mean prediction for {', '.join(USUAL)}; this objective's task is {task or 'not known'}"
        )
    return task


def _said(scores: Tensor, task: str) -> Tensor:
    """The class that scores stand for."""
    return (scores > 0).to(torch.int64) if task == "binary_classification" else scores.argmax(1)


def mean_prediction(scores: Tensor, task: str) -> Tensor:
    """The mean over members, of scores `[M, B, ...]`: of probabilities, as scores that have them, or of values."""
    if task == "regression":
        return scores.mean(0)
    if task == "binary_classification":  # the number of members cancels out
        return F.logsigmoid(scores).logsumexp(0) - F.logsigmoid(-scores).logsumexp(0)
    return scores.log_softmax(2).logsumexp(0) - math.log(len(scores))


def uncertainty(scores: Tensor, task: str) -> dict[str, Tensor]:
    """Of each example or position: see `EnsembleResult`."""
    if task == "regression":
        return {"model": scores.var(0, correction=0)}
    if task == "binary_classification":
        scores = torch.stack([torch.zeros_like(scores), scores], 2)
    logs = scores.log_softmax(2)
    total = _entropy(logs.logsumexp(0) - math.log(len(logs)), 1)
    data = _entropy(logs, 2).mean(0)
    votes = F.one_hot(scores.argmax(2), scores.shape[2]).sum(0)
    pairs = len(scores) * (len(scores) - 1)
    agree = (votes * (votes - 1)).sum(-1).double() / pairs if pairs else torch.ones_like(data)
    return {"total": total, "data": data, "model": total - data, "disagreement": 1 - agree}


def _entropy(logs: Tensor, dim: int) -> Tensor:
    return torch.special.entr(logs.exp()).sum(dim)


class _Means:
    """Weighted means by name."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}

    def add(self, name: str, values: Tensor, weights: Tensor) -> None:
        """Add values of one shape and their weights."""
        counted = torch.where(weights > 0, values, 0.0)
        self._sums[name] = self._sums.get(name, 0.0) + torch.stack([(counted * weights).sum(), weights.double().sum()])

    def values(self) -> dict[str, float]:
        """Name -> mean; NaN where nothing was counted."""
        return {name: (total / weight).item() for name, (total, weight) in self._sums.items()}


class _Sums:
    """Metrics and the loss of scores over batches."""

    def __init__(self, wanted: Measures | None, task: str) -> None:
        self._measures, self._task = wanted, task
        self._collected, self._loss = Collected(), _Means()

    def add(self, scores: Tensor, targets: Tensor, weight: Tensor | None) -> None:
        """Add a batch."""
        if self._measures is not None:
            self._collected.add(self._measures.of(scores, targets, weight))
        if self._task == "regression":
            return
        if self._task == "binary_classification":
            losses = F.binary_cross_entropy_with_logits(scores, targets.double().clamp(0, 1), reduction="none")
        else:
            known = torch.where(weight > 0, targets, 0) if weight is not None else targets
            losses = F.cross_entropy(scores, known, reduction="none")
        self._loss.add("loss", losses, torch.ones_like(losses) if weight is None else weight.view_as(losses))

    def values(self) -> dict[str, float]:
        """All of them."""
        total = self._collected.total()
        found = {} if total is None else {name: value.item() for name, value in total.values().items()}
        return self._loss.values() | found
