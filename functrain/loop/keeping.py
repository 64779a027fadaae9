"""When a run's state is saved, and under which status."""

from dataclasses import dataclass

from functrain.checkpoint import PieceWriter
from functrain.data.worker_loss import WorkerLostError
from functrain.distributed import World, any_rank, gather_state
from functrain.foundation.errors import NonFiniteError
from functrain.loop.batches import Feed
from functrain.loop.report import Report
from functrain.loop.resume.metadata import RunMetadata
from functrain.loop.resume.programs import Programs
from functrain.loop.resume.saving import Saver
from functrain.loop.settings import Settings
from functrain.loop.skips import Refusal
from functrain.step.execution import Runner
from functrain.step.state import DonatedState, TrainState
from functrain.step.state_digest import SMALL


@dataclass(frozen=True, kw_only=True, eq=False)
class Keeper:
    """Saves states, with what a run must know to go on from them.

    Attributes:
        settings: the run's.
        saver: writes; None: nothing is kept, or another rank writes.
        piece_writer: writes this rank's pieces of the state into the checkpoints of another; None: that one writes all.
        constant: what every checkpoint of the run says.
        programs: the compiled steps.
        feed: the training data.
        runner: runs the steps.
        report: the run's log.
        world: the ranks.
    """

    settings: Settings
    saver: Saver | None
    piece_writer: PieceWriter | None
    constant: RunMetadata
    programs: Programs
    feed: Feed
    runner: Runner
    report: Report
    world: World

    def begins_at(self, state: TrainState, status: str) -> None:
        """The run goes on from a checkpoint of this state and status; "": it starts afresh."""
        if self.saver is not None and status:
            self.saver.holds_now(state, status)

    def save(self, state: TrainState, *, status: str = "COMPLETE", metric: float | None = None) -> None:
        """Begin to save a state.

        Args:
            state: it.
            status: of the checkpoint.
            metric: the watched one.
        """
        given, state = state, self._to_save(state)
        if self.piece_writer is not None:
            self.piece_writer.save(state)
        if self.saver is None:
            return
        metadata = self.constant.at(
            state,
            records=len(self.report.records),
            log=self.report.records.mark(),
            metric_names=self.report.metric_names,
            batch_size=self.feed.size,
            stream=self.feed.stream.state_dict(),
            settings={**self.constant.settings, "micro_batch": self.runner.rows},
            programs=self.programs.known(),
        )
        self.saver.save(state, metadata, status=status, metric=metric)
        self.saver.holds_now(given, status)

    def save_if_due(self, state: TrainState) -> None:
        """Save after an update, if its turn has come.

        The last update of an epoch, or of the run, is saved when its record is there, and not twice.
        """
        seconds = 0.0 if self.saver is None else self.saver.seconds_since_save()
        if not self._agreed(self.saver is not None and self.settings.saves_at(state.step, seconds), state):
            return
        ends_epoch = state.batch_idx == self.feed.micro_batches(
            state.epoch, state.recipe.accumulate, self.settings.tail
        )
        if not ends_epoch and not self.settings.steps_are_done(state):
            self.save(state)

    def save_last(self, state: TrainState, reason: str) -> None:
        """Whatever ended the run, its last state is on disk when `fit` returns."""
        done = self.settings.is_done(state) and self.report.tells_of(state)
        status = "INTERRUPTED" if reason in ("signal", "time") and not done else "COMPLETE"
        if self._agreed(self.saver is not None and not self.saver.holds(state, status), state):
            self.save(state, status=status)
        self.finish()

    def finish(self) -> None:
        """Wait until everything is on disk: before an error that ends the run, so that what was trained is not lost."""
        if self.saver is not None:
            self.saver.finish()
        if self.piece_writer is not None:
            self.piece_writer.wait()

    def _to_save(self, state: TrainState) -> TrainState:
        """What a checkpoint has of a state: pieces that each rank writes, or whole leaves; no window that has begun."""
        exchange = state.recipe.exchange
        if exchange is None:
            return state
        in_pieces = self.piece_writer is not None or (
            self.saver is not None and self.saver.checkpointer.peers is not None
        )
        if in_pieces:
            return exchange.in_pieces(state.at_window_start(), gathered_below=SMALL)
        return gather_state(state, on_first=True)

    def _agreed(self, wanted: bool, state: TrainState) -> bool:
        """Whether the rank that writes wants to save: for a state in shards all must hear it, to put it together."""
        return wanted if state.recipe.exchange is None else any_rank(wanted, self.world)

    def before(self, error: Exception, state: TrainState) -> Exception:
        """The error to end with, when the state that the loss of a worker leaves whole is saved."""
        whole = isinstance(error, WorkerLostError) and not isinstance(state, DonatedState)
        if not whole or self.saver is None or self.world.size > 1:
            return error
        if not any(self.saver.holds(state, status) for status in ("COMPLETE", "INTERRUPTED")):
            self.save(state, status="INTERRUPTED")
        self.saver.finish()
        return WorkerLostError(f"{error}. Step {state.step} is saved: the next start goes on from there")

    def nonfinite(self, refusal: Refusal) -> NonFiniteError:
        """The error to end with after an update that was not finite, when the state before it is saved.

        A state that has taken the update is not.
        """
        if not refusal.state.recipe.refuse_nonfinite:
            self.finish()
            return NonFiniteError(f"{refusal.message.removesuffix('.')}. {_TAKEN}")
        self.save(refusal.state, status="NONFINITE")
        return NonFiniteError(refusal.message if self.saver is None else refusal.message_when_saved)


_TAKEN = (
    "The state has taken this update (refuse_nonfinite=False) and is not saved: start again with "
    "refuse_nonfinite=True, which goes on from the last checkpoint"
)
