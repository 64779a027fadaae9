"""The largest batch that fits, tried on a copy of a state."""

import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from functrain.compiler import runner_for
from functrain.diagnostics.host_memory import within_available_memory
from functrain.diagnostics.trials import own_copy, trial_feed
from functrain.foundation.errors import OutOfMemoryError
from functrain.foundation.numbers import is_integer
from functrain.loop.batches import no_training_data
from functrain.loop.memory import is_out_of_memory, release
from functrain.objectives.examples import length_of, map_examples, require_examples, takes_lists
from functrain.step import train_step
from functrain.step.state import TrainState, require_state

FINENESS = 16  # the answer is at most a sixteenth below the largest batch that fits


@dataclass(frozen=True)
class Trial:
    """A batch that was tried.

    Attributes:
        batch_size: examples.
        fits: whether there was memory for a step.
        seconds: of a step, the first one not counted; None if it does not fit.
    """

    batch_size: int
    fits: bool
    seconds: float | None

    @property
    def examples_per_second(self) -> float | None:
        """How fast training would be."""
        return None if self.seconds is None else self.batch_size / self.seconds


@dataclass(frozen=True)
class BatchSizes:
    """What was found out about batch sizes.

    Attributes:
        largest: the largest that was tried and fits.
        bounded: whether a larger one was tried and did not fit; else there may be larger ones.
        trials: all that was tried, by size.
    """

    largest: int
    bounded: bool
    trials: tuple[Trial, ...]

    @property
    def fastest(self) -> int:
        """The smallest of those that process at least 95 % as many examples per second as the best."""
        speeds = {trial.batch_size: trial.examples_per_second or 0.0 for trial in self.trials}
        return min(size for size, speed in speeds.items() if speed >= 0.95 * max(speeds.values()))


def find_batch_size(
    state: TrainState, loader: Any, *, start: int = 2, limit: int | None = None, compile: bool = False
) -> BatchSizes:
    """Try whole training steps on a copy of the state, with batches twice as large each time, until one does not fit.

    The batches are made of the rows of the loader's first one. The state, the loader's position and the global random
    generators are as before. On a CPU a step may take nine tenths of the memory that is available now (on Linux; where
    that is not known the system decides, which may end the process). Where memory is not the bound, on a CPU above all,
    look at `fastest`.

    Args:
        state: where training would start, between two updates.
        loader: the training data, as for `fit`.
        start: the smallest batch to try. (Of a single example BatchNorm has no statistics.)
        limit: the largest; default: as many examples as the loader's batches have in all, or 65,536 if it does not
            tell.
        compile: compile a step for each size, instead of running it eagerly, which takes more memory as a rule.

    Returns:
        The largest batch that fits, to within a sixteenth, and the speed of each that was tried.

    Raises:
        ValueError: for arguments that are not allowed.
        TypeError: for a loader that could not be put back.
        DataError: if there is no batch.
        OutOfMemoryError: if not even `start` fits.

    Example:
        >>> import functrain as ft
        >>> state = ft.init_state(torch.nn.Linear(2, 1), ft.regression(), ft.optim.sgd(0.1))
        >>> found = find_batch_size(state, [(torch.ones(4, 2), torch.zeros(4, 1))], limit=20)
        >>> found.largest, found.bounded, [trial.batch_size for trial in found.trials]
        (20, False, [2, 4, 8, 16, 20])
    """
    for name, value in (("start", start), ("limit", limit)):
        if value is not None and not is_integer(value, 1):
            raise ValueError(f"{name} must be a number of examples, 1 or more; got {value!r}")
    require_state("find_batch_size", state)
    with trial_feed(state, loader) as feed:
        micro_batch = next(feed.windows(0, 0, 1, "extend"), None)
        if micro_batch is None:
            raise no_training_data()
        known, size = feed.stream.length(0), feed.stream.batch_size
    if limit is None:
        limit = max(start, known * size) if known and size else 2**16
    if start > limit:
        raise ValueError(f"start must not be greater than limit; got start={start}, limit={limit}")
    batch = micro_batch.batch

    def attempt(size: int) -> Trial:
        return _attempt(state, repeated(batch, size, lists=takes_lists(state.recipe.objective)), size, compile)

    trials = _search(attempt, start, limit)
    if not trials[0].fits:
        raise OutOfMemoryError(f"not even {start} examples fit into memory: give a smaller start, or a smaller model")
    largest = max(trial.batch_size for trial in trials if trial.fits)
    return BatchSizes(largest, not all(trial.fits for trial in trials), tuple(trials))


def repeated(batch: Any, size: int, *, lists: bool = False) -> Any:
    """A batch of `size` examples, made of those of another, from the first on, again and again.

    Args:
        batch: the other.
        size: how many examples.
        lists: as `takes_lists` says of the objective.

    Example:
        >>> repeated((torch.tensor([5, 6]), "name"), 3)
        (tensor([5, 6, 5]), 'name')
    """
    length = length_of(batch, lists=lists)
    require_examples(batch, "find_batch_size", lists=lists)

    def chosen(examples: Any) -> Any:
        if isinstance(examples, Tensor):
            return examples.index_select(0, torch.arange(size, device=examples.device) % length)
        return [examples[number % length] for number in range(size)]

    return map_examples(chosen, batch, length, lists=lists)


def _search(attempt: Callable[[int], Trial], start: int, limit: int) -> list[Trial]:
    """Double, then halve the gap between what fits and what does not."""
    trials = [attempt(start)]
    while trials[-1].fits and trials[-1].batch_size < limit:
        trials.append(attempt(min(2 * trials[-1].batch_size, limit)))
    if len(trials) > 1 and not trials[-1].fits:
        good, bad = trials[-2].batch_size, trials[-1].batch_size
        while bad - good > max(1, good // FINENESS):
            trials.append(attempt((good + bad) // 2))
            good, bad = (trials[-1].batch_size, bad) if trials[-1].fits else (good, trials[-1].batch_size)
    return sorted(trials, key=lambda trial: trial.batch_size)


def _attempt(state: TrainState, batch: Any, size: int, compile: bool) -> Trial:
    """Two windows' ends (and one step within a window, if there are such), the second one timed."""
    on_host = state.device.type == "cpu"
    seconds = 0.0
    try:
        with within_available_memory() if on_host else nullcontext():
            run = runner_for(compile, donate=True)
            current = own_copy(state)
            if state.recipe.accumulate > 1:
                current, _ = train_step(current, batch, run=run)
            for _ in range(2):
                before = time.perf_counter()
                current, metrics = train_step(current, batch, end_window=True, run=run)
                metrics["loss"].item()  # waits for the device
                seconds = time.perf_counter() - before
    except Exception as error:
        if not is_out_of_memory(error):
            raise
    else:
        return Trial(size, True, seconds)
    current = metrics = None  # type: ignore[assignment]
    release(state.device)
    return Trial(size, False, None)
