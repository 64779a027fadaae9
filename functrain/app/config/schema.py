"""What a configuration may say: the typed schema.

A section with a `name` (model, data, objective, optimizer, schedule) also takes the parameters of the function
that the name stands for; `functrain.app.config.loading` checks them against its signature.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, WrapValidator, field_validator, model_validator


class Section(BaseModel):
    """Immutable, exact about types, and without keys of its own invention."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Named(Section):
    """A function by name, with parameters.

    Attributes:
        name: one of the registry's, or "package.module:function" of the user's own.
    """

    model_config = ConfigDict(extra="allow")

    name: str

    @property
    def parameters(self) -> dict[str, Any]:
        """The keys that are the function's."""
        return dict(self.model_extra or {})


class ModelConfig(Named):
    """The network: a class or function that returns a `torch.nn.Module`."""


class DataConfig(Named):
    """The data: a function `(split, **parameters)` that returns a map-style data set for "train", "val" and
    "test", or None for a split there is not; and how it is read, as in `functrain.data.Loader`.

    Attributes:
        balanced: draw training examples so that all classes are as frequent, with replacement; by the data set's
            `targets`, or the second of its arrays.
        collate_fn: the function that puts samples together, as "package.module:function"; default: torch's
            `default_collate`.
    """

    batch_size: int = Field(default=64, ge=1)
    eval_batch_size: int | None = Field(default=None, ge=1)  # default: batch_size
    balanced: bool = False
    collate_fn: str | None = None
    drop_last: bool = False
    num_workers: int = Field(default=0, ge=0)
    pin_memory: bool = False
    persistent_workers: bool = False
    prefetch_factor: int | None = Field(default=None, ge=1)

    @field_validator("collate_fn")
    @classmethod
    def _is_users_own(cls, name: str | None) -> str | None:
        if name is not None and ":" not in name:
            raise ValueError("must be a function of your own, as package.module:function")
        return name


class ObjectiveConfig(Named):
    """The objective: a function of parameters that returns one, or an objective `(model, batch) -> Loss` itself."""


class ScheduleConfig(Named):
    """The learning rate's course. `total_steps`, where the schedule has one, defaults to the run's length.

    Attributes:
        warmup_steps: updates in which the rate rises from 0.
        warmup_fraction: their part of the run, instead, rounded down: it fits into a run of any length.
        per: what the schedule counts. With "epoch" every length is one in epochs and the rate changes at their ends
            only; but `warmup_steps` are updates always.
    """

    warmup_steps: int = Field(default=0, ge=0)
    warmup_fraction: float | None = Field(default=None, ge=0, lt=1)
    per: Literal["update", "epoch"] = "update"

    @model_validator(mode="after")
    def _has_one_warmup(self) -> "ScheduleConfig":
        if self.warmup_steps and self.warmup_fraction is not None:
            raise ValueError(
                "has a warm-up of so many updates (warmup_steps) or of a part of the run (warmup_fraction), not both; "
                "set the other one to null"
            )
        return self

    @field_validator("warmup_steps", mode="before")
    @classmethod
    def _none_is_zero(cls, steps: Any) -> Any:
        return 0 if steps is None else steps


class SamConfig(Section):
    """Sharpness-aware minimisation around the optimizer: the arguments of `optim.sam`."""

    rho: float = Field(default=0.05, gt=0)
    adaptive: bool = False


class OptimizerConfig(Named):
    """The optimizer."""

    lr: float = Field(ge=0)
    weight_decay_mask: Literal["all", "no_decay_1d"] = "all"
    schedule: ScheduleConfig | None = None
    sam: SamConfig | None = None


class PlateauConfig(Section):
    """Reducing the learning rate when the watched metric stops improving: the arguments of `optim.plateau`."""

    factor: float = Field(default=0.1, gt=0, lt=1)
    patience: int = Field(default=10, ge=0)
    threshold: float = Field(default=1e-4, ge=0)
    threshold_mode: Literal["rel", "abs"] = "rel"
    cooldown: int = Field(default=0, ge=0)
    min_lr: float = Field(default=0.0, ge=0)
    eps: float = Field(default=1e-8, ge=0)


class EarlyStoppingConfig(Section):
    """Ending when the watched metric stops improving: the arguments of `optim.early_stopping`."""

    patience: int = Field(default=10, ge=1)
    min_delta: float = Field(default=0.0, ge=0)
    cooldown: int = Field(default=0, ge=0)
    restore_best: bool = False


class LossScalingConfig(Section):
    """The arguments of `functrain.LossScaling`."""

    init_scale: float = Field(default=2.0**16, gt=0, le=2.0**120)
    growth_factor: float = Field(default=2.0, gt=1)
    backoff_factor: float = Field(default=0.5, gt=0, lt=1)
    growth_interval: int = Field(default=2000, ge=1)


def _number_or_auto(value: Any, _: Any) -> int | str:
    """One message, where pydantic has one for each type that a value might have been."""
    if value == "auto" or (type(value) is int and value >= 1):
        return value
    raise ValueError("must be a whole number, 1 or more, or 'auto'")


