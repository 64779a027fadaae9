"""Predictions of several members: their mean, and how far they are apart."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import tee

import torch
from torch import Tensor

from functrain.evaluation.ensemble_sums import mean_prediction, mean_task, uncertainty
from functrain.evaluation.predicting.sources import Sample
from functrain.evaluation.predicting.streaming import ROWS, Prediction, predict_each
from functrain.step.state import TrainState


def predict_each_of_members(
    states: Sequence[TrainState],
    samples: Iterable[Sample],
    *,
    rows: int = ROWS,
    ema: bool = False,
    flips: Sequence[str] = ("none",),
    in_own_unit: Callable[[Tensor], Tensor] = lambda scores: scores,
) -> Iterator[Prediction]:
    """As `predict_each`, of several members: their mean prediction, with its spread where it is a row of a table.

    The spread of classes is `disagreement`, the fraction of pairs of members that predict different classes, and
    `model_uncertainty` in nats; that of values is `sd`, the standard deviation over the members of each.

    Args:
        states: the members.
        samples, rows, ema, flips: as of `predict_each`.
        in_own_unit: what is done with the scores of each member first.

    Raises:
        FunctrainError: the objective's task has no mean prediction.

    Example:
        >>> import functrain as ft
        >>> states = [ft.init_state(torch.nn.Linear(2, 3), ft.classification(), ft.optim.sgd(0.1)) for _ in range(2)]
        >>> [one] = predict_each_of_members(states, [Sample("a", torch.zeros(2))])
        >>> one.scores.shape, sorted(one.spread)
        (torch.Size([3]), ['disagreement', 'model_uncertainty'])
    """
    task = mean_task(states[0].recipe.objective)
    each = (
        predict_each(state, own, rows=rows, ema=ema, flips=flips)
        for state, own in zip(states, tee(samples, len(states)), strict=True)
    )
    for together in zip(*each, strict=True):
        scores = torch.stack([in_own_unit(one.scores).double() for one in together])[:, None]
        yield Prediction(together[0].name, mean_prediction(scores, task)[0], _spread(scores, task))


def _spread(scores: Tensor, task: str) -> dict[str, float]:
    """Of one example, `[M, 1, ...]`; none of pixels."""
    if task == "regression":
        deviations = scores.std(0, correction=0).flatten().tolist()
        ends = [f" {number}" for number in range(len(deviations))] if len(deviations) > 1 else [""]
        return {f"sd{end}": value for end, value in zip(ends, deviations)}
    if scores[0].numel() > 1 and (task == "binary_classification" or scores.ndim > 3):  # several labels, or pixels
        return {}
    found = uncertainty(scores, task)
    return {"disagreement": found["disagreement"].item(), "model_uncertainty": found["model"].item()}
