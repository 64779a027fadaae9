"""The settings of a run, and what is allowed. Imports optim and step."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from functrain.loop.batches import TAILS
from functrain.loop.decisions import Decisions
from functrain.step.state import TrainState, require_state


@dataclass(frozen=True)
class Plan:
    """The settings of a run; see `fit`."""

    epochs: int | None
    steps: int | None
    tail: str
    eval_every: int
    save_every: int | None
    log_every: int
    watch: str | None
    on_nonfinite: str
    max_consecutive_skips: int | None
    decisions: Decisions
    max_time: float | None = None
    deterministic: bool = False
    steps_per_call: int | str = "auto"
    save_every_minutes: float | None = None

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


def check(plan: Plan, state: Any, resume: Any, on_signal: str, watch_mode: str, evaluates: bool) -> None:
    """Refuse arguments of `fit` that are not allowed, before anything is done."""
    require_state("fit", state)
    if plan.epochs is None and plan.steps is None:
        raise ValueError("fit needs to know how long to train: give epochs, steps, or both")
    for name in ("epochs", "steps", "eval_every", "save_every", "log_every", "max_consecutive_skips"):
        value = getattr(plan, name)
        if value is not None and not _is_count(value):
            raise ValueError(f"{name} must be a whole number, 1 or more; got {value!r}")
    if plan.steps_per_call != "auto" and not _is_count(plan.steps_per_call):
        raise ValueError(f"steps_per_call must be a whole number, 1 or more, or 'auto'; got {plan.steps_per_call!r}")
    for name, unit in (("max_time", "seconds"), ("save_every_minutes", "minutes")):
        limit = getattr(plan, name)
        if limit is not None and (isinstance(limit, bool) or not isinstance(limit, (int, float)) or not limit > 0):
            raise ValueError(f"{name} must be a number of {unit}, greater than 0; got {limit!r}")
    for name, value, allowed in (
        ("tail", plan.tail, TAILS),
        ("on_nonfinite", plan.on_nonfinite, ("stop", "skip")),
        ("on_signal", on_signal, ("auto", "exit", "return")),
        ("watch_mode", watch_mode, ("min", "max")),
    ):
        if value not in allowed:
            raise ValueError(f"{name} must be one of {', '.join(allowed)}; got {value!r}")
    _check_watch(plan.watch, evaluates, state.ema is not None)
    if not isinstance(resume, (str, Path)):
        raise TypeError(f"resume must be 'auto', 'never' or a path, got {resume!r}")


def _check_watch(watch: Any, evaluates: bool, averages: bool) -> None:
    """As far as it can be told before the first step, which tells the names of the metrics."""
    if watch is None:
        return
    if not isinstance(watch, str):
        raise TypeError(f"watch must be the name of a record, such as 'eval_loss', got {watch!r}")
    prefixes = watched_prefixes(evaluates, averages)
    if not watch.startswith(prefixes):
        missing = (
            ""
            if evaluates or watch.startswith("train_")
            else "; eval_... needs an eval_loader (in a configuration: a split 'val')"
        )
        if evaluates and watch.startswith("ema_"):
            missing = "; ema_... needs averages of the parameters (ema_decay)"
        names = ", ".join(f"{prefix}loss" for prefix in prefixes)
        raise ValueError(f"watch must be {names}, or another metric behind such a prefix; got {watch!r}{missing}")


def watched_prefixes(evaluates: bool, averages: bool) -> tuple[str, ...]:
    """What the names of watched records begin with."""
    return ("train_", *(("eval_",) if evaluates else ()), *(("ema_",) if evaluates and averages else ()))


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1
