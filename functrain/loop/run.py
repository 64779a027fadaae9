"""A run under way: epochs, micro-batches, events, records, checkpoints."""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch

from functrain.data.randomness import Randomness
from functrain.data.worker_loss import WorkerLostError
from functrain.distributed import any_rank, current_world
from functrain.foundation.errors import DataError, NoLossError
from functrain.foundation.keys import fold_in
from functrain.foundation.trees import copy_tensors
from functrain.loop.batches import Feed, MicroBatch, windows_in
from functrain.loop.calls import STEP_SCOPES, Calls
from functrain.loop.evaluation_pass import evaluate_pass, to_numbers, uncounted
from functrain.loop.events import Callbacks, Event
from functrain.loop.output import progress as displays
from functrain.loop.output.records import Record, Records
from functrain.loop.process.signals import SignalFlag
from functrain.loop.reading import step_record
from functrain.loop.result import FitResult
from functrain.loop.resume.metadata import RunMetadata
from functrain.loop.resume.opening import Opened
from functrain.loop.resume.programs import Programs
from functrain.loop.settings import Settings
from functrain.loop.skips import SkipWatch
from functrain.loop.watching import Watched
from functrain.metrics.totals import Totals
from functrain.objectives.supervised import may_lack_loss
from functrain.step import eval_step, train_step
from functrain.step.execution import Runner
from functrain.step.state import DonatedState, TrainState
from functrain.step.train import is_about_update
from functrain.step.updates import Updates


