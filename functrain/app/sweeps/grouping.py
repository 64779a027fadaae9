"""Which members of a sweep can be trained in one program (`functrain sweep --vectorize`), and why others cannot.

The planner's process asks this; it needs torch.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import optree
import torch

from functrain.app.config.build import build_loader, build_state, build_training_loader, run_length
from functrain.app.config.loading import Stage, plain
from functrain.app.config.resolving import WHOLE
from functrain.app.config.schema import Config
from functrain.app.sweeps.identity import flat
from functrain.data import Loader, glimpse
from functrain.foundation.trees import NAMESPACE
from functrain.objectives.supervised import takes_weight
from functrain.step import TrainState, stack

# What `functrain.stack` compares, and not the configuration: numbers in these sections may differ.
COMPARED = ("model", "objective", "optimizer")
MOST_NAMES = 3  # of keys in a reason


class Sharing(NamedTuple):
    """Whether a member shares a program.

    Attributes:
        program: the same for all that share one; "" for a member that is trained alone.
        why: why it is trained alone, or apart from the first program; "" for the first one.
    """

    program: str
    why: str = ""


@dataclass
class _Group:
    """Members that fit together.

    Attributes:
        base: what they have in common.
        first: the state of the first one.
        numbers: of the members.
        why: the reason why the first one is in no earlier group.
    """

    base: Mapping[str, Any]
    first: TrainState
    why: str
    numbers: list[int] = field(default_factory=list)


def sharing(members: Sequence[Sequence[Stage]]) -> list[Sharing]:
    """Which members share a program.

    Args:
        members: the stages of each.
    """
    found: list[Sharing] = [Sharing("", refusal(stages)) for stages in members]
    groups: list[_Group] = []
    loaders = _Loaders()
    for number, (stages, known) in enumerate(zip(members, found)):
        if not known.why:
            _place(number, stages[0].config, groups, loaders)
    for name, group in enumerate(groups):
        alone = len(group.numbers) == 1
        for number in group.numbers:
            found[number] = Sharing("" if alone else str(name), group.why or "no other member fits" * alone)
    return found


def refusal(stages: Sequence[Stage]) -> str:
    """What keeps a member out of every program; "" if nothing does."""
    if stages[0].name != WHOLE:
        return "it trains several stages"
    config = stages[0].config
    training, distributed, logging = config.training, config.distributed, config.logging
    stopping, mesh = training.early_stopping, distributed.mesh
    has = {
        "training.members": training.members is not None,
        "training.micro_batch": training.micro_batch is not None,
        "training.early_stopping.restore_best": stopping is not None and stopping.restore_best,
        "init_from": config.init_from is not None,
        "callbacks": bool(config.callbacks),
        "logging.wandb": logging.wandb is not None,
        "logging.mlflow": logging.mlflow is not None,
        "distributed.strategy": distributed.strategy != "ddp",
        "distributed.offload_optimizer": distributed.offload_optimizer is not None,
        "distributed.sync_batchnorm": distributed.sync_batchnorm,
        "distributed.reduction": distributed.reduction != "fast",
        "distributed.mesh": mesh is not None and (mesh.dp or 1) > 1,
    }
    return next((f"{name} is set, which members of a program cannot have" for name, given in has.items() if given), "")


def _place(number: int, config: Config, groups: list[_Group], loaders: "_Loaders") -> None:
    """Put a member into the first group that it fits, or into a new one."""
    state = build_state(config, run_length(config, loaders.of(config)[0]))
    base = _base(config, loaders, weighted=takes_weight(state.recipe.objective))
    why = ""
    for group in groups:
        apart = _differences(group.base, base) or _apart(group.first, state, config.training.vectorize)
        if not apart:
            group.numbers.append(number)
            return
        why = why or apart
    groups.append(_Group(base, state, why, [number]))


def _differences(one: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    names = [name for name in {**one, **other} if one.get(name) != other.get(name)]
    more = len(names) - MOST_NAMES
    listed = ", ".join(names[:MOST_NAMES]) + (f" and {more} more" if more > 0 else "")
    return f"it differs from the first member in {listed}" if names else ""


def _apart(one: TrainState, other: TrainState, vectorize: bool | None) -> str:
    """Why two states cannot be one; "" if they can."""
    try:
        stack([one, other], vectorize=vectorize is not False)
    except ValueError as error:
        text = str(error).partition(". vectorize=False")[0]
        return text.removeprefix("these members cannot be vectorised: ")
    return ""


def _base(config: Config, loaders: "_Loaders", *, weighted: bool) -> dict[str, Any]:
    """What all members of a program have in common.

    Args:
        config: of a member.
        loaders: likewise.
        weighted: its objective takes weights, so that a last batch is filled up.
    """
    values = plain(config)
    own = set(config.data.parameters) if config.training.overfit_batches is None else set()
    kept = {name: value for name, value in values.items() if name not in ("name", "seed", *COMPARED)}
    kept["data"] = {name: value for name, value in values["data"].items() if name not in own}
    return {**flat(kept), **loaders.forms(config, weighted=weighted)}


class _Loaders:
    """The loaders of data sections, each built once."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[Loader, Loader | None]] = {}

    def of(self, config: Config) -> tuple[Loader, Loader | None]:
        """Those of training and of validation."""
        section = data_section(config)
        if section not in self._known:
            self._known[section] = build_training_loader(config), build_loader(config, "val")
        return self._known[section]

    def forms(self, config: Config, *, weighted: bool) -> dict[str, Any]:
        """What the batches of all members of a program have in common; arguments as of `_base`."""
        found: dict[str, Any] = {}
        for split, loader in zip(("train", "val"), self.of(config)):
            if loader is None:
                continue
            found[f"the number of batches of {split}"] = len(loader)
            found[f"the form of the samples of {split}"] = _form(glimpse(loader.stream(0), 0))
            if not weighted:
                found[f"the number of examples of {split}"] = len(loader.dataset)
        return found


def data_section(config: Config) -> str:
    """What decides which loaders a configuration has."""
    values = plain(config)
    return json.dumps([values["data"], values["transforms"], config.code, values["distributed"]], sort_keys=True)


def _form(batch: Any) -> list[str]:
    """Shapes without the number of rows, and types."""
    leaves = optree.tree_leaves(batch, namespace=NAMESPACE)
    return [
        f"{each.dtype} {list(each.shape[1:])}" if isinstance(each, torch.Tensor) else type(each).__name__
        for each in leaves
    ]
