"""The settings of a run, each declared once: type, default, what is allowed, documentation, and its effect on bits.

The declarations stand in `settings_of_training` and `settings_of_running`.

`fit` takes them as keyword arguments; its signature and the `Args` of its docstring are made from this declaration. So
are the keys of a configuration (functrain/app/config/run_sections.py) and the page docs/settings.md.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from functrain.data import Portion
from functrain.loop.decisions import Decisions
from functrain.loop.declaring import Declared, declarations
from functrain.loop.output.mlflow import MLFLOW
from functrain.loop.output.sinks import Tracker
from functrain.loop.output.wandb import WANDB
from functrain.loop.settings_of_running import Compiling, Logging, Saving
from functrain.loop.settings_of_training import Deciding, Evaluating, Guards, Length, Stepping
from functrain.loop.watched_names import check_watch
from functrain.step.state import TrainState, require_state

TRACKERS = (WANDB, MLFLOW)


# The groups, each with the section of a configuration that its keys stand in.
SECTIONS: Mapping[type, str] = {
    Length: "training",
    Evaluating: "evaluation",
    Deciding: "training",
    Stepping: "training",
    Compiling: "compile",
    Saving: "checkpoint",
    Logging: "logging",
    Guards: "training",
}


@dataclass(frozen=True, kw_only=True)
class Settings(Guards, Logging, Saving, Compiling, Stepping, Deciding, Evaluating, Length):
    """All settings of a run.

    Example:
        >>> settings = Settings(epochs=2, save_every=10)
        >>> settings.keep, settings.saves_at(20, seconds=0.0), settings.saves_at(21, seconds=0.0)
        (3, True, False)
    """

    @property
    def decisions(self) -> Decisions:
        """What the watched metric decides."""
        return Decisions(self.plateau, self.early_stopping)

    @property
    def portion(self) -> Portion:
        """Which of the training batches are used."""
        return Portion(self.limit_batches, self.overfit_batches)

    @property
    def eval_limit(self) -> int | float | None:
        """How many of the batches of evaluation are used, or which fraction of them."""
        return self.limit_batches if self.eval_limit_batches is None else self.eval_limit_batches

    def limits(self) -> dict[str, Any]:
        """The settings that choose batches."""
        return {**self.portion._asdict(), "eval_limit_batches": self.eval_limit_batches}

    def trackers(self) -> list[tuple[Tracker, Any]]:
        """The trackers that are asked for, each with its options.

        Raises:
            ValueError, TypeError: for options that are not allowed.
            ModuleNotFoundError: one is not installed.
        """
        found = [(tracker, tracker.asked(getattr(self, tracker.name))) for tracker in TRACKERS]
        return [(tracker, options) for tracker, options in found if options is not None]

    def compiler_settings(self) -> str:
        """The settings that choose how steps are compiled, as far as they are not the defaults, as one writes them.

        Example:
            >>> Settings(mode="reduce-overhead").compiler_settings()
            "mode='reduce-overhead'"
        """
        given = {name: getattr(self, name) for name in ("backend", "mode", "engine")}
        return ", ".join(f"{name}={value!r}" for name, value in given.items() if value != getattr(Compiling, name))

    def steps_are_done(self, state: TrainState) -> bool:
        """Whether as many updates are done as `steps` says."""
        return self.steps is not None and state.step >= self.steps

    def is_done(self, state: TrainState) -> bool:
        """Whether nothing is left to train; asked between epochs."""
        return self.steps_are_done(state) or (self.epochs is not None and state.epoch >= self.epochs)

    def saves_at(self, step: int, seconds: float) -> bool:
        """Whether to save after an update, so many seconds after the last save."""
        every, minutes = self.save_every, self.save_every_minutes
        return (every is not None and step % every == 0) or (minutes is not None and seconds >= 60 * minutes)

    def check(self, state: Any) -> None:
        """Refuse what is not allowed, before anything is done.

        Raises:
            ValueError, TypeError: for what is not allowed.
        """
        require_state("fit", state, members=True)
        if self.epochs is None and self.steps is None:
            raise ValueError("fit needs to know how long to train: give epochs, steps, or both")
        for each in declared():
            value = getattr(self, each.name)
            if value is not None or not each.optional:
                each.kind.check(each.name, value)
        check_watch(self.watch, self.eval_loader is not None, state.ema is not None)
        self.decisions.check(state, self.watch_mode, self.run_dir)
        if self.overfit_batches is not None and (self.limit_batches, self.eval_limit_batches) != (None, None):
            raise ValueError(
                "overfit_batches chooses the batches of training and evaluation: leave out limit_batches and "
                "eval_limit_batches"
            )
        if self.tensorboard and self.run_dir is None:
            raise ValueError("tensorboard=True writes to run_dir/events: give fit a run_dir")
        for tracker, _ in self.trackers():
            if self.run_dir is None:
                raise ValueError(f"{tracker.name} needs a run_dir, which remembers what the tracker has: give fit one")


def declared() -> Iterator[Declared]:
    """Each setting, in the order of the groups."""
    return declarations(SECTIONS)
