"""Population-based training: members of a stack that do badly go on from those that do well."""

import math
from dataclasses import dataclass
from typing import ClassVar

from functrain.foundation.errors import FunctrainError
from functrain.foundation.keys import fold_in
from functrain.loop.events import Answer, Event
from functrain.loop.output.log_files import MEMBERS
from functrain.optim.checks import require_choice, require_fraction, require_positive, require_steps
from functrain.step.members.population import copied, scaled
from functrain.step.state import TrainState


@dataclass(frozen=True)
class Population:
    """The callback that `population` makes."""

    watch: str
    mode: str
    fraction: float
    factors: tuple[float, ...]
    perturb: tuple[str, ...]
    every: int
    scopes: ClassVar[tuple[str, ...]] = ("after_epoch",)

    def __call__(self, event: Event) -> Answer:
        """The state in which the worst members are copies of the best, with other hyperparameters."""
        state = event.state
        if state.members is None:
            raise FunctrainError("population is a callback for a stack of members: give fit functrain.stack(states)")
        if (state.epoch + 1) % self.every:
            return None
        values = event.metrics.get(MEMBERS, {}).get(self.watch)
        if values is None:
            return None  # an epoch without an evaluation
        pairs = self._exchanges(state, values)
        if not pairs:
            return None
        draw = fold_in(state.key, "population", state.epoch)
        factors = [1.0] * len(values)
        for number, loser in enumerate(pairs):
            factors[loser] = self.factors[fold_in(draw, "factor", number) % len(self.factors)]
        state = copied(state, [pairs.get(number, number) for number in range(len(values))])
        return scaled(state, factors, self.perturb)

    def _exchanges(self, state: TrainState, values: list[float | None]) -> dict[int, int]:
        """Who goes on from whom: member -> member."""
        assert state.members is not None
        sign = 1 if self.mode == "min" else -1
        there = [
            (sign * value if math.isfinite(value) else math.inf, number)
            for number, (value, train) in enumerate(zip(values, state.members.train(), strict=True))
            if train and value is not None
        ]
        count = int(self.fraction * len(there))
        ranked = [number for _, number in sorted(there)]
        draw = fold_in(state.key, "population", state.epoch)
        best, worst = ranked[:count], ranked[len(ranked) - count :]
        return {loser: best[fold_in(draw, "from", place) % count] for place, loser in enumerate(worst)}


def population(
    watch: str = "eval_loss",
    mode: str = "min",
    *,
    fraction: float = 0.2,
    factors: tuple[float, ...] = (0.8, 1.25),
    perturb: tuple[str, ...] = ("lr",),
    every: int = 1,
) -> Population:
    """A callback for `fit` of a stack: after an epoch the worst members go on from copies of the best.

    A copy keeps its own random key, so its own masks and order of the data. Its hyperparameters are those of the member
    it is copied from, times a factor that is drawn from the run's key: a run that is killed and goes on draws the same.

    Args:
        watch: name of a record, such as "eval_loss" or "train_loss".
        mode: "min" if less is better, "max" if more is.
        fraction: of the members that train, how many are replaced, less than 0.5.
        factors: one is drawn for each copy.
        perturb: what is multiplied: "lr", and numbers in which members differ, such as "weight_decay".
        every: so many epochs.

    Raises:
        ValueError, TypeError: for an argument that is not allowed.

    References:
        Jaderberg et al., Population Based Training of Neural Networks, 2017 (arXiv:1711.09846); truncation selection.

    Example:
        >>> import functrain as ft, torch
        >>> members = [ft.init_state(torch.nn.Linear(2, 1), ft.regression(), ft.optim.sgd(10.0**-n)) for n in range(5)]
        >>> data = [(torch.ones(4, 2), torch.zeros(4, 1))]
        >>> rule = ft.population("train_loss")
        >>> result = ft.fit(ft.stack(members), data, epochs=3, callbacks=[rule], compile=False, progress=False)
        >>> result.state.step
        3
    """
    require_choice("mode", mode, ("min", "max"))
    require_fraction("fraction", fraction)
    if not 0 < fraction < 0.5:
        raise ValueError(f"fraction must be greater than 0 and less than 0.5, got {fraction!r}")
    if not factors:
        raise ValueError("factors must have one number at least, such as (0.8, 1.25)")
    for number, factor in enumerate(factors):
        require_positive(f"factors[{number}]", factor)
    require_steps("every", every)
    return Population(watch, mode, fraction, tuple(factors), tuple(perturb), every)
