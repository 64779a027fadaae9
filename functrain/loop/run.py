"""A run under way, epoch by epoch."""

from dataclasses import dataclass

from functrain.loop.batches import Feed, no_training_data
from functrain.loop.ending import Ending
from functrain.loop.keeping import Keeper
from functrain.loop.listeners import Listeners
from functrain.loop.measuring import Measured, Measuring
from functrain.loop.members import decided
from functrain.loop.report import Report
from functrain.loop.result import FitResult
from functrain.loop.settings import Settings
from functrain.loop.stepping import Stepping
from functrain.step.state import TrainState


@dataclass(frozen=True, kw_only=True, eq=False)
class Run:
    """A run: what it does with each state. States pass through as values.

    Attributes:
        settings: of the run.
        feed: the training data.
        ending: when the run ends, and why.
        listeners: the callbacks.
        report: records and display.
        keeper: checkpoints.
        measuring: an epoch's record.
        stepping: micro-batches and updates.
    """

    settings: Settings
    feed: Feed
    ending: Ending
    listeners: Listeners
    report: Report
    keeper: Keeper
    measuring: Measuring
    stepping: Stepping

    def to_the_end(self, state: TrainState, restored: str) -> FitResult:
        """Train to the end, or to an interruption.

        Args:
            state: where the run begins, or goes on.
            restored: the status of the checkpoint that it goes on from; "" for none.
        """
        self.report.begin(state, self._per_epoch(state))
        self.keeper.begins_at(state, restored)
        state = self.listeners.tell("before_loop", state)
        if restored:
            self._say_if_finished(state)
        while not self.ending.has_come(state):
            state = self._epoch(state)
        if self.ending.reason == "steps" and not self.report.tells_of(state):
            self._end_within_epoch(state)
        records, reason = self.report.records.epochs, self.ending.reason
        assert reason is not None
        state = self.listeners.tell("after_loop", state, metrics=records[-1] if records else {})
        self.keeper.save_last(state, reason)
        return FitResult(state, records, reason)

    def _say_if_finished(self, state: TrainState) -> None:
        is_over = self.settings.is_done(state) or self.settings.decisions.end(state)
        if is_over and self.report.tells_of(state):
            self.report.say(
                f"already finished (step {state.step}, after epoch {state.epoch}): nothing to train. "
                'resume="never" starts afresh'
            )

    def _epoch(self, state: TrainState) -> TrainState:
        """Train to the epoch's end, or the run's, from wherever in the epoch the state is."""
        if state.batch_idx == 0:
            state = self.listeners.tell("before_epoch", state)
        micro_batches = self.feed.windows(state.epoch, state.batch_idx, state.recipe.accumulate, self.settings.tail)
        per_epoch, there_are_more = self._per_epoch(state), True
        self.report.clock.start(state.samples_seen)
        # Asked before the next batch is drawn: a loader with a state of its own has then given none too many.
        # At the epoch's end it is drawn from all the same, once, so that it sees the end.
        while there_are_more and (
            state.batch_idx == per_epoch or not self.ending.has_come(state, between_epochs=False)
        ):
            state, there_are_more = self.stepping.advance(state, micro_batches, per_epoch)
        if state.batch_idx == 0 and not self.ending.has_come(state):
            raise no_training_data()
        return state if self.ending.reason is not None else self._end_epoch(state)

    def _end_epoch(self, state: TrainState) -> TrainState:
        """The record of an epoch, what follows from it, and a checkpoint."""
        number = state.epoch + 1
        evaluate = number == self.settings.epochs or number % self.settings.eval_every == 0
        measured = self._measured(state, "epoch", evaluate=evaluate)
        if measured is None:
            return state
        state, said = self.listeners.tell("after_epoch", state, metrics=measured.record), list[str]()
        if measured.metric is not None and state.members is None:
            state, said = self.settings.decisions.after(state, measured.metric)
        state = state.after_epochs(number)
        if state.members is not None and measured.each:
            state, said = decided(state, measured.each, self.settings.decisions)
        self._keep(measured, state)
        for text in said:
            self.report.say(text)
        return state

    def _end_within_epoch(self, state: TrainState) -> None:
        """The record of a run that `steps` ended within an epoch; a signal in its evaluation interrupts the run.

        The rules about the watched metric are not asked: a run that goes on from there must not differ from one that
        never ended.
        """
        measured = self._measured(state, "final", evaluate=True)
        if measured is not None:
            self._keep(measured, state)
        else:
            self.ending.reason = self.ending.interruption()

    def _measured(self, state: TrainState, kind: str, *, evaluate: bool) -> Measured | None:
        self.stepping.check_finite(state)
        self.report.clock.stop(state.epoch + 1, state.step, state.samples_seen)
        return self.measuring.measure(state, kind, evaluate=evaluate)

    def _keep(self, measured: Measured, state: TrainState) -> None:
        self.report.epoch(measured.record, state)
        self.keeper.save(state, metric=measured.metric)
        watched = self.measuring.watched
        if not watched.is_known:
            self.keeper.finish()
            watched.in_record(measured.record)

    def _per_epoch(self, state: TrainState) -> int | None:
        return self.feed.micro_batches(state.epoch, state.recipe.accumulate, self.settings.tail)
