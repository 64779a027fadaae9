"""What an epoch came to: the means of its training, and its evaluations."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from functrain.foundation.errors import NoLossError
from functrain.loop.batches import Feed
from functrain.loop.ending import Ending
from functrain.loop.evaluation_pass import evaluate_pass, to_numbers, uncounted
from functrain.loop.keeping import Keeper
from functrain.loop.members import merged, samples_of_each, totals_of_each
from functrain.loop.output.log_files import MEMBERS
from functrain.loop.output.records import Record
from functrain.loop.report import Report
from functrain.loop.settings import Settings
from functrain.loop.watching import Watched
from functrain.metrics.totals import Totals
from functrain.step.execution import Runner
from functrain.step.state import TrainState


class Measured(NamedTuple):
    """A record, and the watched metric in it: None if it has none, or the mean of nothing.

    Attributes:
        each: of a stack, that of each member.
    """

    record: Record
    metric: float | None
    each: Sequence[float | None] = ()


@dataclass(kw_only=True, eq=False)
class Measuring:
    """Makes the records of a run's epochs.

    Attributes:
        settings: the run's.
        feed: the evaluation data; None: there are none, or the model has no loss for them.
        runner: runs the steps.
        watched: the metric that decides.
        report: the run's log.
        keeper: saves before an error ends the run.
        ending: of the run.
    """

    settings: Settings
    feed: Feed | None
    runner: Runner
    watched: Watched
    report: Report
    keeper: Keeper
    ending: Ending

    def measure(self, state: TrainState, kind: str, *, evaluate: bool) -> Measured | None:
        """What the epoch at hand came to; None if a signal came in the middle of the evaluation.

        Args:
            state: at its end.
            kind: "epoch", or "final" for the record of a run that ends within an epoch.
            evaluate: whether it is evaluated.

        Raises:
            NoLossError: the model has no loss in evaluation mode, and a metric of the evaluation is watched.
        """
        record: Record = {"kind": kind, "epoch": state.epoch + 1, "step": state.step, "samples": state.samples_seen}
        if state.members is not None:
            record |= samples_of_each(state.members)
        totals = {"train_": Totals(state.epoch_totals, self.report.metric_names, state.epoch_metrics)}
        record = self._with_numbers(record, state, totals["train_"], "train_")
        if evaluate and self.feed is not None:
            found = self._evaluations(state, self.feed)
            if found is None:
                return None
            for prefix, each in found.items():
                record = self._with_numbers(record, state, each, prefix)
            totals |= found
        if state.members is not None:
            name = self._watched_name()
            return Measured(record, record.get(name), record[MEMBERS].get(name, ()))
        return Measured(record, self._metric(record, totals))

    def _with_numbers(self, record: Record, state: TrainState, totals: Totals, prefix: str) -> Record:
        """The record and the means of these totals."""
        if state.members is None:
            return {**record, **to_numbers(totals, prefix)}
        return merged(record, totals_of_each(totals, prefix, state.members.train()))

    def _evaluations(self, state: TrainState, feed: Feed) -> Mapping[str, Totals] | None:
        """Totals by the prefix of their names; None if a signal came."""
        found: dict[str, Totals] = {}
        for prefix, ema in (("eval_", False), ("ema_", True)):
            if ema and state.ema is None:
                continue
            try:
                totals = evaluate_pass(state, feed, self.runner, ema=ema, interrupted=self.ending.interrupts)
            except NoLossError as error:
                self._train_on_without(error, state)
                break
            except Exception as error:
                if not self.ending.was_signalled:
                    raise self.keeper.before(error, state) from error.__cause__
                return None
            if totals is None:
                return None
            found[prefix] = totals
            measured = totals.measured if state.members is None else None
            complaint = None if measured is None else measured.complaint()
            if complaint is not None:
                self.report.say(f"evaluation: {complaint}; in place of its value stands NaN")
        return found

    def _train_on_without(self, error: NoLossError, state: TrainState) -> None:
        """Evaluations have no loss: train on without them, unless a metric of theirs is watched."""
        try:
            self.watched.unevaluated(error)
        except NoLossError:
            self.keeper.save(state, status="INTERRUPTED")
            self.keeper.finish()
            raise
        self.feed = None
        chooses = not self.settings.watch and self.keeper.saver is not None
        best = ". The best checkpoint is chosen by train_loss" if chooses else ""
        self.report.say(f"eval_loader is not used: {error}{best}")

    def _watched_name(self) -> str:
        return self.settings.watch or ("train_loss" if self.feed is None else "eval_loss")

    def _metric(self, record: Record, totals: Mapping[str, Totals]) -> float | None:
        name = self._watched_name()
        of_nothing = any(name in uncounted(each, prefix) for prefix, each in totals.items())
        return None if of_nothing else record.get(name)
