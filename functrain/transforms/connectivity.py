"""The loss along the line between two states."""

from dataclasses import dataclass
from typing import Any

from functrain.evaluation import evaluate
from functrain.foundation.numbers import is_integer
from functrain.step.state import TrainState
from functrain.transforms.averaging import interpolate
from functrain.transforms.statistics import recompute_buffers


@dataclass(frozen=True)
class Connectivity:
    """The line from one state to another.

    Attributes:
        t: places on it, from 0 to 1.
        losses: the mean loss at each.
        barrier: the largest rise of the loss above the line between the losses of both ends, at least 0. Near 0, the
            states lie in one basin, and their average is as good as they are.
    """

    t: tuple[float, ...]
    losses: tuple[float, ...]
    barrier: float


def mode_connectivity(
    state_a: TrainState, state_b: TrainState, loader: Any, points: int = 11, *, statistics: Any = None
) -> Connectivity:
    """Evaluate states on the line between two: linear mode connectivity.

    Args:
        state_a, state_b: of one network; not changed.
        loader: what to evaluate on; read once for each point.
        points: places on the line, both ends included; 3 or more.
        statistics: training data, with which BatchNorm's statistics are estimated anew at each place, ends included
            (see `recompute_buffers`). None: they are interpolated, which makes barriers that are none of the weights'.

    Raises:
        ValueError: the networks differ, or `points` is not 3 or more.
        DataError: the loader gives no batch.

    References:
        Frankle, Dziugaite, Roy and Carbin 2020, "Linear Mode Connectivity and the Lottery Ticket Hypothesis", section
        2, with the loss in place of the error; Jordan et al. 2023, "REPAIR", for the statistics.

    Example:
        >>> import torch, functrain as ft
        >>> state = ft.init_state(torch.nn.Linear(1, 1, bias=False), ft.regression(), ft.optim.sgd(0.1))
        >>> one, two = (state.replace(params={"weight": torch.full((1, 1), value)}) for value in (1.0, 3.0))
        >>> mode_connectivity(one, two, [(torch.ones(1, 1), torch.zeros(1, 1))], points=3)
        Connectivity(t=(0.0, 0.5, 1.0), losses=(1.0, 4.0, 9.0), barrier=0.0)
    """
    if not is_integer(points, 3):
        raise ValueError(f"points must be a whole number of places, 3 or more; got {points!r}")
    places = [number / (points - 1) for number in range(points)]
    losses = []
    for t in places:
        state = interpolate(state_a, state_b, t)
        state = state if statistics is None else recompute_buffers(state, statistics)
        losses.append(evaluate(state, loader)["loss"])
    first, last = losses[0], losses[-1]
    rises = [loss - ((1 - t) * first + t * last) for t, loss in zip(places, losses)]
    return Connectivity(tuple(places), tuple(losses), max(0.0, *rises))
