"""The typed schema of a configuration.

A section with a `name` (model, data, objective, optimizer, schedule) also takes the parameters of the function
that the name stands for; `functrain.app.config.loading` checks them against its signature.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import PrivateAttr, WithJsonSchema, WrapValidator, field_validator, model_validator

from functrain.app.config.distributed_section import DistributedConfig
from functrain.app.config.keys import Named, Section, item_in, key, section_in
from functrain.app.config.run_sections import (
    CheckpointConfig,
    CompileConfig,
    EvaluationConfig,
    LoggingConfig,
    TrainingConfig,
)
from functrain.app.config.sweep_keys import SweepConfig
from functrain.data.lengths import check_lengths


class ModelConfig(Named):
    """The network: a class or function that returns a `torch.nn.Module`, with its parameters as further keys."""


def _is_pad_to(value: Any, _: Any) -> Any:
    """A check with one message."""
    if value is not None:
        check_lengths(value)
    return value


PadTo = Annotated[
    int | list[int],
    WrapValidator(_is_pad_to),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "integer", "minimum": 1},
                {"type": "array", "items": {"type": "integer", "minimum": 1}, "minItems": 1},
            ]
        }
    ),
]


class DataConfig(Named):
    """The data: a function `(split, **parameters)` that returns a map-style data set for "train", "val" and "test".

    It returns None for a split that does not exist. The keys but `name` are those of `functrain.data.Loader`.
    """

    batch_size: int = key(64, "examples in a micro-batch of training.", ge=1)
    eval_batch_size: int | None = key(None, "examples in a batch of evaluation; default: `batch_size`.", ge=1)
    balanced: bool = key(
        False,
        "draw training examples so that all classes are equally frequent, with replacement. The classes are the data "
        "set's `targets`, or the second of its arrays.",
    )
    collate_fn: str | None = key(
        None, 'the function that puts samples together, as "package.module:function"; default: torch\'s.'
    )
    pad_to: PadTo | None = key(
        None,
        "pad sequences of unequal lengths to a multiple of it, or to the next of a list of lengths; default: do not.",
    )
    group_by_length: bool = key(
        False,
        "put training examples of similar length into a batch, which needs less padding. The lengths are the data "
        "set's `lengths`.",
    )
    drop_last: bool = key(False, "leave out the last training batch of an epoch if it is not full.")
    num_workers: int = key(0, "processes that read examples.", bits=False, ge=0)
    pin_memory: bool = key(False, "read batches into pinned memory, which a GPU copies faster.", bits=False)
    persistent_workers: bool = key(False, "keep these processes from epoch to epoch.", bits=False)
    prefetch_factor: int | None = key(
        None, "batches that each process reads ahead; default: torch's.", bits=False, ge=1
    )

    @field_validator("collate_fn")
    @classmethod
    def _is_users_own(cls, name: str | None) -> str | None:
        if name is not None and ":" not in name:
            raise ValueError("must be a function of your own, as package.module:function")
        return name


LOSSES = ("loss", "loss_fn")  # parameters of an objective that may name a function
TERMS = "terms"  # the parameter whose values are mappings, each with such a parameter


class ObjectiveConfig(Named):
    """The objective: an objective `(model, batch) -> Loss` itself, or a function of parameters that returns one.

    Its parameters `loss` and `loss_fn`, and those of its terms, may name a function of your own, as
    "package.module:function".
    """

    @property
    def own_losses(self) -> dict[tuple[str, ...], str]:
        """The names of functions, by the path of the parameter."""
        return dict(own_losses(self.parameters))


def own_losses(parameters: Mapping[str, Any]) -> Iterator[tuple[tuple[str, ...], str]]:
    """The functions that an objective's parameters name: the path of each parameter, and the name.

    Example:
        >>> dict(own_losses({"terms": {"main": {"loss": "my_losses:dice"}, "other": {"loss": "huber"}}}))
        {('terms', 'main', 'loss'): 'my_losses:dice'}
    """
    for parameter in LOSSES:
        loss = parameters.get(parameter)
        if isinstance(loss, str) and ":" in loss:
            yield (parameter,), loss
    terms = parameters.get(TERMS)
    if isinstance(terms, Mapping):
        for name, term in terms.items():
            if isinstance(term, Mapping):
                yield from (((TERMS, name, *path), loss) for path, loss in own_losses(term))


class ScheduleConfig(Named):
    """The schedule of the learning rate. If it has a parameter `total_steps`, that defaults to the run's length."""

    warmup_steps: int = key(0, "updates in which the rate rises from 0.", ge=0)
    warmup_fraction: float | None = key(
        None, "the part of the run in which the rate rises, instead; rounded down to updates.", ge=0, lt=1
    )
    per: Literal["update", "epoch"] = key(
        "update",
        'what the schedule counts. With "epoch" all lengths are epochs, and the rate changes at their ends only; but '
        "`warmup_steps` are always updates.",
    )

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
    """Sharpness-aware minimisation, which wraps the optimizer: the arguments of `optim.sam`."""

    rho: float = key(0.05, "the radius of the neighbourhood.", gt=0)
    adaptive: bool = key(False, "measure distances relative to each parameter (ASAM).")


