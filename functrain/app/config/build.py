"""Build the objects that a configuration describes."""

import copy
import functools
import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from functrain import optim
from functrain.app.config.cutting import in_parts
from functrain.app.config.keys import Section
from functrain.app.config.parameters import converted, is_objective, signature, takes, transforms_what
from functrain.app.config.registry import lookup
from functrain.app.config.run_sections import RULES, TrainingConfig
from functrain.app.config.schema import Config, Named
from functrain.data import Compose, Loader, Transformed, balanced_weights
from functrain.data.length_groups import lengths_of
from functrain.data.sampling import labels_of
from functrain.data.transforms import BatchTransform
from functrain.foundation.errors import ConfigError
from functrain.foundation.keys import fold_in, root_key, torch_seed
from functrain.foundation.threads import use_threads
from functrain.loop.batches import windows_in
from functrain.loop.events import Callback
from functrain.loop.settings import declared
from functrain.metrics import Measures, Metric
from functrain.metrics.measuring import as_metric
from functrain.objectives import LearnedWeights, learned_terms
from functrain.optim import Optimizer, Schedule, no_decay_1d, schedules
from functrain.step import LossScaling, TrainState, init_state
from functrain.step.devices import devices, usable_device

SPLITS = ("train", "val", "test")


def build_loader(config: Config, split: str, *, training: bool = False) -> Loader | None:
    """The loader of a split; None if the data set has no such split.

    Args:
        config: the run's.
        split: "train", "val" or "test".
        training: shuffle, and use the batch size of training; else keep the order, and use that of evaluation.

    Raises:
        ConfigError: if the data set refuses its parameters.
        DataError: if the split is empty.
    """
    config = in_parts(config)
    data = config.data
    function, parameters = _function(config, "data", data)
    dataset = _call("data", data, functools.partial(function, split, **parameters))
    if dataset is None:
        return None
    size = data.batch_size if training else data.eval_batch_size or data.batch_size
    transforms = _build_transforms(config) if training else []
    of_batches = [each for each in transforms if isinstance(each, BatchTransform)]
    of_samples = [each for each in transforms if not isinstance(each, BatchTransform)]
    try:
        return Loader(
            Transformed(dataset, Compose(*of_samples)) if of_samples else dataset,
            size,
            shuffle=training,
            sampling_weights=_balanced(config, dataset) if training and data.balanced else None,
            lengths=lengths_of(dataset) if training and data.group_by_length else None,
            pad_to=data.pad_to,
            batch_transform=Compose(*of_batches) if of_batches else None,
            drop_last=training and data.drop_last,
            collate_fn=None if data.collate_fn is None else lookup("collate_fn", data.collate_fn, config.code_folders),
            num_workers=data.num_workers,
            pin_memory=data.pin_memory,
            persistent_workers=data.persistent_workers,
            prefetch_factor=data.prefetch_factor,
        )
    except (ValueError, TypeError) as error:
        raise ConfigError(f"data ({data.name}, split {split!r}): {error}") from error


def _build_transforms(config: Config) -> list[Callable[[Any, int], Any]]:
    """The transforms of `transforms`; those of batches are `BatchTransform`s.

    Raises:
        ConfigError: if a function refuses its parameters, or makes no transform.
    """
    found: list[Callable[[Any, int], Any]] = []
    for index, section in enumerate(config.transforms):
        function, parameters = _function(config, "transform", section)
        what = transforms_what(function)
        if what is None:
            made = _call(f"transforms.{index}", section, functools.partial(function, **parameters))
        else:
            made = functools.partial(function, **parameters) if parameters else function
        if not callable(made):
            raise ConfigError(
                f"transforms.{index} ({section.name}): a transform is a function of (sample, key) or (batch, key), or "
                f"a function that returns one; got {type(made).__name__}"
            )
        own = (what or transforms_what(made)) == "batch" and not isinstance(made, BatchTransform)
        found.append(_OfBatches(made) if own else made)
    return found


class _OfBatches(BatchTransform):
    """A function of the user's own, of a batch and a key."""

    def __init__(self, function: Callable[[Any, int], Any]) -> None:
        self.function = function

    def __call__(self, batch: Any, key: int) -> Any:
        """What the function gives."""
        return self.function(batch, key)


def _balanced(config: Config, dataset: Any) -> Tensor:
    """Sampling weights by class. A label that the objective ignores is not a class."""
    return balanced_weights(labels_of(dataset), ignore_index=config.objective.parameters.get("ignore_index", -100))


def build_training_loader(config: Config) -> Loader:
    """The loader of the split "train".

    Raises:
        ConfigError: if there is none.
    """
    loader = build_loader(config, "train", training=True)
    if loader is None:
        raise ConfigError(f"data ({config.data.name}): the data set has no split 'train'")
    return loader


