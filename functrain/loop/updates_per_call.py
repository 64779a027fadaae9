"""How many updates a call of the runner does, without work of the host between them."""

from collections.abc import Callable
from time import perf_counter

from functrain.distributed import World
from functrain.loop.settings import Settings
from functrain.step.state import TrainState

# Of a call, with steps_per_call="auto": the display, redrawn five times a second, shows each; more gains nothing.
SECONDS, MOST = 0.05, 64


class UpdatesPerCall:
    """Chooses how many updates the next call does.

    Args:
        settings: the run's.
        world: several ranks must do calls of one size; how long each takes is no measure for that.
        one_by_one: each update is a call, whatever the settings say.
    """

    def __init__(self, settings: Settings, world: World, *, one_by_one: bool) -> None:
        self._settings = settings
        self._auto: _AutoSize | None = None
        if one_by_one:
            self._most = 1
        elif isinstance(settings.steps_per_call, int):
            self._most = settings.steps_per_call
        elif world.size > 1:
            self._most = 1
        else:
            self._most, self._auto = MOST, _AutoSize(perf_counter)

    def next(self, state: TrainState, per_epoch: int | None) -> int:
        """How many updates the next call does: it ends where the run, the epoch or the way to a checkpoint does."""
        if self._most == 1:
            return 1
        ends = [self._most if self._auto is None else self._auto.next()]
        if per_epoch is not None:
            ends.append(per_epoch - state.batch_idx)
        if self._settings.steps is not None:
            ends.append(self._settings.steps - state.step)
        if self._settings.save_every is not None:
            ends.append(self._settings.save_every - state.step % self._settings.save_every)
        if self._settings.digest_every is not None:  # the state between two updates of a call does not exist
            ends.append(self._settings.digest_every - state.step % self._settings.digest_every)
        return min(ends)


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
