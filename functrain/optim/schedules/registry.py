"""What a configuration can name: the schedules that are built from numbers alone."""

from collections.abc import Callable, Mapping

from functrain.optim.schedules.base import Schedule
from functrain.optim.schedules.cycles import cosine_restarts, one_cycle
from functrain.optim.schedules.decay import constant, cosine, inverse_sqrt, linear, polynomial, warmup_stable_decay
from functrain.optim.schedules.ramps import warmup_decay
from functrain.optim.schedules.stairs import exponential, multi_step, step

REGISTRY: Mapping[str, Callable[..., Schedule]] = {
    "constant": constant,
    "linear": linear,
    "polynomial": polynomial,
    "cosine": cosine,
    "cosine_restarts": cosine_restarts,
    "exponential": exponential,
    "step": step,
    "multi_step": multi_step,
    "inverse_sqrt": inverse_sqrt,
    "one_cycle": one_cycle,
    "warmup_stable_decay": warmup_stable_decay,
    "warmup_decay": warmup_decay,
}