class OptimizerConfig(Named):
    """The optimizer, by name; the keys that are not listed are its parameters."""

    lr: float = key(..., "the learning rate; with a schedule, the highest.", ge=0)
    weight_decay_mask: Literal["all", "no_decay_1d"] = key(
        "all", "which parameters decay; no_decay_1d spares biases and the parameters of norms."
    )
    schedule: ScheduleConfig | None = key(None, "the schedule of the learning rate. null keeps the rate constant.")
    sam: SamConfig | None = key(None, "sharpness-aware minimisation, which wraps the optimizer.")


class MetricConfig(Named):
    """A metric, measured beside the objective's own; a name alone is short for `{name: ...}`."""

    label: str | None = key(
        None, "the name of its records; default: its own. Two metrics need two names.", bits=False, min_length=1
    )


class TransformConfig(Named):
    """A transform of the training data; a name alone is short for `{name: ...}`."""


class CallbackConfig(Named):
    """A callback: a function marked with `functrain.on`, or a function of parameters that returns one."""


class InitFromConfig(Section):
    """Parameters and buffers to begin with: the arguments of `functrain.checkpoint.init_from`."""

    path: str | None = key(None, "a file, a checkpoint, or a run; relative to the configuration file.", min_length=1)
    stage: str | None = key(None, "an earlier stage of this configuration, instead of a path.", min_length=1)
    which: Literal["last", "best"] = key("last", "the checkpoint of the run or stage.")
    new: list[str] = key([], 'parameters that may keep their initial value: names, or patterns such as "head.*".')
    dropped: list[str] = key([], "tensors of the file that are left out, also where they would fit, likewise.")
    prefix: str = key("", "of the model's names in the file, such as \"model.\" in Lightning's.")

    @model_validator(mode="after")
    def _has_one_source(self) -> "InitFromConfig":
        if (self.path is None) == (self.stage is None):
            way_out = ": set path or stage" if self.path is None else ", not both: set path or stage to null"
            raise ValueError(f"begins with a path (a file, checkpoint or run) or with an earlier stage{way_out}")
        return self


def _is_folders(value: Any, _: Any) -> Any:
    """A check with one message; pydantic has one for each type of a union."""
    if (
        value is None
        or isinstance(value, str)
        or (isinstance(value, list) and value and all(isinstance(each, str) for each in value))
    ):
        return value
    raise ValueError("must be a folder, or a list of folders")


Folders = Annotated[
    str | list[str],
    WrapValidator(_is_folders),
    WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}, "minItems": 1}]}),
]