NumberOrAuto = Annotated[int | str, WrapValidator(_number_or_auto)]


class TrainingConfig(Section):
    """The run: the arguments of `functrain.init_state` and `functrain.fit`."""

    epochs: int | None = Field(default=None, ge=1)
    steps: int | None = Field(default=None, ge=1)
    precision: Literal["fp32", "bf16", "fp16", "fp64"] = "fp32"
    accumulate: int = Field(default=1, ge=1)
    tail: Literal["extend", "short", "drop"] = "extend"
    clip_norm: float | None = Field(default=None, gt=0)
    clip_value: float | None = Field(default=None, gt=0)
    ema_decay: float | None = Field(default=None, ge=0, lt=1)
    ema_warmup: bool = False
    ema_every: int = Field(default=1, ge=1)
    ema_average_buffers: bool = False
    statistics: Literal["parameter", "module"] | None = None
    activation_checkpointing: list[str] = []
    activations: bool = False
    compile: bool = True
    backend: str = "inductor"
    mode: str = "default"
    donate: bool = True
    micro_batch: NumberOrAuto | None = None
    steps_per_call: NumberOrAuto = "auto"
    eval_every: int = Field(default=1, ge=1)
    save_every: int | None = Field(default=None, ge=1)
    save_every_minutes: float | None = Field(default=None, gt=0)
    keep: int = Field(default=3, ge=1)
    keep_best: int = Field(default=1, ge=1)
    watch: str | None = None
    watch_mode: Literal["min", "max"] = "min"
    plateau: PlateauConfig | None = None
    early_stopping: EarlyStoppingConfig | None = None
    log_every: int = Field(default=10, ge=1)
    tensorboard: bool = False
    on_nonfinite: Literal["stop", "skip"] = "stop"
    max_consecutive_skips: int | None = Field(default=100, ge=1)
    loss_scale: float | None = Field(default=None, gt=0)
    loss_scaling: LossScalingConfig | None = None
    deterministic: bool = False
    tf32: bool | None = None
    device: str = "cpu"
    threads: int | None = Field(default=None, ge=1)

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
            raise ValueError(f"{', '.join(given)} needs a moving average: set ema_decay, to 0.999 say")
        return self


class InitFromConfig(Section):
    """Parameters and buffers to begin with: the arguments of `functrain.checkpoint.init_from`.

    Attributes:
        path: a file, a checkpoint, or a run, meaning its last checkpoint; relative to the configuration file.
        new: leaves that may keep their initial value; names or patterns such as "head.*".
        dropped: tensors of the file that are left out, likewise.
        prefix: of the model's names in the file, such as "model." in Lightning's.
    """

    path: str = Field(min_length=1)
    new: list[str] = []
    dropped: list[str] = []
    prefix: str = ""


class Config(Section):
    """A run.

    Attributes:
        name: the run's, and its directory's under `runs/`; default: the file's.
        seed: of everything random.
        code: folder that "package.module:function" is imported from, besides the current directory;
            default: the configuration file's own. A relative one is relative to that file.
        init_from: where a run that starts afresh has its parameters from, instead of the seed.
    """

    name: str
    seed: int = 0
    code: str | None = None
    model: ModelConfig
    data: DataConfig
    objective: ObjectiveConfig
    optimizer: OptimizerConfig
    training: TrainingConfig
    init_from: InitFromConfig | None = None

    _code_folders: tuple[Path, ...] | None = PrivateAttr(default=None)

    @property
    def code_folders(self) -> tuple[Path, ...] | None:
        """Where its functions are imported from; None if nobody has said that it may run code of its own."""
        return self._code_folders

    def with_code(self, folders: Sequence[Path]) -> Self:
        """This configuration, which may now import functions from these folders; see
        `functrain.app.config.trust`."""
        allowed = self.model_copy()
        allowed._code_folders = tuple(folders)
        return allowed

    @property
    def references(self) -> list[str]:
        """The functions it names as "package.module:function"."""
        schedule = self.optimizer.schedule
        sections: list[Named] = [self.model, self.data, self.objective, self.optimizer]
        if schedule is not None:
            sections.append(schedule)
        names = [section.name for section in sections] + [self.data.collate_fn or ""]
        return [name for name in names if ":" in name]

    @field_validator("name")
    @classmethod
    def _is_a_folder_name(cls, name: str) -> str:
        if not name.strip(". ") or any(character in name for character in "/\\:\0\n"):
            raise ValueError("must be usable as a folder's name: no slash, backslash or colon")
        return name


def section_at(path: Sequence[str | int]) -> type[Section]:
    """The schema of the section at a path."""
    schema: type[Section] = Config
    for key in path:
        annotation = schema.model_fields[str(key)].annotation
        options = get_args(annotation) if get_origin(annotation) is not None else (annotation,)
        schema = next(o for o in options if isinstance(o, type) and issubclass(o, Section))
    return schema