def set_threads(config: Config) -> None:
    """Set the number of threads to `training.threads`, if that is given.

    Raises:
        ConfigError: if the machine has fewer.
    """
    threads = config.training.threads
    if threads is not None:
        try:
            use_threads(threads, "training.threads")
        except ValueError as error:
            raise ConfigError(str(error)) from error


@dataclass(frozen=True)
class Length:
    """How long a run is.

    Attributes:
        updates_per_epoch: optimizer updates.
        updates: in all.
    """

    updates_per_epoch: int
    updates: int

    @property
    def epochs(self) -> int:
        """The last one may be short."""
        return -(-self.updates // self.updates_per_epoch)


def micro_batches(config: Config, loader: Loader) -> int:
    """Micro-batches of an epoch."""
    training = in_parts(config).training
    length = training.overfit_batches or len(loader)
    return windows_in(length, training.accumulate, training.tail, training.limit_batches)


def run_length(config: Config, loader: Loader) -> Length:
    """The run's length in optimizer updates."""
    training = in_parts(config).training
    per_epoch = -(-micro_batches(config, loader) // training.accumulate)
    ends = [end for end in (training.steps, training.epochs and training.epochs * per_epoch) if end is not None]
    return Length(per_epoch, min(ends))


def build_state(config: Config, length: Length | None) -> TrainState:
    """The state before the first step.

    Args:
        config: the run's.
        length: the run's, for a schedule that does not give its own. With None the learning rate has no schedule,
            for a state that will not be trained.

    Raises:
        ConfigError: if a function refuses its parameters, or there is no such device.
    """
    training = in_parts(config).training
    try:
        if training.device == "meta":
            raise ValueError(f"training.device must hold numbers ({', '.join(devices())}); 'meta' has shapes only")
        device = usable_device(training.device, "training.device")
    except ValueError as error:
        raise ConfigError(str(error)) from error
    function, parameters = _function(config, "model", config.model)
    with torch_seed(fold_in(root_key(config.seed), "model")):  # initial parameters are a function of the seed
        model = _call("model", config.model, functools.partial(function, **parameters))
    try:
        objective = _build_objective(config)
        if learned := learned_terms(objective):
            model = LearnedWeights(model, learned)
        if config.distributed.sync_batchnorm:
            model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
        return init_state(
            model,
            objective,
            _build_optimizer(config, length),
            seed=config.seed,
            precision=training.precision,
            accumulate=training.accumulate,
            clip_norm=training.clip_norm,
            clip_value=training.clip_value,
            ema=_build_average(config),
            loss_scale=_loss_scale(training),
            statistics=training.statistics,
            activation_checkpointing=training.activation_checkpointing,
            activations=training.activations,
            refuse_nonfinite=training.refuse_nonfinite,
            metrics=build_metrics(config),
            freeze=config.freeze,
            device=device,
        )
    except (ValueError, TypeError) as error:
        raise ConfigError(str(error)) from error


def _loss_scale(training: TrainingConfig) -> float | LossScaling | None:
    if training.loss_scaling is None:
        return training.loss_scale
    return LossScaling(**training.loss_scaling.model_dump())


@dataclass(frozen=True)
class Rules:
    """What the watched metric decides."""

    plateau: optim.Plateau | None
    early_stopping: optim.EarlyStopping | None


def build_rules(config: Config) -> Rules:
    """The rules of `training.plateau` and `training.early_stopping`, in the mode of `evaluation.watch_mode`."""
    training = config.training
    mode = config.evaluation.watch_mode
    reduces, stops = training.plateau, training.early_stopping
    return Rules(
        None if reduces is None else optim.plateau(mode=mode, **reduces.model_dump()),
        None if stops is None else optim.early_stopping(mode=mode, **stops.model_dump()),
    )


def build_callbacks(config: Config) -> list[Callback]:
    """The functions of `callbacks`.

    Raises:
        ConfigError: if one is no callback.
    """
    found: list[Callback] = []
    for index, section in enumerate(config.callbacks):
        function, parameters = _function(config, "callback", section)
        if not hasattr(function, "scopes"):
            function = _call(f"callbacks.{index}", section, functools.partial(function, **parameters))
        if not callable(function) or not hasattr(function, "scopes"):
            raise ConfigError(
                f"callbacks.{index} ({section.name}): a callback is a function that names its scopes, as with "
                f"@functrain.on('after_epoch'); got {type(function).__name__}"
            )
        found.append(function)
    return found


def build_metrics(config: Config) -> Measures | None:
    """The metrics of `metrics`.

    Raises:
        ConfigError: if a function refuses its parameters, returns no metric, or two metrics have one name.
    """
    found = []
    for index, section in enumerate(config.metrics):
        function, parameters = _function(config, "metric", section)
        made = _call(f"metrics.{index}", section, functools.partial(function, **parameters))
        own = None if isinstance(made, Metric) else section.name.rpartition(":")[2].rpartition(".")[2]
        found.append(_call(f"metrics.{index}", section, functools.partial(as_metric, made, section.label or own)))
    try:
        return Measures(tuple(found)) if found else None
    except ValueError as error:
        raise ConfigError(f"metrics: {error}") from error


def fit_settings(config: Config) -> dict[str, Any]:
    """The arguments of `fit` that a configuration has as plain values; `build_rules` makes the others."""
    config = in_parts(config)
    found = {
        each.name: getattr(getattr(config, each.section), each.key)
        for each in declared()
        if each.key is not None and each.name not in RULES
    }
    return {name: value.model_dump() if isinstance(value, Section) else value for name, value in found.items()}


def _build_average(config: Config) -> optim.Ema | None:
    training = config.training
    if training.ema_decay is None:
        return None
    return optim.ema(
        training.ema_decay,
        warmup=training.ema_warmup,
        every=training.ema_every,
        average_buffers=training.ema_average_buffers,
    )


def _build_objective(config: Config) -> Callable[[Any, Any], Any]:
    function, parameters = _function(config, "objective", config.objective)
    own = config.objective.own_losses
    parameters = copy.deepcopy(parameters) if own else parameters
    for path, name in own.items():
        *sections, key = path
        functools.reduce(operator.getitem, sections, parameters)[key] = lookup("loss", name, config.code_folders)
    if is_objective("objective", function):
        return functools.partial(function, **parameters) if parameters else function
    return _call("objective", config.objective, functools.partial(function, **parameters))


def _build_optimizer(config: Config, length: Length | None) -> Optimizer:
    chosen = config.optimizer
    function, parameters = _function(config, "optimizer", chosen)
    if chosen.weight_decay_mask != "all":
        if not takes(function, "weight_decay_mask"):
            raise ConfigError(
                f"optimizer.weight_decay_mask: {chosen.name} has no parameter weight_decay_mask; leave it out"
            )
        parameters["weight_decay_mask"] = no_decay_1d
    lr = chosen.lr if length is None else _build_schedule(config, length)
    optimizer = _call("optimizer", chosen, functools.partial(function, lr=lr, **parameters))
    if not isinstance(optimizer, optim.Optimizer):
        raise ConfigError(
            f"optimizer ({chosen.name}): the function returned {type(optimizer).__name__}, not a "
            "functrain.optim.Optimizer"
        )
    return optimizer if chosen.sam is None else optim.sam(optimizer, **chosen.sam.model_dump())


def _build_schedule(config: Config, length: Length) -> float | Schedule:
    """The learning rate: a number without a schedule."""
    chosen, lr = config.optimizer.schedule, config.optimizer.lr
    if chosen is None:
        return lr
    warmup_steps = chosen.warmup_steps
    if chosen.warmup_fraction is not None:
        warmup_steps = int(chosen.warmup_fraction * length.updates)
    if warmup_steps >= length.updates:
        raise ConfigError(
            f"optimizer.schedule.warmup_steps: {warmup_steps} updates of warm-up do not fit into a run of "
            f"{length.updates} ({length.updates_per_epoch} an epoch, with data.batch_size={config.data.batch_size}); "
            "give fewer (optimizer.schedule.warmup_steps=0 for none), or train longer"
        )
    function, parameters = _function(config, "schedule", chosen)
    by_epoch = chosen.per == "epoch"
    warms_up_itself = takes(function, "warmup_steps") and not by_epoch
    if warms_up_itself:
        parameters["warmup_steps"] = warmup_steps
    if takes(function, "total_steps"):
        parameters.setdefault("total_steps", length.epochs if by_epoch else length.updates)
    schedule = _call("optimizer.schedule", chosen, functools.partial(function, lr, **parameters))
    if by_epoch:
        return schedules.per_epoch(schedule, length.updates_per_epoch, warmup_steps=warmup_steps)
    return schedule if warms_up_itself else schedules.warmup(schedule, warmup_steps)


def _function(config: Config, kind: str, section: Named) -> tuple[Callable[..., Any], dict[str, Any]]:
    """The function that a section names, and its parameters, converted to the types of the function's signature."""
    function = lookup(kind, section.name, config.code_folders)
    expected = signature(kind, function).types
    given = section.parameters
    return function, {
        key: converted(value, expected[key]) if key in expected else value for key, value in given.items()
    }


def _call(path: str, section: Named, function: Callable[[], Any]) -> Any:
    """Call a named function. A ValueError or TypeError of its own becomes a `ConfigError` that names the section."""
    try:
        return function()
    except (ValueError, TypeError) as error:
        raise ConfigError(f"{path} ({section.name}): {error}") from error