class Run:
    """A run's collaborators, and why it ends. States pass through as values."""

    def __init__(
        self,
        settings: Settings,
        feeds: Sequence[Feed],
        runner: Runner,
        callbacks: Callbacks,
        flag: SignalFlag,
        opened: Opened,
        constant: RunMetadata,
        programs: Programs,
        records: Records,
        display: displays.Display,
    ) -> None:
        self.settings = settings
        self.feed = feeds[0]
        self.eval_feed = feeds[1] if len(feeds) > 1 else None
        self.runner = runner
        self.train = partial(train_step, run=runner)
        self.evaluate = partial(eval_step, run=runner)
        self.donates = runner.donate
        self.callbacks = callbacks
        self.flag = flag
        self.world = current_world()
        self.saver = opened.saver
        self.constant, self.programs = constant, programs  # of what a checkpoint says beside the state
        self.records = records
        self.display = display
        self.metric_names = opened.found.metric_names
        self.restored_from = opened.status
        self.stopped_by: str | None = None
        self.uncounted: set[str] = set()  # metrics of the last record that are means of nothing
        self.randomness = Randomness()

    def to_the_end(self, state: TrainState) -> FitResult:
        """Train to the end, or to an interruption."""
        self.skips = SkipWatch(self.settings, state, self._save_nonfinite)
        self.watched = self._watch(state)
        self.calls = Calls(
            self.settings, self.runner, self.callbacks, state, self.world, ends=self._ends_call, seen=self._log
        )
        self._start_display(state)
        if self.saver is not None and self.restored_from:
            self.saver.holds_now(state, self.restored_from)
        state = self._tell("before_loop", state)
        is_over = self.settings.is_done(state) or self.settings.decisions.end(state)
        if self.restored_from and is_over and self._has_record(state):
            self.display.say(
                f"already finished (step {state.step}, after epoch {state.epoch}): nothing to train. "
                'resume="never" starts afresh'
            )
        while not self._finished(state):
            state = self._epoch(state)
        if self.stopped_by == "steps" and not self._has_record(state):
            state = self._final_record(state)
        state = self._tell("after_loop", state, metrics=self.records.epochs[-1] if self.records.epochs else {})
        self._save_last(state)
        assert self.stopped_by is not None
        return FitResult(state, self.records.epochs, self.stopped_by)

    # -- an epoch ------------------------------------------------------------------------------------

    def _epoch(self, state: TrainState) -> TrainState:
        if state.batch_idx == 0:
            state = self._tell("before_epoch", state)
        start = state.batch_idx
        micro_batches = self.feed.windows(state.epoch, start, state.recipe.accumulate, self.settings.tail)
        # Asked before the next batch is drawn: a loader with a state of its own has then given none too many.
        # At the epoch's end it is drawn from all the same, once, so that it sees the end.
        total = self._micro_batches_per_epoch(state)
        while state.batch_idx == total or not self._finished(state, between_epochs=False):
            several = self.calls.size(state, total) if self.metric_names and self.watched.was_sought else 1
            if several > 1:
                state, there_are_more = self._several(state, micro_batches, several)
            elif there_are_more := (micro_batch := self._draw(micro_batches, state)) is not None:
                state = self._micro_batch(state, micro_batch)
            if not there_are_more:
                break
        if state.batch_idx == 0 and not self._finished(state):
            raise DataError("the training data are empty: the loader gave no batch. Look at its data set and drop_last")
        return state if self.stopped_by is not None else self._end_epoch(state)

    def _draw(self, micro_batches: Iterator[MicroBatch], state: TrainState) -> MicroBatch | None:
        try:
            return next(micro_batches, None)
        except Exception as error:
            if self.flag.number is None:
                raise self._saved_before(error, state) from error.__cause__
            self.stopped_by = "signal"  # sent to the whole process group, it has also ended the loader's workers
            return None

    def _end_epoch(self, state: TrainState) -> TrainState:
        number = state.epoch + 1
        last = number == self.settings.epochs
        record = self._record(state, "epoch", number, evaluate=last or number % self.settings.eval_every == 0)
        if record is None:
            return state
        state, said = self._decide(self._tell("after_epoch", state, metrics=record), record)
        state = state.replace(epoch=number, batch_idx=0, epoch_totals=torch.zeros_like(state.epoch_totals))
        self._keep(record, state)
        for text in said:
            self.display.say(text)
        return state

    def _decide(self, state: TrainState, record: Record) -> tuple[TrainState, list[str]]:
        """Ask the rules about the watched metric, if this epoch has one. (A final record within an epoch is not asked
        about: a run that goes on from there must not differ from one that never ended.)
        """
        metric = self._watched(record)
        if metric is None:
            return state, []
        return self.settings.decisions.after(state, metric)

    def _final_record(self, state: TrainState) -> TrainState:
        """The record of a run that `steps` ended within an epoch; a signal in its evaluation interrupts the run."""
        record = self._record(state, "final", state.epoch + 1, evaluate=True)
        if record is not None:
            self._keep(record, state)
        else:
            self.stopped_by = self._interruption()
        return state

    def _has_record(self, state: TrainState) -> bool:
        """Whether the log tells of this state; of one between epochs, and one that is not trained, nothing is told."""
        told = self.records.epochs[-1]["step"] if self.records.epochs else None
        return state.batch_idx == 0 or not self.metric_names or told == state.step

    def _record(self, state: TrainState, kind: str, epoch: int, *, evaluate: bool) -> Record | None:
        """What the epoch came to; None if a signal came in the middle of the evaluation."""
        self.skips.look(state)
        self.uncounted = set()
        record: Record = {"kind": kind, "epoch": epoch, "step": state.step, "samples": state.samples_seen}
        record |= self._means(Totals(state.epoch_totals, self.metric_names), "train_")
        if self.eval_feed is not None and evaluate:
            for prefix, ema in (("eval_", False), ("ema_", True)):
                if ema and state.ema is None:
                    continue
                try:
                    totals = evaluate_pass(state, self.eval_feed, self.evaluate, ema=ema, interrupted=self._interrupted)
                except NoLossError as error:
                    self._stop_evaluating(state, error)
                    break
                except Exception as error:
                    if self.flag.number is None:
                        raise self._saved_before(error, state) from error.__cause__
                    return None  # as in `_draw`: the signal has also ended the loader's workers
                if totals is None:
                    return None
                record |= self._means(totals, prefix)
        return record

    def _watch(self, state: TrainState) -> Watched:
        """What to watch; the default counts as named where a rule decides by it."""
        evaluates = self.eval_feed is not None
        name = self.settings.watch or ("eval_loss" if evaluates and self.settings.decisions.decide else None)
        return Watched(name, evaluates, has_loss=not (evaluates and may_lack_loss(state.recipe.objective)))

    def _stop_evaluating(self, state: TrainState, error: NoLossError) -> None:
        """Train on without evaluations, which have no loss, unless a metric of theirs is watched."""
        try:
            self.watched.unevaluated(error)
        except NoLossError:
            self._save(state, status="INTERRUPTED")
            if self.saver is not None:
                self.saver.finish()  # what was trained is not lost
            raise
        self.eval_feed = None
        best = "" if self.settings.watch or self.saver is None else ". The best checkpoint is chosen by train_loss"
        self.display.say(f"eval_loader is not used: {error}{best}")

    def _means(self, totals: Totals, prefix: str) -> Record:
        self.uncounted |= uncounted(totals, prefix)
        return to_numbers(totals, prefix)

    def _keep(self, record: Record, state: TrainState) -> None:
        self.records.append(record)
        self.display.epoch(record)
        self._save(state, metric=self._watched(record))
        if not self.watched.is_known:
            if self.saver is not None:
                self.saver.finish()  # what was trained is not lost
            self.watched.in_record(record)

    # -- a micro-batch -------------------------------------------------------------------------------

    def _micro_batch(self, state: TrainState, micro_batch: MicroBatch) -> TrainState:
        batch = micro_batch.batch
        if not self.watched.was_sought:
            self.watched.before_training(state, batch, self.runner.rows)
        if self.settings.deterministic:
            self.randomness.seed(fold_in(state.key, "host", state.epoch, state.batch_idx, self.world.rank))
        if state.micro_step == 0:
            state = self._tell("before_step", state)
        if self.callbacks.has("process_batch"):
            event, stop = self.callbacks.run(Event("process_batch", state, batch))
            state, batch = event.state, event.batch
            self._stop_if(stop)
        counters = _counters(state)
        try:
            new, metrics = self.train(state, batch, examples=micro_batch.examples, end_window=micro_batch.ends_window)
        except Exception:
            # A Ctrl-C in a terminal also reaches a C++ compiler at work, which then fails. The state is whole.
            if self.flag.number is None or isinstance(state, DonatedState):
                raise
            return state
        if not self.metric_names:
            self.metric_names = tuple(name for name in metrics if not is_about_update(name))
        self.display.step(new, metrics)
        if new.micro_step:
            return new
        return self._updated(new, None if self.donates else state, counters, batch, metrics)

    def _several(self, state: TrainState, micro_batches: Iterator[MicroBatch], count: int) -> tuple[TrainState, bool]:
        """So many updates in a call, or fewer; the state after them, and whether the epoch may have more."""
        call = self.calls.run(state, micro_batches, count)
        new, last = call.state, call.last
        if call.error is not None and (self.flag.number is None or isinstance(new, DonatedState)):
            raise self._saved_before(call.error, new) from call.error.__cause__
        if last is not None:
            self.display.step(new, last.metrics, call.updates)
            if not last.seen:
                new = self._updated(new, None, last.counters, last.batch, last.metrics)
        return new, not call.exhausted

    def _updated(
        self,
        new: TrainState,
        old: TrainState | None,
        counters: tuple[int, ...],
        batch: Any,
        metrics: Mapping[str, Any],
    ) -> TrainState:
        """What follows each update; the arguments are those of `SkipWatch.after`."""
        self.skips.after(new, old, counters, batch, metrics)
        self._log(new, metrics)
        new = self._tell("after_step", new, metrics=metrics)
        self._save_if_due(new)
        return new

    def _ends_call(self, step: int, metrics: Mapping[str, Any]) -> bool:
        """Whether an update must be its call's last. Several ranks stop at the ends of calls alone, to stop alike."""
        return (self.world.size == 1 and self.flag.is_up) or self.skips.wants(step, metrics)

    def _log(self, at: TrainState | Updates, metrics: Mapping[str, Any]) -> None:
        if at.step % self.settings.log_every == 0 and self.records.keeps_steps:
            self.records.append(step_record(at, metrics))

    # -- ends, events, checkpoints -------------------------------------------------------------------

    def _finished(self, state: TrainState, *, between_epochs: bool = True) -> bool:
        if self.stopped_by is None:
            if self._interrupted():
                self.stopped_by = self._interruption()
            elif between_epochs and self.settings.decisions.end(state):
                self.stopped_by = "early_stopping"
            elif (between_epochs and self.settings.is_done(state)) or self.settings.steps_are_done(state):
                self.stopped_by = "steps" if self.settings.steps_are_done(state) else "epochs"
        return self.stopped_by is not None

    def _interrupted(self) -> bool:
        """Whether any rank was told to stop; all of them ask at the same places, and stop at the same batch."""
        return any_rank(self.flag.is_up, self.world)

    def _interruption(self) -> str:
        return "signal" if any_rank(self.flag.number is not None, self.world) else "time"

    def _stop_if(self, wanted: bool) -> None:
        if wanted and self.stopped_by is None:
            self.stopped_by = "callback"

    def _tell(self, scope: str, state: TrainState, **details: Any) -> TrainState:
        if not self.callbacks.has(scope):
            return state
        # What a callback is shown between epochs it may keep, though the next step takes over this state's storage.
        shown = copy_tensors(state) if self.donates and scope not in STEP_SCOPES else state
        event, stop = self.callbacks.run(Event(scope, shown, **details))
        self._stop_if(stop)
        return state if event.state is shown else event.state

    def _save(self, state: TrainState, *, status: str = "COMPLETE", metric: float | None = None) -> None:
        if self.saver is None:
            return
        metadata = self.constant.at(
            state,
            records=len(self.records),
            log=self.records.mark(),
            metric_names=self.metric_names,
            batch_size=self.feed.size,
            stream=self.feed.stream.state_dict(),
            settings={**self.constant.settings, "micro_batch": self.runner.rows},
            programs=self.programs.known(),
        )
        self.saver.save(state, metadata, status=status, metric=metric)

    def _save_if_due(self, state: TrainState) -> None:
        """The last update of an epoch, or of the run, is saved when its record is there, and not twice."""
        if self.saver is None or not self.settings.saves_at(state.step, self.saver.seconds_since_save()):
            return
        if state.batch_idx != self._micro_batches_per_epoch(state) and not self.settings.steps_are_done(state):
            self._save(state)

    def _save_nonfinite(self, state: TrainState) -> bool:
        self._save(state, status="NONFINITE")
        return self.saver is not None

    def _saved_before(self, error: Exception, state: TrainState) -> Exception:
        """The error to end with, when the state that the loss of a worker leaves whole is saved."""
        whole = isinstance(error, WorkerLostError) and not isinstance(state, DonatedState)
        if not whole or self.saver is None or self.world.size > 1:
            return error
        if not any(self.saver.holds(state, status) for status in ("COMPLETE", "INTERRUPTED")):
            self._save(state, status="INTERRUPTED")
        self.saver.finish()
        return WorkerLostError(f"{error}. Step {state.step} is saved: the next start goes on from there")

    def _save_last(self, state: TrainState) -> None:
        """Whatever ended the run, its last state is on disk when `fit` returns."""
        if self.saver is None:
            return
        done = self.settings.is_done(state) and self._has_record(state)
        status = "INTERRUPTED" if self.stopped_by in ("signal", "time") and not done else "COMPLETE"
        if not self.saver.holds(state, status):
            self._save(state, status=status)
        self.saver.finish()

    def _watched(self, record: Record) -> float | None:
        """The watched metric; None if this record has none, or the mean of nothing."""
        name = self.settings.watch or ("train_loss" if self.eval_feed is None else "eval_loss")
        return None if name in self.uncounted else record.get(name)

    def _start_display(self, state: TrainState) -> None:
        """Tell the display how many micro-batches are done, and how many that will be in the end, if that is known."""
        per_epoch, accumulate = self._micro_batches_per_epoch(state), state.recipe.accumulate
        done = state.step * accumulate + state.micro_step  # an epoch's short last window counts as a whole one
        ends = [] if self.settings.steps is None else [self.settings.steps * accumulate]
        if per_epoch is not None and self.settings.epochs is not None:
            ends.append(done + per_epoch * (self.settings.epochs - state.epoch) - state.batch_idx)
        self.display.start(state, min(ends, default=None), done, self.settings.epochs)

    def _micro_batches_per_epoch(self, state: TrainState) -> int | None:
        length = self.feed.stream.length(state.epoch)
        return None if length is None else windows_in(length, state.recipe.accumulate, self.settings.tail)


def _counters(state: TrainState) -> tuple[int, ...]:
    return (state.step, state.epoch, state.batch_idx, state.samples_seen)
