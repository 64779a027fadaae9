"""The learning-rate range test: a sweep on a copy of a state.

References: L. N. Smith, "Cyclical learning rates for training neural networks", 2017 (arXiv:1506.01186), section 3.3,
which sweeps linearly and reads accuracies; here the sweep is exponential and reads losses, as in fastai.
"""

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import optree
import torch

from functrain.compiler import runner_for
from functrain.diagnostics.trials import endless, own_copy, trial_feed
from functrain.evaluation import figures
from functrain.foundation import trees
from functrain.foundation.errors import DataError
from functrain.foundation.numbers import is_integer
from functrain.optim import LearningRateState, learning_rates
from functrain.step import train_step
from functrain.step.state import TrainState, require_state

LATEST_COUNT = 2**20  # of updates: how far to look for a place where a schedule is not 0


@dataclasses.dataclass(frozen=True)
class LRRange:
    """What a sweep of the learning rate found.

    Attributes:
        lr: of each update.
        loss: before that update.
        smoothed: the losses without their noise: means under a Gaussian window around each, which does not shift
            the curve as an average of the past would.
        diverged: whether the sweep ended early, since the loss had risen or was not finite.
        suggestion: where the smoothed loss falls most steeply on the logarithmic axis, left of its minimum; None if
            it falls nowhere.
        minimum: where the smoothed loss is smallest. Training at this rate is at the edge of divergence; a tenth of
            it is another usual choice.
    """

    lr: tuple[float, ...]
    loss: tuple[float, ...]
    smoothed: tuple[float, ...]
    diverged: bool
    suggestion: float | None
    minimum: float

    def plot(self, path: str | Path) -> Path:
        """Draw the curve with its two marks.

        Args:
            path: the image to write; its ending says the format (.png, .pdf, .svg).

        Returns:
            The path.

        Raises:
            ValueError: for another format, or a folder that is not there.
            ModuleNotFoundError: without matplotlib.
        """
        marks = {"smallest loss": self.minimum}
        if self.suggestion is not None:
            marks["suggestion: steepest descent"] = self.suggestion
        return figures.learning_rate_range(self.lr, self.loss, self.smoothed, marks, path)


def find_lr(
    state: TrainState,
    loader: Any,
    *,
    min_lr: float = 1e-7,
    max_lr: float = 10.0,
    steps: int = 100,
    smoothing: float = 3.0,
    stop_at: float = 4.0,
    compile: bool = False,
) -> LRRange:
    """Train a copy of the state with a learning rate that grows exponentially, and look at the loss.

    The state, the loader's position and the global random generators are as before. A schedule is left out. Of
    several learning rates (`optim.partition`) the first is swept, and the others keep their ratio to it.

    Args:
        state: where training would start, between two updates.
        loader: the training data, as for `fit`.
        min_lr, max_lr: the first rate and the last.
        steps: updates.
        smoothing: standard deviation of the window that smooths the losses, in updates; 0 for none.
        stop_at: the sweep ends when the mean of the last losses (twice `smoothing` of them) is this many times its
            smallest value so far (or above it by as much as the first loss, where losses are not positive).
        compile: compile the step first.

    Returns:
        The curve, and a suggestion.

    Raises:
        ValueError: for arguments that are not allowed, or an optimizer without a learning rate.
        TypeError: for a loader that could not be put back.
        DataError: if there is no batch.

    Example:
        >>> import functrain as ft
        >>> state = ft.init_state(torch.nn.Linear(2, 1), ft.regression(), ft.optim.sgd(0.1))
        >>> found = find_lr(state, [(torch.ones(8, 2), torch.zeros(8, 1))], min_lr=1e-4, steps=50)
        >>> found.diverged, 1e-4 < found.suggestion < found.minimum < 1.0
        (True, True)
    """
    _check(state, min_lr, max_lr, steps, smoothing, stop_at)
    run = runner_for(compile, donate=True)
    rates: list[float] = []
    losses: list[float] = []
    sweep = _Sweep(state)
    current, diverged = own_copy(state), False
    with trial_feed(state, loader) as feed:
        micro_batches = endless(feed, state.recipe.accumulate)
        for rate in np.geomspace(min_lr, max_lr, steps).tolist():
            current = sweep.at(current, rate)
            while True:
                micro_batch = next(micro_batches)
                current, metrics = train_step(current, micro_batch.batch, examples=micro_batch.examples, run=run)
                if current.micro_step == 0:
                    break
            if metrics["weight_sum"].item() == 0:
                continue  # no label in the window counts, so there is no loss
            rates.append(rate)
            losses.append(metrics["loss"].item())
            if diverged := _has_run_away(losses, smoothing, stop_at):
                break
    if not losses:
        raise DataError("no label of any batch counts (all have weight 0): look at the targets and at ignore_index")
    return _result(rates, losses, smoothing, diverged)


