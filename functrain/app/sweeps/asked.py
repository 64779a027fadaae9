"""What a sweep is asked to do: the arguments of the command, and the section `sweep` of the configuration."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from functrain.app.config import sweep_section
from functrain.app.config.checking import is_surely_sound_sweep
from functrain.app.config.resolving import resolve_stages
from functrain.app.config.source import Source
from functrain.app.runs.compare import PREFIXES
from functrain.app.sweeps.halving import Halving
from functrain.app.sweeps.plan import Changed, Criterion
from functrain.app.sweeps.points import Point
from functrain.app.sweeps.space import Space, read_space
from functrain.foundation.errors import ConfigError


@dataclass(frozen=True)
class Arguments:
    """The arguments of the command; None where one is not given.

    Attributes:
        config: the configuration file.
        overrides: of all members, and the values that are searched.
        folder: the sweep's; None: `runs/<name>-sweep`.
        stage: members train this stage of the configuration.
        all_stages: they train all of its stages.
        jobs: processes at once.
        list_file: a file that lists members.
        random: members to draw.
        optuna: members that Optuna's sampler suggests.
        search_seed: of both.
        metric, mode: by which members are compared.
        asha, min_epochs, factor: successive halving.
        changed: what becomes of members that have begun as something else.
        fail_fast: the first failure ends the sweep.
        vectorize: members that differ in numbers are trained in one program.
        trust: `--trust` was given.
        command: as it was typed, to be typed again.
    """

    config: Path
    overrides: Sequence[str]
    folder: Path | None = None
    stage: str | None = None
    all_stages: bool | None = None
    jobs: int | None = None
    list_file: Path | None = None
    random: int | None = None
    optuna: int | None = None
    search_seed: int | None = None
    metric: str | None = None
    mode: str | None = None
    asha: bool | None = None
    min_epochs: int | None = None
    factor: int | None = None
    changed: Changed | None = None
    fail_fast: bool | None = None
    vectorize: bool | None = None
    trust: bool = False
    command: Sequence[str] = ()


@dataclass(frozen=True)
class Sweep:
    """What arguments and section come to.

    Attributes:
        config, folder, changed, trust, command: as of `Arguments`.
        name: of the configuration.
        space: what is searched.
        stage: that members train; None for a configuration without stages, or all of them.
        all_stages: members train all stages.
        jobs: processes at once.
        listed: the members that the section lists.
        list_file, random, optuna, search_seed: as of `Arguments`.
        criterion: by which members are compared; None: what their configurations watch.
        halving: prune members on the way.
        fail_fast: the first failure ends the sweep.
        vectorize: train members that differ in numbers in one program.
    """

    config: Path
    name: str
    space: Space
    folder: Path | None
    stage: str | None
    all_stages: bool
    jobs: int
    listed: Sequence[Point]
    list_file: Path | None
    random: int | None
    optuna: int | None
    search_seed: int
    criterion: Criterion | None
    halving: Halving | None
    changed: Changed | None
    fail_fast: bool
    vectorize: bool
    trust: bool
    command: Sequence[str]


def asked(given: Arguments) -> Sweep:
    """What the command line and the configuration ask for; the command line wins.

    Raises:
        ConfigError: the configuration cannot be read, or something is wrong with its section or with the arguments.
    """
    typed = read_space(given.overrides)
    source = _source(given.config, typed)
    section = sweep_section.sweep_section(source)
    listed, drawn = _search(given, section, source)
    stage, all_stages = _stages(given, section)
    name = source.values.get("name")
    return Sweep(
        config=given.config,
        name=name if isinstance(name, str) and name and not set(name) & set("/\\:\0\n") else given.config.stem,
        space=_joined(typed, source),
        folder=given.folder,
        stage=stage,
        all_stages=all_stages,
        jobs=_first(given.jobs, section.get("jobs"), 1),
        listed=listed,
        list_file=given.list_file,
        random=drawn.get("random"),
        optuna=drawn.get("optuna"),
        search_seed=_first(given.search_seed, section.get("search_seed"), 0),
        criterion=_criterion(given, section),
        halving=_halving(given, section),
        changed=given.changed,
        fail_fast=_first(given.fail_fast, section.get("fail_fast"), False),
        vectorize=_first(given.vectorize, section.get("vectorize"), False),
        trust=given.trust,
        command=given.command,
    )


def _first(*values: Any) -> Any:
    """The first value that is given."""
    return next(value for value in values if value is not None)


def _source(config: Path, typed: Space) -> Source:
    """The configuration, whose section `sweep` is sound. What is wrong with the rest is said by the planner.

    Raises:
        ConfigError: the section is not.
    """
    for axis in typed.keys:
        if axis.dotted.split(".")[0] == sweep_section.KEY:
            raise ConfigError(
                f"{axis.dotted} is no key of a member; write optimizer.lr=1e-3,3e-4 to search optimizer.lr"
            )
    source = next(iter(resolve_stages(config, typed.fixed).values()))
    if not is_surely_sound_sweep(source):
        from functrain.app.config.loading import check_registered

        check_registered(config, typed.fixed)
    return source


def _joined(typed: Space, source: Source) -> Space:
    """The axes of the section and those of the command line, which take the place of the section's."""
    axes = {axis.dotted: axis for axis in sweep_section.axes(source)}
    axes |= {axis.dotted: axis for axis in typed.keys}
    return dataclasses.replace(typed, keys=tuple(axis for name, axis in axes.items() if name not in typed.fixed_names))


