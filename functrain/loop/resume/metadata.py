"""What a run's checkpoint says beside the state: one typed value, stored as JSON."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import torch

from functrain.checkpoint import CheckpointInfo
from functrain.data import Portion
from functrain.foundation.errors import CheckpointError
from functrain.loop.output.log_files import NO_MARK, LogMark
from functrain.step.state import TrainState

VERSION = 1  # of the layout; a newer one stands in the JSON, and without a number it is this
_VERSION_KEY = "metadata_version"


@dataclass(frozen=True, kw_only=True)
class RunMetadata:
    """What a run must know to go on, beside its state. The defaults are those of a run that begins.

    Attributes:
        environment: the fingerprint, see `functrain.loop.resume.environment`.
        settings: what else the bits depend on, see there.
        described: how model, objective, optimizer and samples are configured, see there.
        lr: the first learning rate of the fresh optimizer, of a stack each member's; None if it has none.
        records: how many log records belong to the state.
        log: tells whether they are intact.
        metric_names: what the slots of `epoch_totals` hold.
        batch_size: rows that the training batches are padded to; 0 before the first.
        stream: a stateful loader's own state.
        epoch: epochs completed; None if no run wrote the checkpoint.
        batch_idx, samples_seen: the state's, so that they can be read without it.
        bad_evaluations: evaluations in a row without an improvement, which early stopping counts.
        programs: digests of what the compiled steps compute, by what they are compiled for.
        preprocessor: of the training data, as `functrain.data.preprocessing` writes it; empty if there is none.
        own: what the caller of `fit` added. `functrain train` adds `config`, `signature` and `functrain`.
    """

    environment: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    described: Mapping[str, Any] = field(default_factory=dict)
    lr: float | list[float] | None = None
    records: int = 0
    log: LogMark = NO_MARK
    metric_names: tuple[str, ...] = ()
    batch_size: int = 0
    stream: Mapping[str, Any] = field(default_factory=dict)
    epoch: int | None = None
    batch_idx: int = 0
    samples_seen: int = 0
    bad_evaluations: int = 0
    programs: Mapping[str, str] = field(default_factory=dict)
    preprocessor: Mapping[str, Any] = field(default_factory=dict)
    own: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse what would be lost: a key of the caller's that the run writes itself."""
        taken = sorted(_NAMES & self.own.keys())
        if taken:
            raise ValueError(
                f"metadata must not have the keys {', '.join(map(repr, taken))}: a run writes them itself. Give yours "
                "other names"
            )

    @property
    def micro_batch(self) -> int | None:
        """Examples in a part of a batch, if batches are taken in parts."""
        found: int | None = self.settings.get("micro_batch")
        return found

    @property
    def tail(self) -> str | None:
        """How the last window of an epoch is made, if that is known."""
        found: str | None = self.settings.get("tail")
        return found

    @property
    def limits(self) -> dict[str, Any]:
        """The settings that chose which batches were used, as far as there were any."""
        names = ("limit_batches", "overfit_batches", "eval_limit_batches")
        return {name: self.settings[name] for name in names if self.settings.get(name) is not None}

    @property
    def portion(self) -> Portion:
        """Which of the training batches were used."""
        return Portion(self.limits.get("limit_batches"), self.limits.get("overfit_batches"))

    @property
    def compiled(self) -> str:
        """How steps ran: "eager", "backend/mode", or "" if that is not known."""
        found: str = self.environment.get("compile", "")
        return found

    @property
    def config(self) -> Any:
        """The configuration of `functrain train`, or what a caller of `fit` gave under this name; else None."""
        return self.own.get("config")

    @property
    def signature(self) -> Any:
        """What shows that this user's `functrain train` wrote the configuration; else None."""
        return self.own.get("signature")

    @property
    def functrain(self) -> str:
        """The release that wrote the checkpoint, if `functrain train` did."""
        return str(self.own.get("functrain", "unknown"))

    def at(self, state: TrainState, **changes: Any) -> Self:
        """The metadata of a state's checkpoint; `changes` are what the state does not tell."""
        return dataclasses.replace(
            self,
            epoch=state.epoch,
            batch_idx=state.batch_idx,
            samples_seen=state.samples_seen,
            bad_evaluations=_bad_evaluations(state),
            **changes,
        )

    def to_json(self) -> dict[str, Any]:
        """What JSON can hold.

        Raises:
            CheckpointError: the loader's state has something else in it.
        """
        left_out = {"log", "stream", "metric_names", *([] if self.preprocessor else ["preprocessor"])}
        values = {name: getattr(self, name) for name in _NAMES - left_out}
        plain = {name: dict(value) if isinstance(value, Mapping) else value for name, value in values.items()}
        lists = {"metric_names": list(self.metric_names), "stream": _to_json(self.stream)}
        return {**self.own, **plain, **lists, "log": dataclasses.asdict(self.log)}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """The value that `to_json` gave, or functrain 0.1 wrote. What no run wrote is all the caller's own.

        Raises:
            CheckpointError: a newer functrain wrote it, or it is not what a run writes.
        """
        version = values.get(_VERSION_KEY, VERSION)
        if version != VERSION:
            raise CheckpointError(
                f"the metadata have version {version}, this functrain reads version {VERSION}: read the checkpoint "
                "with the functrain that wrote it"
            )
        if "records" not in values:
            return cls(own={name: value for name, value in values.items() if name not in _NAMES})
        for name, form in _FORMS.items():
            if name in values and (not isinstance(values[name], form) or isinstance(values[name], bool)):
                raise CheckpointError(f"the metadata hold {name}={values[name]!r}, which no run writes")
        known = {name: values[name] for name in _NAMES & values.keys()}
        try:
            known |= {
                "metric_names": tuple(values.get("metric_names", ())),
                "stream": _from_json(values.get("stream", {})),
                "log": LogMark(**values.get("log", {})),
            }
        except (TypeError, ValueError, AttributeError, KeyError) as error:
            raise CheckpointError(f"the metadata are not those of a run: {error}") from error
        return cls(**known, own={name: value for name, value in values.items() if name not in _NAMES})


