"""A deep ensemble: what the members of a stack predict together, and how far they disagree."""

from collections.abc import Sequence
from contextlib import closing
from typing import Any

from functrain.evaluation.ensemble_sums import EnsembleResult as EnsembleResult
from functrain.evaluation.ensemble_sums import EnsembleSums
from functrain.evaluation.prediction import answers_of_all
from functrain.step import unstack
from functrain.step.state import TrainState, require_state


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
            values, and what the states were asked for.
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
        >>> import functrain as ft, torch
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
    sums = EnsembleSums(states, metrics)
    found = answers_of_all(states, loader, ema=ema, compile=compile, with_targets=True)
    with closing(found):
        for answers in found:
            sums.add(answers)
    return sums.result()


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
