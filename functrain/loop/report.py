"""What a run tells of itself: its records, and the display."""

from collections.abc import Mapping
from typing import Any

from functrain.loop.members import Overall, merged, samples_of_each
from functrain.loop.output.log_files import DIGEST
from functrain.loop.output.progress import Display
from functrain.loop.output.records import Record, Records
from functrain.loop.output.timing import EpochClock
from functrain.loop.settings import Settings
from functrain.metrics.reading import numbers
from functrain.step.finish import is_about_update, named_metrics
from functrain.step.state import TrainState
from functrain.step.state_digest import digest
from functrain.step.updates import Updates


class Report:
    """Writes records and shows progress.

    Attributes:
        records: the log, which goes into the run directory if there is one.
        display: what a person sees.
        metric_names: what the slots of `epoch_totals` hold; none before the first micro-batch.
        clock: of the epochs.
    """

    def __init__(
        self,
        settings: Settings,
        records: Records,
        display: Display,
        metric_names: tuple[str, ...],
        clock: EpochClock,
    ) -> None:
        self.records, self.display, self.metric_names, self.clock = records, display, metric_names, clock
        self._settings = settings

    def begin(self, state: TrainState, per_epoch: int | None) -> None:
        """Tell the display how many micro-batches are done, and how many that will be in the end, if that is known.

        Args:
            state: the run's first.
            per_epoch: micro-batches of an epoch.
        """
        settings, accumulate = self._settings, state.recipe.accumulate
        done = state.step * accumulate + state.micro_step  # an epoch's short last window counts as a whole one
        ends = [] if settings.steps is None else [settings.steps * accumulate]
        if per_epoch is not None and settings.epochs is not None:
            ends.append(done + per_epoch * (settings.epochs - state.epoch) - state.batch_idx)
        self.display.start(state, min(ends, default=None), done, settings.epochs)

    def micro_batch(self, state: TrainState, metrics: Mapping[str, Any], count: int = 1) -> None:
        """A micro-batch is done, or so many; state and metrics are those after the last."""
        if not self.metric_names:
            self.metric_names = tuple(name for name in metrics if not is_about_update(name))
        self.display.step(state, metrics if state.members is None else Overall(metrics, state.members), count)

    def update(self, at: TrainState | Updates, metrics: Mapping[str, Any]) -> None:
        """An update is done: record it, if its turn has come; its metrics may still have to be named."""
        every = self._settings.digest_every
        digests = every is not None and at.step % every == 0 and isinstance(at, TrainState)
        if (digests or at.step % self._settings.log_every == 0) and self.records.keeps_steps:
            counters = {"kind": "step", "epoch": at.epoch + 1, "step": at.step, "samples": at.samples_seen}
            named = named_metrics(metrics)
            if isinstance(at, TrainState) and at.members is not None:
                record = merged(counters | samples_of_each(at.members), Overall(named, at.members).record())
            else:
                record = counters | dict(zip(named, numbers(named.values())))
            self.records.append(record | {DIGEST: digest(at)} if digests else record)

    def epoch(self, record: Record, state: TrainState) -> None:
        """An epoch, or a run within one, is at its end; its checkpoint will hold this state."""
        self.records.append(record | {DIGEST: digest(state)})
        self.display.epoch(record)

    def say(self, text: str) -> None:
        """Tell the person something."""
        self.display.say(text)

    def tells_of(self, state: TrainState) -> bool:
        """Whether a record tells of this state; of one between epochs, and one that is not trained, nothing is told."""
        told = self.records.epochs[-1]["step"] if self.records.epochs else None
        return state.batch_idx == 0 or not self.metric_names or told == state.step
