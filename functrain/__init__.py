"""functrain: functional training for PyTorch.

    state = functrain.init_state(model, functrain.classification(), functrain.optim.adamw(1e-3))
    result = functrain.fit(state, train_loader, eval_loader=val_loader, epochs=10, run_dir="runs/digits")

Names load with first use: `functrain --help` need not wait for torch, nor a script for orbax or matplotlib.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    __version__: str
    from functrain import attribution as attribution
    from functrain import checkpoint as checkpoint
    from functrain import data as data
    from functrain import diagnostics as diagnostics
    from functrain import distributed as distributed
    from functrain import errors as errors
    from functrain import evaluation as evaluation
    from functrain import metrics as metrics
    from functrain import models as models
    from functrain import optim as optim
    from functrain import transforms as transforms
    from functrain.checkpoint import Checkpointer as Checkpointer
    from functrain.compiler import compile as compile
    from functrain.diagnostics import find_batch_size as find_batch_size
    from functrain.diagnostics import find_lr as find_lr
    from functrain.diagnostics import find_nonfinite as find_nonfinite
    from functrain.diagnostics import model_summary as model_summary
    from functrain.diagnostics import profile as profile
    from functrain.diagnostics import replay as replay
    from functrain.diagnostics import state_at as state_at
    from functrain.distributed import shard as shard
    from functrain.distributed import unshard as unshard
    from functrain.evaluation import compare_models as compare_models
    from functrain.evaluation import evaluate as evaluate
    from functrain.evaluation import evaluate_ensemble as evaluate_ensemble
    from functrain.evaluation import evaluation_report as evaluation_report
    from functrain.evaluation import explain as explain
    from functrain.evaluation import load_archive as load_archive
    from functrain.evaluation import observe as observe
    from functrain.evaluation import predict as predict
    from functrain.evaluation import write_comparison as write_comparison
    from functrain.evaluation import write_explanation as write_explanation
    from functrain.evaluation import write_observed as write_observed
    from functrain.evaluation import write_report as write_report
    from functrain.loop import Event as Event
    from functrain.loop import FitResult as FitResult
    from functrain.loop import Interrupted as Interrupted
    from functrain.loop import ResumeRefusedError as ResumeRefusedError
    from functrain.loop import ResumeWarning as ResumeWarning
    from functrain.loop import Stop as Stop
    from functrain.loop import fit as fit
    from functrain.loop import on as on
    from functrain.loop import population as population
    from functrain.objectives import LearnedWeights as LearnedWeights
    from functrain.objectives import Loss as Loss
    from functrain.objectives import binary_classification as binary_classification
    from functrain.objectives import classification as classification
    from functrain.objectives import contrastive as contrastive
    from functrain.objectives import distillation as distillation
    from functrain.objectives import l1_penalty as l1_penalty
    from functrain.objectives import l2_penalty as l2_penalty
    from functrain.objectives import language_modelling as language_modelling
    from functrain.objectives import losses as losses
    from functrain.objectives import masked_reconstruction as masked_reconstruction
    from functrain.objectives import model_loss as model_loss
    from functrain.objectives import regression as regression
    from functrain.objectives import segmentation as segmentation
    from functrain.objectives import supervised as supervised
    from functrain.objectives import term as term
    from functrain.objectives import weighted_sum as weighted_sum
    from functrain.optim import schedules as schedules
    from functrain.step import LossScaling as LossScaling
    from functrain.step import PerMember as PerMember
    from functrain.step import TrainState as TrainState
    from functrain.step import diff_states as diff_states
    from functrain.step import digest as digest
    from functrain.step import eval_step as eval_step
    from functrain.step import init_state as init_state
    from functrain.step import stack as stack
    from functrain.step import to_module as to_module
    from functrain.step import train_step as train_step
    from functrain.step import unstack as unstack

_NAMES = {
    "functrain.checkpoint": ("Checkpointer",),
    "functrain.compiler": ("compile",),
    "functrain.diagnostics": (
        "find_batch_size",
        "find_lr",
        "find_nonfinite",
        "model_summary",
        "profile",
        "replay",
        "state_at",
    ),
    "functrain.distributed": ("shard", "unshard"),
    "functrain.evaluation": (
        "compare_models",
        "evaluate",
        "evaluate_ensemble",
        "evaluation_report",
        "explain",
        "load_archive",
        "observe",
        "predict",
        "write_comparison",
        "write_explanation",
        "write_observed",
        "write_report",
    ),
    "functrain.loop": (
        "Event",
        "FitResult",
        "Interrupted",
        "ResumeRefusedError",
        "ResumeWarning",
        "Stop",
        "fit",
        "on",
        "population",
    ),
    "functrain.objectives": (
        "LearnedWeights",
        "Loss",
        "binary_classification",
        "classification",
        "contrastive",
        "distillation",
        "l1_penalty",
        "l2_penalty",
        "language_modelling",
        "losses",
        "masked_reconstruction",
        "model_loss",
        "regression",
        "segmentation",
        "supervised",
        "term",
        "weighted_sum",
    ),
    "functrain.optim": ("schedules",),
    "functrain.step": (
        "LossScaling",
        "PerMember",
        "TrainState",
        "diff_states",
        "digest",
        "eval_step",
        "init_state",
        "stack",
        "to_module",
        "train_step",
        "unstack",
    ),
}
_HOMES = {name: module for module, names in _NAMES.items() for name in names}
_MODULES = (
    "attribution",
    "checkpoint",
    "data",
    "diagnostics",
    "distributed",
    "errors",
    "evaluation",
    "metrics",
    "models",
    "optim",
    "transforms",
)


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return import_module(f"functrain.{name}")
    if name == "__version__":
        return import_module("importlib.metadata").version("functrain")
    if name not in _HOMES:
        raise AttributeError(f"module 'functrain' has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_HOMES[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted([*_HOMES, *_MODULES])
