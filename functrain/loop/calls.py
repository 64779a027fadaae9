"""Several updates in one call of the runner, with nothing between them that a small network would notice."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from time import perf_counter
from typing import Any, NamedTuple

from functrain.distributed import World
from functrain.loop.batches import MicroBatch
from functrain.loop.events import Callbacks
from functrain.loop.settings import Settings
from functrain.step.execution import Runner
from functrain.step.state import TrainState
from functrain.step.updates import Updates

STEP_SCOPES = frozenset({"before_step", "process_batch", "after_step"})

# Of a call, with steps_per_call="auto": the display, redrawn five times a second, shows each; more gains nothing.
SECONDS, MOST = 0.05, 64


class Last(NamedTuple):
    """A call's last update.

    Attributes:
        batch, metrics: its.
        counters: step, epoch, batch_idx and samples_seen before it.
        seen: `Calls.run` has told `seen` of it.
    """

    batch: Any
    metrics: Mapping[str, Any]
    counters: tuple[int, ...]
    seen: bool


@dataclass(frozen=True)
class Call:
    """What a call came to.

    Attributes:
        state: after its updates.
        updates: how many were done.
        last: the last of them; None if there was none.
        exhausted: there was no further micro-batch.
        error: what broke it off before an update (a loader or a compilation that failed); the state is whole.
    """

    state: TrainState
    updates: int
    last: Last | None
    exhausted: bool
    error: Exception | None


class Calls:
    """How many updates a call does, and the call.

    Args:
        settings: the run's.
        runner: runs the steps.
        callbacks: those of a step's scope want to see each state.
        state: the run's first.
        world: several ranks must do calls of one size; how long each takes is no measure for that.
        ends: whether an update, by its step and metrics, must be the last of its call.
        seen: told of each update that was not the last.
    """

    def __init__(
        self,
        settings: Settings,
        runner: Runner,
        callbacks: Callbacks,
        state: TrainState,
        world: World,
        *,
        ends: Callable[[int, Mapping[str, Any]], bool],
        seen: Callable[[Updates, Mapping[str, Any]], None],
    ) -> None:
        self._settings, self._ends, self._seen = settings, ends, seen
        self._runner = runner
        one_by_one = settings.deterministic or state.accumulator is not None or any(map(callbacks.has, STEP_SCOPES))
        self._auto: _AutoSize | None = None
        if one_by_one or not runner.makes_series:
            self._most = 1
        elif isinstance(settings.steps_per_call, int):
            self._most = settings.steps_per_call
        elif world.size > 1:
            self._most = 1
        else:
            self._most, self._auto = MOST, _AutoSize(perf_counter)

    def size(self, state: TrainState, per_epoch: int | None) -> int:
        """How many updates the next call shall do: it ends where the run, the epoch or the way to a checkpoint does."""
        if self._most == 1:
            return 1
        ends = [self._most if self._auto is None else self._auto.next()]
        if per_epoch is not None:
            ends.append(per_epoch - state.batch_idx)
        if self._settings.steps is not None:
            ends.append(self._settings.steps - state.step)
        if self._settings.save_every is not None:
            ends.append(self._settings.save_every - state.step % self._settings.save_every)
        return min(ends)

    def run(self, state: TrainState, micro_batches: Iterator[MicroBatch], count: int) -> Call:
        """Up to `count` updates. A micro-batch is drawn when it is its turn: a loader has then given none too many."""
        epoch, updates = state.epoch, Updates(state, self._runner)
        last: Last | None = None
        done = 0
        while True:
            try:
                if (micro_batch := next(micro_batches, None)) is None:
                    return Call(updates.end(), done, last, exhausted=True, error=None)
                counters = (updates.step, epoch, updates.batch_idx, updates.samples_seen)
                metrics = updates(micro_batch.batch, micro_batch.examples)
            except Exception as error:
                return Call(updates.end(), done, last, exhausted=False, error=error)
            done += 1
            ends = done == count or self._ends(updates.step, metrics)
            last = Last(micro_batch.batch, metrics, counters, not ends)
            if ends:
                return Call(updates.end(), done, last, exhausted=False, error=None)
            self._seen(updates, metrics)


class _AutoSize:
    """How many updates a call does to take about `SECONDS`: twice as many while it takes less than half of that.

    Args:
        clock: tells the seconds.

    Example:
        >>> seconds = iter([0.0, 0.01, 0.03, 0.07, 0.25])
        >>> size = _AutoSize(lambda: next(seconds))
        >>> [size.next() for _ in range(5)]
        [1, 2, 4, 4, 2]
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock, self._asked, self._size = clock, float("nan"), 1

    def next(self) -> int:
        """The next call's; what there was between this question and the one before counts as the last call's time."""
        now = self._clock()
        took, self._asked = now - self._asked, now
        if took < SECONDS / 2:
            self._size = min(2 * self._size, MOST)
        elif took > SECONDS:
            self._size = max(self._size // 2, 1)
        return self._size
