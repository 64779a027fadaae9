"""A deep ensemble: what the members of a stack predict together, and how far they disagree."""

import math
from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from functrain.evaluation.prediction import answers_of_all
from functrain.foundation.errors import FunctrainError
from functrain.metrics.measuring import Collected, Measures
from functrain.metrics.registry import measures
from functrain.objectives.judged import judged
from functrain.objectives.tasks import task_of
from functrain.step import unstack
from functrain.step.state import TrainState, require_state

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


def evaluate_ensemble(
    state: TrainState | Sequence[TrainState],
    loader: Any,
    *,
    metrics: Sequence[Any] | None = None,
    ema: bool = False,
    compile: bool = False,
) -> EnsembleResult:
    """Evaluate the mean prediction of several members: probabilities of classes, or values.

    Args:
        state: a stack from `functrain.stack`, or states of one task.
        loader: as for `functrain.predict`, with targets; each batch is read once.
        metrics: names as for `fit`; None: accuracy, Brier score and calibration error of classes, or MSE and MAE of
            values.
        ema: take the averaged parameters.
        compile: compile the forward pass.

    Raises:
        ValueError: there is no member.
        FunctrainError: the objective is of no task that has a mean prediction.
        DataError: the loader gives no batch.

    References:
        Lakshminarayanan et al., Simple and Scalable Predictive Uncertainty Estimation using Deep Ensembles, NeurIPS
        2017; Depeweg et al., Decomposition of Uncertainty, ICML 2018 (total = data + model).

    Example:
        >>> import functrain as ft
        >>> members = []
        >>> for seed in range(3):
        ...     _ = torch.manual_seed(seed)
        ...     members.append(ft.init_state(torch.nn.Linear(2, 3), ft.classification(), ft.optim.sgd(0.1)))
        >>> data = [(torch.randn(8, 2), torch.randint(3, (8,)))]
        >>> found = ft.evaluate_ensemble(ft.stack(members), data)
        >>> sorted(found.ensemble), len(found.members), sorted(found.uncertainty)
        (['accuracy', 'brier', 'calibration_error', 'loss'], 3, ['data', 'disagreement', 'model', 'total'])
    """
    states = _members(state)
    task = task_of(states[0].recipe.objective)
    if task not in USUAL:
        raise FunctrainError(
            f"an ensemble has a mean prediction for {', '.join(USUAL)}; this objective's task is {task or 'not known'}"
        )
    wanted = measures(list(USUAL[task] if metrics is None else metrics))
    sums, uncertainty = [_Sums(wanted, task) for _ in range(len(states) + 1)], _Means()
    for scores, targets, weight in _judged(states, loader, ema=ema, compile=compile):
        for each, one in zip(sums, [_mean_prediction(scores, task), *scores], strict=True):
            each.add(one, targets, weight)
        for name, values in _uncertainty(scores, task).items():
            uncertainty.add(name, values, torch.ones_like(values) if weight is None else weight.view_as(values))
    ensemble, *members = (each.values() for each in sums)
    found = uncertainty.values()
    if task == "regression":
        found = {"model": math.sqrt(found["model"])}
    return EnsembleResult(ensemble, members, found)


def _members(given: TrainState | Sequence[TrainState]) -> list[TrainState]:
    if isinstance(given, TrainState):
        require_state("evaluate_ensemble", given, members=True)
        return unstack(given) if given.members is not None else [given]
    states = list(given)
    for state in states:
        require_state("evaluate_ensemble", state)
    if not states:
        raise ValueError("evaluate_ensemble takes one member at least; got none")
    return states


def _judged(
    states: Sequence[TrainState], loader: Any, *, ema: bool, compile: bool
) -> Iterator[tuple[Tensor, Tensor, Tensor | None]]:
    """Of each batch the scores of all members, float64 `[M, B, ...]`, its targets, and their weights."""
    found = answers_of_all(states, loader, ema=ema, compile=compile, with_targets=True)
    with closing(found):
        for answers in found:
            each = [
                judged(state.recipe.objective, outputs, (None, targets))
                for state, (outputs, targets) in zip(states, answers, strict=True)
            ]
            yield torch.stack([one.predictions.double() for one in each]), each[0].targets, each[0].weight


def _mean_prediction(scores: Tensor, task: str) -> Tensor:
    """The mean over members: of probabilities, as scores that have them, or of values."""
    if task == "regression":
        return scores.mean(0)
    if task == "binary_classification":  # the number of members cancels out
        return F.logsigmoid(scores).logsumexp(0) - F.logsigmoid(-scores).logsumexp(0)
    return scores.log_softmax(2).logsumexp(0) - math.log(len(scores))


def _uncertainty(scores: Tensor, task: str) -> dict[str, Tensor]:
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
