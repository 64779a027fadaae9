"""What callbacks see and may answer.

A callback is a function that takes an immutable `Event`. It names its scopes with `@on(...)`. What it
may return is all it can change: a new `TrainState`, a new `Event` (for a changed batch), or `Stop`.
"""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from functrain.step.state import TrainState

SCOPES = (
    "before_loop",
    "before_epoch",
    "before_step",
    "process_batch",
    "after_step",
    "after_epoch",
    "after_loop",
)


@dataclass(frozen=True)
class Event:
    """A moment in the loop.

    Attributes:
        scope: one of `SCOPES`. `before_loop` and `after_loop` come once, the epoch's scopes once an epoch,
            `before_step` and `after_step` once an update, `process_batch` once a micro-batch, before it is used.
        state: the state at this moment.
        batch: the micro-batch, in `process_batch`; an event with another one may be returned.
        metrics: in `after_step` the update's (0-d tensors; reading one waits for the device); in
            `after_epoch` the epoch's record (numbers); in `after_loop` the last epoch's.
    """

    scope: str
    state: TrainState
    batch: Any = None
    metrics: Mapping[str, Any] = field(default_factory=dict)

    def replace(self, **changes: Any) -> "Event":
        """An event that differs in these fields."""
        return dataclasses.replace(self, **changes)


@dataclass(frozen=True)
class Stop:
    """A callback's wish to end training after the micro-batch at hand, in this state if one is given."""

    state: TrainState | None = None


Answer = TrainState | Event | Stop | None
Callback = Callable[[Event], Answer]


def on(*scopes: str) -> Callable[[Callback], Callback]:
    """Declare which scopes a callback is called in.

    Raises:
        ValueError: for a name that is no scope.

    Example:
        >>> @on("after_epoch")
        ... def report(event):
        ...     print(event.metrics)
        >>> report.scopes
        ('after_epoch',)
    """
    _check(scopes)

    def mark(callback: Callback) -> Callback:
        callback.scopes = scopes  # type: ignore[attr-defined]
        return callback

    return mark


def _check(scopes: Iterable[str]) -> None:
    unknown = [scope for scope in scopes if scope not in SCOPES]
    if unknown:
        raise ValueError(f"no such scope: {', '.join(map(repr, unknown))}; the scopes are {', '.join(SCOPES)}")


def _check_changes(event: Event, answer: Event, callback: Callback) -> None:
    may = ("state", "batch") if event.scope == "process_batch" else ("state",)
    same = {
        "scope": answer.scope == event.scope,
        "batch": answer.batch is event.batch,
        "metrics": answer.metrics is event.metrics or not (answer.metrics or event.metrics),
    }
    changed = [name for name, is_same in same.items() if not (is_same or name in may)]
    if changed:
        raise ValueError(
            f"in {event.scope} a callback may change the event's {' and '.join(may)}; {callback!r} changed its "
            f"{', '.join(changed)}, which has no effect"
        )


class Callbacks:
    """The callbacks of a run, by scope."""

    def __init__(self, callbacks: Sequence[Callback]) -> None:
        if callable(callbacks) or not isinstance(callbacks, Iterable):
            raise TypeError(f"callbacks must be a list of functions, such as [report]; got {callbacks!r}")
        self._by_scope: dict[str, list[Callback]] = {scope: [] for scope in SCOPES}
        for callback in callbacks:
            scopes = getattr(callback, "scopes", None)
            if not callable(callback) or not scopes:
                raise TypeError(
                    f"a callback is a function that names its scopes, as with @functrain.on('after_epoch'); "
                    f"got {callback!r}"
                )
            _check(scopes)
            for scope in scopes:
                self._by_scope[scope].append(callback)

    def has(self, scope: str) -> bool:
        """Whether anybody listens."""
        return bool(self._by_scope[scope])

    def run(self, event: Event) -> tuple[Event, bool]:
        """Call the scope's callbacks in order; the event they leave, and whether one wants to stop.

        Raises:
            TypeError: if one returns something else than it may.
            ValueError: if one changes what it may not: nothing would follow from that.
        """
        stop = False
        for callback in self._by_scope[event.scope]:
            answer = callback(event)
            if isinstance(answer, Stop):
                stop, answer = True, answer.state
            if isinstance(answer, Event):
                _check_changes(event, answer, callback)
                event = answer
            elif isinstance(answer, TrainState):
                event = event.replace(state=answer)
            elif answer is not None:
                raise TypeError(
                    f"a callback returns None, a TrainState, an Event or Stop(); {callback!r} returned "
                    f"{type(answer).__name__}"
                )
        return event, stop
