"""Stopping when a metric no longer improves, as a pure rule."""

import dataclasses

from functrain.foundation.trees import node
from functrain.optim.checks import require_choice, require_non_negative, require_steps
from functrain.optim.plateau import Mode, worst


@node
class EarlyStoppingState:
    """What an `EarlyStopping` remembers: host numbers, for it is asked once an evaluation."""

    best: float  # best metric so far; the worst there is, before the first
    best_evaluation: int  # which one that was, counted from 1; 0 before the first
    evaluations: int  # metrics so far
    num_bad_epochs: int  # evaluations without improvement in a row that counted


@dataclasses.dataclass(frozen=True)
class StopDecision:
    """The answer to a metric.

    Attributes:
        improved: it is better than the best before, by more than `min_delta`: worth keeping the parameters.
        stop: stop now.
        restore_best: go back to the parameters of the best evaluation; only ever true with `stop`.
    """

    improved: bool
    stop: bool
    restore_best: bool


@dataclasses.dataclass(frozen=True)
class EarlyStopping:
    """The rule; make it with `early_stopping`, which checks the arguments."""

    patience: int
    min_delta: float
    mode: Mode
    cooldown: int
    restore_best: bool

    def init(self) -> EarlyStoppingState:
        """Before the first metric.

        Example:
            >>> early_stopping(mode="max").init()
            EarlyStoppingState(best=-inf, best_evaluation=0, evaluations=0, num_bad_epochs=0)
        """
        return EarlyStoppingState(best=worst(self.mode), best_evaluation=0, evaluations=0, num_bad_epochs=0)

    def update(self, state: EarlyStoppingState, metric: float) -> tuple[EarlyStoppingState, StopDecision]:
        """The state after a metric, and what to do; a NaN is no improvement.

        Example:
            >>> rule = early_stopping(patience=1, restore_best=True)
            >>> state, _ = rule.update(rule.init(), 1.0)
            >>> rule.update(state, 2.0)[1]
            StopDecision(improved=False, stop=True, restore_best=True)
        """
        metric, number = float(metric), state.evaluations + 1
        gain = state.best - metric if self.mode == "min" else metric - state.best
        if gain > self.min_delta:
            return EarlyStoppingState(metric, number, number, 0), StopDecision(True, False, False)
        bad = state.num_bad_epochs + 1 if number > self.cooldown else 0
        stop = bad >= self.patience
        decision = StopDecision(False, stop, stop and self.restore_best)
        return EarlyStoppingState(state.best, state.best_evaluation, number, bad), decision


def early_stopping(
    patience: int = 10,
    min_delta: float = 0.0,
    mode: Mode = "min",
    cooldown: int = 0,
    restore_best: bool = False,
) -> EarlyStopping:
    """Stop when a metric has not improved for `patience` evaluations in a row.

    Args:
        patience: evaluations without improvement at the last of which training stops, >= 1.
        min_delta: how much better than the best an improvement must be, absolute, >= 0; exactly so much is not.
        mode: "min" if less is better, "max" if more is.
        cooldown: evaluations at the beginning that do not count as bad.
        restore_best: say so in the decision to stop, for the caller to go back to the best parameters.

    Returns:
        A rule with `init() -> state` and `update(state, metric) -> (state, decision)`.

    Raises:
        TypeError: an argument is of the wrong type.
        ValueError: an argument is out of range.

    References:
        Prechelt, Early Stopping - But When?, 1998, criterion UP of strips of length 1; as in Keras'
        EarlyStopping.

    Example:
        >>> rule = early_stopping(patience=2, mode="max")
        >>> state, stops = rule.init(), []
        >>> for accuracy in (0.5, 0.7, 0.6, 0.7):
        ...     state, decision = rule.update(state, accuracy)
        ...     stops.append(decision.stop)
        >>> stops, state.best_evaluation
        ([False, False, False, True], 2)
    """
    require_steps("patience", patience)
    require_steps("cooldown", cooldown, least=0)
    require_non_negative("min_delta", min_delta)
    require_choice("mode", mode, ("min", "max"))
    if not isinstance(restore_best, bool):
        raise TypeError(f"restore_best must be True or False, got {restore_best!r}")
    return EarlyStopping(patience, min_delta, mode, cooldown, restore_best)
