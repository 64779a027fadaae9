"""What the watched metric decides: reduced learning rates and an early end.

The rules are pure, their memory is part of the training state: a resumed run decides as an uninterrupted one.
"""

import dataclasses
import math
from pathlib import Path
from typing import Any

from functrain.loop.output.progress_line import counted, exact
from functrain.optim import EarlyStopping, Plateau, learning_rates
from functrain.optim.plateau import worst
from functrain.step.state import TrainState


@dataclasses.dataclass(frozen=True)
class Decisions:
    """The rules of a run.

    Attributes:
        plateau: reduces the learning rate.
        early_stopping: ends training.
    """

    plateau: Plateau | None = None
    early_stopping: EarlyStopping | None = None

    def check(self, state: TrainState, watch_mode: str, run_dir: str | Path | None) -> None:
        """Refuse rules that cannot be followed in this run."""
        kinds: tuple[tuple[str, Any, Any], ...] = (
            ("plateau", self.plateau, Plateau),
            ("early_stopping", self.early_stopping, EarlyStopping),
        )
        for name, rule, kind in kinds:
            if rule is None:
                continue
            if not isinstance(rule, kind):
                raise TypeError(f"{name} must be a rule made by functrain.optim.{name}(...), got {rule!r}")
            if rule.mode != watch_mode:
                raise ValueError(
                    f"{name} has mode={rule.mode!r}, but watch_mode is {watch_mode!r}: "
                    "both say whether less or more of the watched metric is better. Give both the same"
                )
        if self.plateau is not None and not learning_rates(state.opt_state):
            raise ValueError(
                "plateau: this optimizer has no learning rate that could be reduced; leave plateau out, or give "
                "optim.from_torch its lr as a schedule: lr=schedules.constant(1e-3)"
            )
        if self.early_stopping is not None and self.early_stopping.restore_best and state.members is not None:
            raise ValueError(
                "early_stopping(restore_best=True) is not for a stack, whose members are best at different times: "
                "leave restore_best out. A member that stops keeps its values"
            )
        if self.early_stopping is not None and self.early_stopping.restore_best and run_dir is None:
            raise ValueError("early_stopping(restore_best=True) goes back to the best checkpoint: give fit a run_dir")

    def prepared(self, state: TrainState) -> TrainState:
        """The state with memories that have met no metric yet in these rules' mode."""
        changes: dict[str, Any] = {}
        for name, rule in (("plateau", self.plateau), ("stopper", self.early_stopping)):
            if rule is not None and math.isinf(getattr(state, name).best):
                changes[name] = dataclasses.replace(getattr(state, name), best=worst(rule.mode))
        return state.replace(**changes) if changes else state

    def after(self, state: TrainState, metric: float) -> tuple[TrainState, list[str]]:
        """The state after an evaluation, and what was decided, in words."""
        changes: dict[str, Any] = {}
        said = []
        if self.plateau is not None:
            changes["plateau"], decision = self.plateau.update(state.plateau, metric)
            if decision.reduce:
                # Values only: no tensor changes its form, so nothing is compiled anew.
                changes["opt_state"] = self.plateau.apply(state.opt_state)
                rates = ", ".join(f"{rate.item():.4g}" for rate in learning_rates(changes["opt_state"]))
                said.append(f"no improvement on {exact(state.plateau.best)}: learning rate reduced to {rates}")
        if self.early_stopping is not None:
            memory, stop = self.early_stopping.update(state.stopper, metric)
            changes["stopper"] = memory
            if stop.stop:
                said.append(
                    f"early stopping: no improvement on {exact(memory.best)} for "
                    f"{counted(memory.num_bad_epochs, 'evaluation')}"
                )
        return (state.replace(**changes) if changes else state), said

    def end(self, state: TrainState) -> bool:
        """Whether training is over; a question to the state alone, so that a resume gives the same answer."""
        rule = self.early_stopping
        if state.members is not None:
            return not any(state.members.train())
        return rule is not None and state.stopper.num_bad_epochs >= rule.patience

    @property
    def decide(self) -> bool:
        """Whether there is a rule."""
        return self.plateau is not None or self.early_stopping is not None

    @property
    def restores_best(self) -> bool:
        """Whether an early end goes back to the best checkpoint."""
        return self.early_stopping is not None and self.early_stopping.restore_best
