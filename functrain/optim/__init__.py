"""Optimizers, learning-rate schedules, clipping and averages, all pure. Imports foundation only."""

from functrain.optim import schedules
from functrain.optim.base import Optimizer, apply_updates, chain, identity, stateless
from functrain.optim.clipping import clip_by_global_norm, clip_by_value, global_norm, scale_to_norm
from functrain.optim.ema import ema_update
from functrain.optim.masks import Mask, masked, no_decay_1d
from functrain.optim.optimizers import REGISTRY, adam, adamw, lion, sgd
from functrain.optim.schedules import Schedule
from functrain.optim.transforms import (
    AdamState,
    LearningRateState,
    LionState,
    TraceState,
    add_decayed_weights,
    learning_rate,
    scale,
    scale_by_adam,
    scale_by_learning_rate,
    scale_by_lion,
    trace,
)

__all__ = [
    "REGISTRY",
    "AdamState",
    "LearningRateState",
    "LionState",
    "Mask",
    "Optimizer",
    "Schedule",
    "TraceState",
    "adam",
    "adamw",
    "add_decayed_weights",
    "apply_updates",
    "chain",
    "clip_by_global_norm",
    "clip_by_value",
    "ema_update",
    "global_norm",
    "identity",
    "learning_rate",
    "lion",
    "masked",
    "no_decay_1d",
    "scale",
    "scale_by_adam",
    "scale_by_learning_rate",
    "scale_by_lion",
    "scale_to_norm",
    "schedules",
    "sgd",
    "stateless",
    "trace",
]
