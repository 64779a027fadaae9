"""Optimizers, schedules, clipping, averages, plateau and early stopping, all pure."""

from functrain.optim import schedules
from functrain.optim.adafactor import FactoredState, adafactor, scale_by_factored_rms, scale_by_parameter_rms
from functrain.optim.adagrad import (
    AdadeltaState,
    AdagradState,
    adadelta,
    adagrad,
    scale_by_adadelta,
    scale_by_adagrad,
)
from functrain.optim.adam import AdamState, adam, adamw, scale_by_adam
from functrain.optim.adamax import AdamaxState, adamax, scale_by_adamax
from functrain.optim.asgd import AsgdState, asgd, step_asgd
from functrain.optim.averages import evaluation_params
from functrain.optim.base import Optimizer, apply_updates, chain, identity, stateless, step
from functrain.optim.clipping import clip_by_global_norm, clip_by_value, global_norm, scale_to_norm
from functrain.optim.early_stopping import EarlyStopping, EarlyStoppingState, StopDecision, early_stopping
from functrain.optim.ema import Ema, EmaState, ema, ema_update
from functrain.optim.from_torch import FromTorchState, from_torch
from functrain.optim.lamb import lamb, scale_by_trust_ratio
from functrain.optim.lion import LionState, lion, scale_by_lion
from functrain.optim.lookahead import LookaheadState, lookahead
from functrain.optim.masks import Mask, masked, no_decay_1d
from functrain.optim.muon import MuonState, is_matrix, muon, orthogonalize, scale_by_muon
from functrain.optim.nadam import NAdamState, nadam, scale_by_nadam
from functrain.optim.noise import add_noise
from functrain.optim.partition import partition
from functrain.optim.parts import CountState, FreezeState, add_decayed_weights, centralize, freeze, frozen_paths, scale
from functrain.optim.plateau import Plateau, PlateauDecision, PlateauState, plateau
from functrain.optim.radam import RAdamState, radam, scale_by_radam
from functrain.optim.rates import (
    LearningRateState,
    learning_rate,
    learning_rates,
    reduce_learning_rate,
    scale_by_learning_rate,
)
from functrain.optim.registry import REGISTRY
from functrain.optim.rmsprop import RMSState, rmsprop, scale_by_rms
from functrain.optim.rprop import RpropState, rprop, scale_by_rprop
from functrain.optim.sam import SamState, ascended_params, sam, sam_ascent, takes_two_gradients
from functrain.optim.schedule_free import (
    ScheduleFreeState,
    schedule_free_adamw,
    schedule_free_sgd,
    step_schedule_free,
)
from functrain.optim.schedules import Hyperparameter, Schedule
from functrain.optim.sgd import TraceState, sgd, trace

__all__ = [
    "REGISTRY",
    "AdadeltaState",
    "AdagradState",
    "AdamState",
    "AdamaxState",
    "AsgdState",
    "CountState",
    "EarlyStopping",
    "EarlyStoppingState",
    "Ema",
    "EmaState",
    "FactoredState",
    "FreezeState",
    "FromTorchState",
    "Hyperparameter",
    "LearningRateState",
    "LionState",
    "LookaheadState",
    "Mask",
    "MuonState",
    "NAdamState",
    "Optimizer",
    "Plateau",
    "PlateauDecision",
    "PlateauState",
    "RAdamState",
    "RMSState",
    "RpropState",
    "SamState",
    "Schedule",
    "ScheduleFreeState",
    "StopDecision",
    "TraceState",
    "adadelta",
    "adafactor",
    "adagrad",
    "adam",
    "adamax",
    "adamw",
    "add_decayed_weights",
    "add_noise",
    "apply_updates",
    "ascended_params",
    "asgd",
    "centralize",
    "chain",
    "clip_by_global_norm",
    "clip_by_value",
    "early_stopping",
    "ema",
    "ema_update",
    "evaluation_params",
    "freeze",
    "from_torch",
    "frozen_paths",
    "global_norm",
    "identity",
    "is_matrix",
    "lamb",
    "learning_rate",
    "learning_rates",
    "lion",
    "lookahead",
    "masked",
    "muon",
    "nadam",
    "no_decay_1d",
    "orthogonalize",
    "partition",
    "plateau",
    "radam",
    "reduce_learning_rate",
    "rmsprop",
    "rprop",
    "sam",
    "sam_ascent",
    "scale",
    "scale_by_adadelta",
    "scale_by_adagrad",
    "scale_by_adam",
    "scale_by_adamax",
    "scale_by_factored_rms",
    "scale_by_learning_rate",
    "scale_by_lion",
    "scale_by_muon",
    "scale_by_nadam",
    "scale_by_parameter_rms",
    "scale_by_radam",
    "scale_by_rms",
    "scale_by_rprop",
    "scale_by_trust_ratio",
    "scale_to_norm",
    "schedule_free_adamw",
    "schedule_free_sgd",
    "schedules",
    "sgd",
    "stateless",
    "step",
    "step_asgd",
    "step_schedule_free",
    "takes_two_gradients",
    "trace",
]