_NAMES = frozenset(each.name for each in dataclasses.fields(RunMetadata)) - {"own"}
_FORMS: Mapping[str, Any] = {
    **dict.fromkeys(("environment", "settings", "described", "log", "stream", "programs", "preprocessor"), Mapping),
    **dict.fromkeys(("records", "batch_size", "epoch", "batch_idx", "samples_seen", "bad_evaluations"), int),
    "metric_names": list,
    "lr": (int, float, list, type(None)),
}


def metadata_of(info: CheckpointInfo) -> RunMetadata:
    """What a checkpoint says beside the state.

    Raises:
        CheckpointError: a newer functrain wrote it, or it is not what a run writes.
    """
    try:
        return RunMetadata.from_json(info.metadata)
    except CheckpointError as error:
        raise CheckpointError(f"checkpoint {info.path}: {error}") from error


def _bad_evaluations(state: TrainState) -> int:
    """What early stopping counts; of a stack, of the member that is the furthest from its end."""
    members = state.members
    if members is None:
        return state.stopper.num_bad_epochs
    counts = [stopper.num_bad_epochs for stopper in members.stoppers]
    training = [count for count, trains in zip(counts, members.train()) if trains]
    return min(training) if training else max(counts)


def _to_json(value: Any) -> Any:
    """A loader's state as JSON: tensors (random generators keep theirs in one) become lists."""
    if isinstance(value, torch.Tensor):
        return {"__tensor__": value.tolist(), "dtype": str(value.dtype).removeprefix("torch.")}
    if isinstance(value, Mapping):
        return {str(key): _to_json(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_to_json(item) for item in value]
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise CheckpointError(
        f"the loader's state_dict() holds a {type(value).__name__}, which cannot be saved; it may hold numbers, "
        "strings, tensors, and lists and dictionaries of these"
    )


def _from_json(value: Any) -> Any:
    if isinstance(value, Mapping):
        if "__tensor__" in value:
            return torch.tensor(value["__tensor__"], dtype=getattr(torch, value["dtype"]))
        return {key: _from_json(item) for key, item in value.items()}
    return [_from_json(item) for item in value] if isinstance(value, list) else value
