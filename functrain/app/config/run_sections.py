"""The sections of a configuration that say how a run goes: training, compile, evaluation, checkpoint, logging.

functrain/loop/settings.py declares the keys that are arguments of `functrain.fit`; the others are declared here.
"""

from typing import Literal

from pydantic import model_validator

from functrain.app.config.keys import Section, key, keys_of, options_of
from functrain.loop.output.mlflow import MlflowOptions
from functrain.loop.output.wandb import WandbOptions


class PlateauConfig(Section):
    """The arguments of `optim.plateau`, which reduces the learning rate when the watched metric stops improving."""

    factor: float = key(0.1, "what the learning rate is multiplied by.", gt=0, lt=1)
    patience: int = key(
        10, "evaluations in a row without an improvement that change nothing; the next one reduces the rate.", ge=0
    )
    threshold: float = key(1e-4, "the least change that counts as an improvement.", ge=0)
    threshold_mode: Literal["rel", "abs"] = key("rel", "whether that is a fraction of the best value or a difference.")
    cooldown: int = key(0, "evaluations after a reduction that are not counted.", ge=0)
    min_lr: float = key(0.0, "the learning rate is not reduced below this.", ge=0)
    eps: float = key(1e-8, "a reduction by less than this is not made.", ge=0)


class EarlyStoppingConfig(Section):
    """The arguments of `optim.early_stopping`, which ends training when the watched metric stops improving."""

    patience: int = key(10, "evaluations in a row without an improvement, the last of which ends training.", ge=1)
    min_delta: float = key(0.0, "the least change that counts as an improvement.", ge=0)
    cooldown: int = key(0, "evaluations at the beginning that do not count.", ge=0)
    restore_best: bool = key(False, "whether the result is the state of the best checkpoint.")


class LossScalingConfig(Section):
    """The arguments of `functrain.LossScaling`."""

    init_scale: float = key(2.0**16, "the first scale.", gt=0, le=2.0**120)
    growth_factor: float = key(2.0, "what the scale grows by.", gt=1)
    backoff_factor: float = key(0.5, "what the scale is multiplied by after an overflow.", gt=0, lt=1)
    growth_interval: int = key(2000, "updates without an overflow before it grows.", ge=1)


RULES = {"plateau": PlateauConfig, "early_stopping": EarlyStoppingConfig}


class TrainingConfig(keys_of("training", RULES)):  # type: ignore[misc]
    """How long to train, and what decides the numbers: arguments of `functrain.init_state` and `functrain.fit`."""

    precision: Literal["fp32", "bf16", "fp16", "fp64"] = key(
        "fp32", "of the forward and backward pass. Parameters are float32, and float64 with fp64."
    )
    accumulate: int = key(1, "micro-batches for each update.", ge=1)
    clip_norm: float | None = key(None, "largest global norm of the gradient.", gt=0)
    clip_value: float | None = key(None, "largest magnitude of a gradient's element, before `clip_norm`.", gt=0)
    ema_decay: float | None = key(
        None,
        "decay of a moving average of the parameters, which is evaluated as well. null keeps no average.",
        ge=0,
        lt=1,
    )
    ema_warmup: bool = key(False, "let the decay rise from 0 at the beginning.")
    ema_every: int = key(1, "updates between two changes of the average.", ge=1)
    ema_average_buffers: bool = key(False, "average the buffers, too, instead of copying them.")
    statistics: Literal["parameter", "module"] | None = key(
        None, "record norms and other statistics of gradients and updates, for each parameter or module."
    )
    activation_checkpointing: list[str] = key(
        [],
        'paths of modules, or patterns such as "blocks.*", whose activations are computed again in the backward pass: '
        "less memory for more time.",
    )
    refuse_nonfinite: bool = key(
        True,
        "leave out an update that is not finite. false applies it and ends the run, with less memory (docs/memory.md).",
    )
    activations: bool = key(False, "record statistics of the activations, for each module without modules in it.")
    loss_scale: float | None = key(
        None, "a constant scale of the loss, instead of fp16's scale that adapts itself.", gt=0
    )
    loss_scaling: LossScalingConfig | None = key(None, "how fp16's scale adapts itself.")
    device: str = key("cpu", "where to train: cpu, cuda, cuda:1, ...")
    members: int | None = key(
        None,
        "train a deep ensemble of so many members in one step: member i is the run of the seed `seed` + i. null: one "
        "model.",
        ge=2,
    )
    vectorize: bool | None = key(
        None,
        "how members are computed: all in one vmap (true), or one after the other in one graph (false), which in eager "
        "steps is equal to training alone to the bit. null: the one that a measurement finds faster.",
    )
    threads: int | None = key(None, "threads that torch computes with on the CPU. null leaves torch's number.", ge=1)

    @model_validator(mode="after")
    def _has_an_end(self) -> "TrainingConfig":
        if self.epochs is None and self.steps is None:
            raise ValueError("needs to know how long to train: set epochs, steps, or both")
        return self

    @model_validator(mode="after")
    def _has_one_scale(self) -> "TrainingConfig":
        if self.loss_scale is not None and self.loss_scaling is not None:
            raise ValueError("a loss scale is constant (loss_scale) or adapts itself (loss_scaling), not both")
        return self

    @model_validator(mode="after")
    def _has_an_average(self) -> "TrainingConfig":
        defaults = {"ema_warmup": False, "ema_every": 1, "ema_average_buffers": False}
        given = [name for name, default in defaults.items() if getattr(self, name) != default]
        if self.ema_decay is None and given:
            raise ValueError(f"{', '.join(given)} needs a moving average: set ema_decay, for example to 0.999")
        return self


class CompileConfig(keys_of("compile")):  # type: ignore[misc]
    """Whether and how steps are compiled. `compile: false`, `true` or `auto` is short for `compile: {enabled: ...}`."""


class EvaluationConfig(keys_of("evaluation")):  # type: ignore[misc]
    """When the split `val` is evaluated, and which metric decides."""


class CheckpointConfig(keys_of("checkpoint")):  # type: ignore[misc]
    """When checkpoints are saved, and which are kept."""


class WandbConfig(options_of(WandbOptions)):  # type: ignore[misc]
    """Logging to Weights & Biases. `wandb: true` asks for it with the defaults."""


class MlflowConfig(options_of(MlflowOptions)):  # type: ignore[misc]
    """Logging to MLflow. `mlflow: true` asks for it with the defaults."""


TRACKERS = {"wandb": WandbConfig, "mlflow": MlflowConfig}


class LoggingConfig(keys_of("logging", TRACKERS)):  # type: ignore[misc]
    """What is written while the run trains."""