def _search(given: Arguments, section: Mapping[str, Any], source: Source) -> tuple[Sequence[Point], dict[str, int]]:
    """The members that the section lists, and how many members a sampler draws, by its name."""
    kinds = {"--list": given.list_file, "--random": given.random, "--optuna": given.optuna}
    names = [name for name, value in kinds.items() if value is not None]
    if len(names) > 1:
        raise ConfigError(f"{' and '.join(names)} are different searches: give one of them")
    if names:
        drawn = {"random": given.random, "optuna": given.optuna}
        return (), {name: count for name, count in drawn.items() if count is not None}
    if section.get("sampler") in sweep_section.SAMPLERS:
        return (), {section["sampler"]: section["count"]}
    return sweep_section.members(source), {}


def _stages(given: Arguments, section: Mapping[str, Any]) -> tuple[str | None, bool]:
    if given.stage is not None and given.all_stages:
        raise ConfigError("--stage trains one stage, --all-stages trains all of them: give one of the two")
    if given.stage is not None or given.all_stages:
        return given.stage, bool(given.all_stages)
    return section.get("stage"), bool(section.get("all_stages"))


def _criterion(given: Arguments, section: Mapping[str, Any]) -> Criterion | None:
    metric = str(_first(given.metric, section.get("metric"), ""))
    of_section = given.metric in (None, section.get("metric"))
    mode = _first(given.mode, section.get("mode") if of_section else None, "")
    if bool(metric) != bool(mode):
        raise ConfigError("--metric and --mode belong together: give both, such as --metric eval_accuracy --mode max")
    if metric and not metric.startswith(PREFIXES):
        raise ConfigError(f"the metric of a sweep is one of the log: train_..., eval_... or ema_...; got {metric!r}")
    return Criterion(metric, mode == "max") if metric else None


def _halving(given: Arguments, section: Mapping[str, Any]) -> Halving | None:
    own = section.get("asha")
    if not _first(given.asha, own is not None):
        if given.min_epochs or given.factor:
            raise ConfigError("--min-epochs and --factor are of --asha: give that, too")
        return None
    if given.factor == 1:
        raise ConfigError("--factor must be 2 or more: with 1 no member would be pruned")
    known = own or {}
    return Halving(_first(given.min_epochs, known.get("min_epochs"), 1), _first(given.factor, known.get("factor"), 3))
