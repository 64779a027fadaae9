"""The callbacks of a run, told of each moment in it."""

from typing import Any

from functrain.foundation.trees import copy_tensors
from functrain.loop.ending import Ending
from functrain.loop.events import Callbacks, Event
from functrain.step.state import TrainState

STEP_SCOPES = frozenset({"before_step", "process_batch", "after_step"})


class Listeners:
    """Tells the callbacks, and takes what they answer.

    Args:
        callbacks: they.
        ending: of the run, which a callback may wish for.
        donates: the next step takes over the storage of the state at hand.

    Attributes:
        want_steps: whether a callback wants to see each update.
    """

    def __init__(self, callbacks: Callbacks, ending: Ending, *, donates: bool) -> None:
        self._callbacks, self._ending, self._donates = callbacks, ending, donates
        self.want_steps = any(map(callbacks.has, STEP_SCOPES))

    def tell(self, scope: str, state: TrainState, **details: Any) -> TrainState:
        """The state after the scope's callbacks; `details` are the event's."""
        if not self._callbacks.has(scope):
            return state
        # What a callback is shown between epochs it may keep, though the next step takes over this state's storage.
        shown = copy_tensors(state) if self._donates and scope not in STEP_SCOPES else state
        event = self._run(Event(scope, shown, **details))
        return state if event.state is shown else event.state

    def tell_of_batch(self, state: TrainState, batch: Any) -> tuple[TrainState, Any]:
        """The state and the micro-batch that the callbacks of `process_batch` make of these."""
        if not self._callbacks.has("process_batch"):
            return state, batch
        event = self._run(Event("process_batch", state, batch))
        return event.state, event.batch

    def _run(self, event: Event) -> Event:
        event, stop = self._callbacks.run(event)
        if stop:
            self._ending.stop("callback")
        return event
