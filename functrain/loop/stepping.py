"""From micro-batches to updates, and what follows each of them."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from functrain.data.randomness import Randomness
from functrain.distributed import World
from functrain.foundation.keys import fold_in
from functrain.loop.batches import MicroBatch
from functrain.loop.ending import Ending
from functrain.loop.keeping import Keeper
from functrain.loop.listeners import Listeners
from functrain.loop.members import Failures, have_ended
from functrain.loop.memory import split_batch
from functrain.loop.report import Report
from functrain.loop.settings import Settings
from functrain.loop.skips import Refusal, SkipWatch, Update
from functrain.loop.updates_per_call import UpdatesPerCall
from functrain.loop.watching import Watched
from functrain.objectives.examples import takes_lists
from functrain.objectives.supervised import takes_weight
from functrain.step import train_step
from functrain.step.execution import Runner
from functrain.step.finish import named_metrics
from functrain.step.measures import lacks_accumulators, with_accumulators
from functrain.step.members.stepping import first_alone
from functrain.step.state import DonatedState, TrainState
from functrain.step.updates import Updates


@dataclass(frozen=True, kw_only=True, eq=False)
class Stepping:
    """Trains on micro-batches: one at a time, or several updates in a call.

    Attributes:
        settings: the run's.
        runner: runs the steps.
        world: the ranks.
        ending: of the run.
        listeners: the callbacks.
        report: the run's log and display.
        keeper: saves.
        skips: looks at updates that were refused.
        failures: likewise, of the members of a stack.
        watched: the metric that decides.
        per_call: how many updates a call does.
    """

    settings: Settings
    runner: Runner
    world: World
    ending: Ending
    listeners: Listeners
    report: Report
    keeper: Keeper
    skips: SkipWatch
    failures: Failures
    watched: Watched
    per_call: UpdatesPerCall
    randomness: Randomness = field(default_factory=Randomness)

    def advance(
        self, state: TrainState, micro_batches: Iterator[MicroBatch], per_epoch: int | None
    ) -> tuple[TrainState, bool]:
        """Train on the next micro-batch, or make the next few updates.

        Args:
            state: before them.
            micro_batches: what is left of the epoch. One is drawn when it is its turn: a loader with a state of its
                own has then given none too many.
            per_epoch: how many there are in an epoch, if that is known.

        Returns:
            The state after, and whether the epoch may have more.

        Raises:
            NonFiniteError: an update was refused, and the run shall end.
        """
        # The first micro-batch, which tells the names of the metrics, is alone.
        known = self.report.metric_names and self.watched.was_sought and not lacks_accumulators(state)
        count = self.per_call.next(state, per_epoch) if known else 1
        if count > 1:
            return self._several(state, micro_batches, count)
        micro_batch = self._draw(micro_batches, state)
        return (state, False) if micro_batch is None else (self._one(state, micro_batch), True)

    def check_finite(self, state: TrainState) -> None:
        """Look at the updates that were not looked at yet.

        Raises:
            NonFiniteError: one was refused, and the run shall end.
        """
        refusal = self.skips.look(state)
        if refusal is not None:
            raise self.keeper.nonfinite(refusal)

    def _draw(self, micro_batches: Iterator[MicroBatch], state: TrainState) -> MicroBatch | None:
        try:
            return next(micro_batches, None)
        except Exception as error:
            if not self.ending.was_signalled:
                raise self.keeper.before(error, state) from error.__cause__
            self.ending.reason = "signal"
            return None

    def _one(self, state: TrainState, micro_batch: MicroBatch) -> TrainState:
        batch = micro_batch.batch
        if not self.watched.was_sought and batch is not None:
            self.watched.before_training(*first_alone(state, batch), self.runner.rows)
        if lacks_accumulators(state):
            state = self._with_accumulators(state, batch)
        if self.settings.deterministic:
            self.randomness.seed(
                fold_in(state.key, "host", state.epoch, state.batch_idx, _rank_of_data(state, self.world))
            )
        if state.micro_step == 0:
            state = self.listeners.tell("before_step", state)
        if batch is not None:  # a process may have no micro-batch of a short window
            state, batch = self.listeners.tell_of_batch(state, batch)
        counters = (state.step, state.epoch, state.batch_idx, state.samples_seen)
        examples, ends_window = _own_examples(state, micro_batch.examples), micro_batch.ends_window
        try:
            new, metrics = train_step(state, batch, examples=examples, end_window=ends_window, run=self.runner)
        except Exception:
            # A Ctrl-C in a terminal also reaches a C++ compiler at work, which then fails. The state is whole.
            if not self.ending.was_signalled or isinstance(state, DonatedState):
                raise
            return state
        self.report.micro_batch(new, metrics, _done_by_all(new))
        if new.micro_step:
            return new
        return self._updated(new, Update(None if self.runner.donate else state, counters, batch, metrics))

    def _with_accumulators(self, state: TrainState, batch: Any) -> TrainState:
        """Room for the metrics that were asked for, whose form the first batch tells."""
        lists, pads = takes_lists(state.recipe.objective), takes_weight(state.recipe.objective)
        part = batch if state.members is not None else split_batch(batch, self.runner.rows, pads=pads, lists=lists)[0]
        state, names = with_accumulators(state, part)
        self.report.metric_names = self.report.metric_names or names
        return state

    def _several(self, state: TrainState, micro_batches: Iterator[MicroBatch], count: int) -> tuple[TrainState, bool]:
        """Up to `count` updates, without a state for those in between."""
        updates, done = Updates(state, self.runner), 0
        last: Update | None = None
        error: Exception | None = None
        there_are_more = ended = True
        while True:
            try:
                if (micro_batch := next(micro_batches, None)) is None:
                    there_are_more = False
                    break
                counters = (updates.step, updates.epoch, updates.batch_idx, updates.samples_seen)
                metrics = updates(micro_batch.batch, micro_batch.examples)
            except Exception as failure:
                error = failure
                break
            done += 1
            last = Update(None, counters, micro_batch.batch, metrics)
            ended = done == count or self.ending.ends_call() or self.skips.wants(updates.step, metrics)
            if ended:
                break
            self.report.update(updates, metrics)
        new = updates.end()
        if error is not None and (not self.ending.was_signalled or isinstance(new, DonatedState)):
            raise self.keeper.before(error, new) from error.__cause__
        if last is not None:
            last = last._replace(metrics=named_metrics(last.metrics))
            self.report.micro_batch(new, last.metrics, done)
            if ended:
                new = self._updated(new, last)
        return new, there_are_more

    def _updated(self, new: TrainState, update: Update) -> TrainState:
        """What follows each update; within a call of several, the record alone."""
        refusal = self.skips.after(new, update) if new.members is None else None
        if refusal is not None:
            raise self.keeper.nonfinite(refusal)
        metrics: Any = update.metrics
        if new.members is not None:
            new = self._without_failed(new)
        self.report.update(new, metrics)
        new = self.listeners.tell("after_step", new, metrics=metrics)
        self.keeper.save_if_due(new)
        return new

    def _without_failed(self, state: TrainState) -> TrainState:
        """The stack in which members that have failed train no more.

        Raises:
            NonFiniteError: all have.
        """
        state, said = self.failures.after(state)
        if said and have_ended(state):
            raise self.keeper.nonfinite(Refusal(state, said[0], f"{said[0]}. The state was saved (status NONFINITE)"))
        for text in said:
            self.report.say(text)
        return state


def _own_examples(state: TrainState, examples: int) -> int:
    """How many of a micro-batch's examples a step of this process counts, if it adds the counts of all.

    Example:
        >>> import torch, functrain as ft
        >>> state = ft.init_state(torch.nn.Linear(2, 1), ft.regression(), ft.optim.sgd(0.1))
        >>> _own_examples(ft.shard(state, strategy="zero1"), 7)
        7
    """
    exchange = state.recipe.exchange
    if exchange is None or exchange.in_tree:
        return examples
    return examples * (exchange.rank + 1) // exchange.ranks - examples * exchange.rank // exchange.ranks


def _rank_of_data(state: TrainState, world: World) -> int:
    """The number of this process among those that share out the data."""
    exchange = state.recipe.exchange
    return world.rank if exchange is None else exchange.rank


def _done_by_all(state: TrainState) -> int:
    """How many micro-batches are done when this process has done one."""
    exchange, accumulate = state.recipe.exchange, state.recipe.accumulate
    return 1 if exchange is None else accumulate // exchange.share(accumulate).number
