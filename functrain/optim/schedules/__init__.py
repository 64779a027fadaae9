"""Schedules: pure functions from the number of past updates to a hyperparameter.

`schedule(step)` takes a Python int and returns a float, or takes a 0-d integer tensor and returns a float64
0-d tensor on the same device, by torch operations alone: it compiles into the step and never waits for the
device. The first update has step 0. Past its end a schedule stays at its last value.

The first argument is named for the learning rate, `lr`; the same schedules drive any other hyperparameter.
"""

from functrain.optim.schedules.base import Hyperparameter, Schedule, number_of, rate_at, value_at
from functrain.optim.schedules.combine import join, per_epoch, warmup
from functrain.optim.schedules.cycles import cosine_restarts, one_cycle, one_cycle_momentum
from functrain.optim.schedules.decay import (
    constant,
    cosine,
    ema_decay,
    inverse_sqrt,
    linear,
    polynomial,
    warmup_stable_decay,
)
from functrain.optim.schedules.ramps import warmup_decay
from functrain.optim.schedules.registry import REGISTRY
from functrain.optim.schedules.stairs import exponential, multi_step, step

__all__ = [
    "REGISTRY",
    "Hyperparameter",
    "Schedule",
    "constant",
    "cosine",
    "cosine_restarts",
    "ema_decay",
    "exponential",
    "inverse_sqrt",
    "join",
    "linear",
    "multi_step",
    "number_of",
    "one_cycle",
    "one_cycle_momentum",
    "per_epoch",
    "polynomial",
    "rate_at",
    "step",
    "value_at",
    "warmup",
    "warmup_decay",
    "warmup_stable_decay",
]
