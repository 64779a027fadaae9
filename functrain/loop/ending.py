"""When a run ends, and why."""

from functrain.distributed import World, any_rank
from functrain.loop.process.signals import SignalFlag
from functrain.loop.settings import Settings
from functrain.step.state import TrainState


class Ending:
    """The end of a run.

    Args:
        settings: the run's.
        flag: what signals and `max_time` raise.
        world: all ranks end after the same micro-batch, so they ask the same questions at the same places.

    Attributes:
        reason: "epochs", "steps", "early_stopping", "callback", "signal" or "time"; None while the run goes on.
    """

    def __init__(self, settings: Settings, flag: SignalFlag, world: World) -> None:
        self.reason: str | None = None
        self._settings, self._flag, self._world = settings, flag, world

    def has_come(self, state: TrainState, *, between_epochs: bool = True) -> bool:
        """Whether the run ends in this state; the first reason stays."""
        if self.reason is None and not self._within_window(state):
            settings = self._settings
            if self.interrupts():
                self.reason = self.interruption()
            elif between_epochs and settings.decisions.end(state):
                self.reason = "early_stopping"
            elif (between_epochs and settings.is_done(state)) or settings.steps_are_done(state):
                self.reason = "steps" if settings.steps_are_done(state) else "epochs"
        return self.reason is not None

    def _within_window(self, state: TrainState) -> bool:
        """Several ranks stop between windows: one may have done more micro-batches of a window than another."""
        return self._world.size > 1 and state.micro_step > 0

    def stop(self, reason: str) -> None:
        """End the run after the micro-batch at hand, unless it ends for another reason."""
        if self.reason is None:
            self.reason = reason

    def interrupts(self) -> bool:
        """Whether any rank was told to stop."""
        return any_rank(self._flag.is_up, self._world)

    def interruption(self) -> str:
        """The reason of an interruption."""
        return "signal" if any_rank(self._flag.number is not None, self._world) else "time"

    @property
    def was_signalled(self) -> bool:
        """Whether this process got a signal. Sent to the whole process group, it has also ended other processes of it:
        the loader's workers, or a C++ compiler.
        """
        return self._flag.number is not None

    def ends_call(self) -> bool:
        """Whether a call of several updates ends here. Several ranks stop at the ends of calls alone, to stop alike."""
        return self._world.size == 1 and self._flag.is_up
