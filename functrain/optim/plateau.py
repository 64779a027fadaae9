"""Reducing the learning rate when a metric stops improving, as a pure rule."""

import dataclasses
import math
from typing import Literal

from functrain.foundation.trees import Tree, node
from functrain.optim.checks import (
    require_choice,
    require_fraction,
    require_non_negative,
    require_positive,
    require_steps,
)
from functrain.optim.rates import reduce_learning_rate

Mode = Literal["min", "max"]
ThresholdMode = Literal["rel", "abs"]


@node
class PlateauState:
    """What a `Plateau` remembers: host numbers, for it is asked once an evaluation."""

    best: float  # best metric so far; the worst there is, before the first
    num_bad_epochs: int  # evaluations without improvement since the last improvement or reduction
    cooldown_counter: int  # evaluations that still do not count as bad


@dataclasses.dataclass(frozen=True)
class PlateauDecision:
    """The answer to a metric.

    Attributes:
        improved: it is better than the best before, by the threshold.
        reduce: reduce the learning rate now, with `Plateau.apply`.
    """

    improved: bool
    reduce: bool


@dataclasses.dataclass(frozen=True)
class Plateau:
    """The rule; make it with `plateau`, which checks the arguments."""

    mode: Mode
    factor: float
    patience: int
    threshold: float
    threshold_mode: ThresholdMode
    cooldown: int
    min_lr: float
    eps: float

    def init(self) -> PlateauState:
        """Before the first metric.

        Example:
            >>> plateau().init()
            PlateauState(best=inf, num_bad_epochs=0, cooldown_counter=0)
        """
        return PlateauState(best=worst(self.mode), num_bad_epochs=0, cooldown_counter=0)

    def update(self, state: PlateauState, metric: float) -> tuple[PlateauState, PlateauDecision]:
        """The state after a metric, and what to do; a NaN is no improvement.

        Example:
            >>> rule = plateau(patience=0)
            >>> state, decision = rule.update(rule.init(), 1.0)
            >>> state, decision = rule.update(state, 1.0)
            >>> decision
            PlateauDecision(improved=False, reduce=True)
        """
        metric = float(metric)
        improved = self._is_better(metric, state.best)
        best = metric if improved else state.best
        bad, cooldown = (0 if improved else state.num_bad_epochs + 1), state.cooldown_counter
        if cooldown > 0:
            bad, cooldown = 0, cooldown - 1
        reduce = bad > self.patience
        if reduce:
            bad, cooldown = 0, self.cooldown
        return PlateauState(best, bad, cooldown), PlateauDecision(improved, reduce)

    def apply(self, opt_state: Tree) -> Tree:
        """An optimizer's state with every learning rate reduced, not below `min_lr`.

        Example:
            >>> from functrain.optim import learning_rate, sgd
            >>> learning_rate(plateau(factor=0.5).apply(sgd(0.1).init({})))
            tensor(0.0500, dtype=torch.float64)
        """
        return reduce_learning_rate(opt_state, self.factor, min_lr=self.min_lr, eps=self.eps)

    def _is_better(self, metric: float, best: float) -> bool:
        sign = 1 if self.mode == "max" else -1
        if self.threshold_mode == "rel":
            return sign * metric > sign * best * (1 + sign * self.threshold)
        return sign * metric > sign * (best + sign * self.threshold)


def plateau(
    mode: Mode = "min",
    factor: float = 0.1,
    patience: int = 10,
    threshold: float = 1e-4,
    threshold_mode: ThresholdMode = "rel",
    cooldown: int = 0,
    min_lr: float = 0.0,
    eps: float = 1e-8,
) -> Plateau:
    """Multiply the learning rate by `factor` when a metric has not improved for more than `patience` evaluations.

    The decisions are those of torch's ReduceLROnPlateau, whose arguments these are. The reduction is a factor
    of the optimizer's rate: a schedule goes on below it.

    Args:
        mode: "min" if less is better, "max" if more is.
        factor: of a reduction, in (0, 1).
        patience: evaluations without improvement that are borne.
        threshold: how much better is an improvement, >= 0: as a part of the best, or absolute.
        threshold_mode: "rel" or "abs".
        cooldown: evaluations after a reduction that do not count as bad.
        min_lr: no learning rate is reduced below it.
        eps: a reduction by no more than this is left out.

    Returns:
        A rule with `init() -> state`, `update(state, metric) -> (state, decision)` and
        `apply(opt_state) -> opt_state`.

    Raises:
        TypeError: an argument is of the wrong type.
        ValueError: an argument is out of range.

    Example:
        >>> rule = plateau(patience=1, threshold=0.0)
        >>> state, reduced = rule.init(), []
        >>> for loss in (3.0, 2.0, 2.0, 2.0, 2.0):
        ...     state, decision = rule.update(state, loss)
        ...     reduced.append(decision.reduce)
        >>> reduced
        [False, False, False, True, False]
    """
    require_choice("mode", mode, ("min", "max"))
    require_choice("threshold_mode", threshold_mode, ("rel", "abs"))
    require_fraction("factor", factor)
    require_positive("factor", factor)
    require_steps("patience", patience, least=0)
    require_steps("cooldown", cooldown, least=0)
    for name, value in (("threshold", threshold), ("min_lr", min_lr), ("eps", eps)):
        require_non_negative(name, value)
    return Plateau(mode, factor, patience, threshold, threshold_mode, cooldown, min_lr, eps)


def worst(mode: Mode) -> float:
    """The metric that any other is better than.

    Example:
        >>> worst("min"), worst("max")
        (inf, -inf)
    """
    return math.inf if mode == "min" else -math.inf