class _Sweep:
    """Sets learning rates, whatever the schedule says."""

    def __init__(self, state: TrainState) -> None:
        trainable = {name: state.params[name] for name in state.recipe.network.trainable}
        zeros = trees.tree_map(torch.zeros_like, trainable)
        count = 0
        while count <= LATEST_COUNT:
            self._count = count
            start = self._set(state.opt_state, 1.0)
            _, after = state.recipe.optimizer.update(zeros, start, trainable)
            bases = [rate.item() for rate in learning_rates(after)]
            if bases[0] > 0:
                self._base = bases[0]
                return
            count = 2 * count or 1
        raise ValueError("the learning rate of this optimizer is 0 at all times; give it a positive one")

    def at(self, state: TrainState, rate: float) -> TrainState:
        """The state whose next update has this learning rate."""
        return state.replace(opt_state=self._set(state.opt_state, rate / self._base))

    def _set(self, opt_state: Any, factor: float) -> Any:
        """Every rate at one place of its schedule, times a factor."""

        def is_rate(part: Any) -> bool:
            return isinstance(part, LearningRateState)

        def put(part: Any) -> Any:
            if not is_rate(part):
                return part
            count, reduction = torch.full_like(part.count, self._count), torch.full_like(part.reduction, factor)
            return dataclasses.replace(part, count=count, reduction=reduction)

        return optree.tree_map(put, opt_state, is_leaf=is_rate, namespace=trees.NAMESPACE)


def _has_run_away(losses: Sequence[float], smoothing: float, stop_at: float) -> bool:
    """Whether the loss, lately, has left what it came from."""
    if not math.isfinite(losses[-1]):
        return True
    window = min(len(losses), max(1, round(2 * smoothing)))
    trailing = np.convolve(losses, np.full(window, 1 / window), mode="valid")
    best = float(trailing.min())
    limit = stop_at * best if best > 0 else best + abs(losses[0])
    return bool(trailing[-1] > limit)


def _result(rates: Sequence[float], losses: Sequence[float], smoothing: float, diverged: bool) -> LRRange:
    """The curve of the finite losses, and what it suggests."""
    finite = [loss for loss in losses if math.isfinite(loss)]
    if not finite:
        raise ValueError(
            f"the loss was not finite ({losses[0]}) before the first update: the state, the data or the precision is "
            "at fault, not the learning rate. functrain.find_nonfinite says where it comes from"
        )
    rates = rates[: len(finite)]
    smoothed = _smooth(finite, smoothing)
    lowest = int(np.argmin(smoothed))
    slopes = np.gradient(smoothed[: lowest + 1]) if lowest else np.zeros(1)
    steepest = int(np.argmin(slopes))
    suggestion = rates[steepest] if slopes[steepest] < 0 else None
    return LRRange(tuple(rates), tuple(finite), tuple(smoothed), diverged, suggestion, rates[lowest])


def _smooth(values: Sequence[float], deviation: float) -> list[float]:
    """Means under a Gaussian window, which is cut off, and weighed anew, at both ends."""
    if deviation == 0:
        return list(values)
    places = np.arange(len(values))
    weights = np.exp(-0.5 * ((places[:, None] - places) / deviation) ** 2)
    means: list[float] = (weights @ np.asarray(values) / weights.sum(1)).tolist()
    return means


def _check(state: TrainState, min_lr: float, max_lr: float, steps: int, smoothing: float, stop_at: float) -> None:
    require_state("find_lr", state)
    if not 0 < min_lr < max_lr < math.inf:
        raise ValueError(f"the rates must be 0 < min_lr < max_lr; got min_lr={min_lr!r}, max_lr={max_lr!r}")
    if not is_integer(steps, 2):
        raise ValueError(f"steps must be a whole number, 2 or more; got {steps!r}")
    if not 0 <= smoothing < math.inf:
        raise ValueError(f"smoothing must be a number of updates, 0 or more; got {smoothing!r}")
    if not stop_at > 1:
        raise ValueError(f"stop_at must be greater than 1; got {stop_at!r}")
    if not learning_rates(state.opt_state):
        raise ValueError(
            "this optimizer has no learning rate that could be swept. With optim.from_torch give lr as a schedule: "
            "lr=schedules.constant(1e-3)"
        )