class Config(Section):
    """A run."""

    name: str = key(..., "the run's name, and its directory's under `runs/`.", bits=False)
    stage: str | None = key(
        None,
        "the stage that this is, of a configuration with `stages`, which sets it. The run's directory is then "
        "`runs/<name>/<stage>`.",
        bits=False,
    )
    seed: int = key(0, "of everything random: initial parameters, order of the data, dropout.")
    code: Folders | None = key(
        None,
        'the folder, or the folders, that "package.module:function" is imported from, besides the current directory; '
        "default: the configuration file's own. A relative one is relative to the file that says it.",
        bits=False,
    )
    model: ModelConfig
    data: DataConfig
    objective: ObjectiveConfig
    optimizer: OptimizerConfig
    training: TrainingConfig
    compile: CompileConfig = CompileConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    logging: LoggingConfig = LoggingConfig()
    distributed: DistributedConfig = DistributedConfig()
    transforms: list[TransformConfig] = key(
        [],
        "random changes of the training data, one after another: a name, `{name: ...}` with arguments, or "
        "`{name: package.module:function}`, a function of (sample, key) or (batch, key), or one that returns it; see "
        "docs/data.md.",
    )
    metrics: list[MetricConfig] = key(
        [],
        "what is measured beside the objective's own metrics: a name, `{name: ...}` with arguments, or "
        "`{name: package.module:function}`, a function that returns a metric; see docs/metrics.md.",
    )
    init_from: InitFromConfig | None = key(None, "a file, run or stage whose parameters a fresh run begins with.")
    freeze: list[str] = key(
        [],
        'parameters that are not trained: names, or patterns such as "encoder.*". They have no optimizer state, no '
        "update and no weight decay, and keep every bit. Buffers, such as BatchNorm's statistics, still change.",
    )
    callbacks: list[CallbackConfig] = key(
        [],
        "functions that training calls, each as `{name: package.module:function}` with its parameters: one marked with "
        "`functrain.on`, or one of parameters that returns such a one.",
    )
    # A run does not record it: what a member is does not depend on the sweep that trains it.
    sweep: SweepConfig | None = key(None, "what `functrain sweep` searches.", bits=False, exclude=True)

    _code_folders: tuple[Path, ...] | None = PrivateAttr(default=None)

    @property
    def code_paths(self) -> list[Path]:
        """The folders of `code`."""
        folders = [self.code] if isinstance(self.code, str) else self.code or []
        return [Path(folder) for folder in folders]

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
        sections += [*self.transforms, *self.metrics, *self.callbacks]
        names = [section.name for section in sections]
        names += [self.data.collate_fn or "", *self.objective.own_losses.values()]
        return [name for name in names if ":" in name]

    @field_validator("compile", "evaluation", "checkpoint", "logging", "distributed", mode="before")
    @classmethod
    def _empty_is_default(cls, section: Any) -> Any:
        """A section whose keys are all commented out is null in YAML."""
        return {} if section is None else section

    @field_validator("transforms", "metrics", mode="before")
    @classmethod
    def _name_is_section(cls, items: Any) -> Any:
        if not isinstance(items, list):
            return items
        return [{"name": each} if isinstance(each, str) else each for each in items]

    @model_validator(mode="after")
    def _can_be_cut(self) -> Self:
        """Whether an exact reduction can add up the parts of each batch in a binary tree."""
        parts, size, accumulate = self.distributed.parts, self.data.batch_size, self.training.accumulate
        if size % parts:
            raise ValueError(
                f"data.batch_size: a batch of {size} examples cannot be cut in {parts} equal parts "
                f"(distributed.shards, of reduction: exact): choose a multiple of {parts}, such as "
                f"{-(-size // parts) * parts}, or other shards"
            )
        if self.distributed.reduction == "exact" and accumulate & (accumulate - 1):
            raise ValueError(
                f"training.accumulate: under distributed.reduction: exact it must be a power of two, got {accumulate}: "
                f"choose {1 << (accumulate.bit_length() - 1)} or {1 << accumulate.bit_length()}, or reduction: fast"
            )
        return self

    @field_validator("name", "stage")
    @classmethod
    def _is_a_folder_name(cls, name: str | None) -> str | None:
        if name is not None and (not name.strip(". ") or any(character in name for character in "/\\:\0\n")):
            raise ValueError("must be usable as a folder's name: no slash, backslash or colon")
        return name


def section_at(path: Sequence[str | int]) -> type[Section]:
    """The schema of the section at a path."""
    schema: type[Section] = Config
    for name in path:
        if not isinstance(name, int):  # an item of a list
            annotation = schema.model_fields[name].annotation
            found = section_in(annotation) or item_in(annotation)
            assert found is not None
            schema = found
    return schema
