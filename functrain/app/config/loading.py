"""Read a file and overrides into a checked `Config`, and write one back to a file.

All problems are reported at once, each with its file and line, or its override.
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError

from functrain.app.config.catalogue import STAGES
from functrain.app.config.files import is_recorded
from functrain.app.config.members_section import members_problems
from functrain.app.config.problems import independent, parameter_problems, schema_problem
from functrain.app.config.resolving import WHOLE, resolve_stages
from functrain.app.config.schema import Config
from functrain.app.config.source import Problem, Source, config_error, leaves
from functrain.app.config.stages import OF_THE_WHOLE, chosen_name
from functrain.app.config.sweep_section import sweep_problems
from functrain.app.config.trust import trust_users_config
from functrain.app.config.wording import shown
from functrain.app.config.yaml_text import dump
from functrain.foundation.errors import ConfigError
from functrain.foundation.signature import signed_yaml


class Stage(NamedTuple):
    """A stage of a configuration; a configuration without stages is one that is called "".

    Attributes:
        name: of the stage.
        config: what the rest of the configuration and the stage come to.
        source: the values and their origins.
    """

    name: str
    config: Config
    source: Source


def load_config(
    path: str | Path, overrides: Sequence[str] = (), *, trust: bool = False, stage: str | None = None
) -> Config:
    """Read, override and check a configuration that the user has named. It may import the functions that it names.

    Args:
        path: a YAML (or JSON) file.
        overrides: "key.path=value" each. They replace values of the file, and later ones replace earlier ones.
        trust: whether it may also import them from a run's directory.
        stage: the stage, if the configuration has stages.

    Raises:
        ConfigError: with a line for each problem.
    """
    return chosen(load_stages(path, overrides, trust=trust), path, stage).config


def load_stages(path: str | Path, overrides: Sequence[str] = (), *, trust: bool = False) -> list[Stage]:
    """The stages of a configuration that the user has named, all of them checked. Arguments as of `load_config`.

    Raises:
        ConfigError: with a line for each problem of each stage.
    """
    path = Path(path)
    stages = read_stages(path, overrides, recorded=is_recorded(path))
    for _, config, source in stages:
        missing = [folder for folder in config.code_paths if not folder.is_dir()] if config.references else []
        if missing:
            where = source.origin(("code",))
            raise ConfigError(f"{where}: code: there is no folder {missing[0]} to import functions from")
    stages = [stage._replace(config=trust_users_config(stage.config, trust)) for stage in stages]
    check_stages(stages)
    return stages


def chosen(stages: Sequence[Stage], path: str | Path, name: str | None) -> Stage:
    """The stage of a name, or the configuration that has no stages.

    Raises:
        ConfigError: there is none, or no name is given for one of several.
    """
    names = [stage.name for stage in stages]
    return stages[names.index(chosen_name(names, path, name))]


def read_config(path: str | Path, overrides: Sequence[str] = (), *, recorded: bool = False) -> tuple[Config, Source]:
    """Read a configuration without stages, and the origins of its values. This imports no function that it names.

    Args:
        path, overrides: as in `load_config`.
        recorded: whether a run recorded it. Then keys may stand in their former places.

    Raises:
        ConfigError: with a line for each problem.
    """
    _, config, source = chosen(read_stages(path, overrides, recorded=recorded), path, None)
    return config, source


def read_stages(path: str | Path, overrides: Sequence[str] = (), *, recorded: bool = False) -> list[Stage]:
    """The stages of a configuration, as `read_config` reads one without stages."""
    found, problems = [], {}
    for name, source in resolve_stages(Path(path), overrides, recorded=recorded).items():
        config, problems[name] = _read(source)
        if config is not None:
            found.append(Stage(name, config, source))
    _raise(problems)
    return found


def _read(source: Source) -> tuple[Config | None, list[Problem]]:
    """The configuration that values come to, and what is wrong with it."""
    problems = list(source.problems)
    try:
        config = Config.model_validate(source.values)
    except ValidationError as error:
        problems += [schema_problem(details, source) for details in error.errors()]
        config = None
    problems += [*sweep_problems(source), *members_problems(source)]
    if config is None or problems:
        # All that can be told without running code of the user's.
        problems += parameter_problems(source, None)
        problems = list(independent(problems, source))
    return config, problems


def _raise(problems: Mapping[str, Sequence[Problem]]) -> None:
    """Raise an error if there are problems. One that only some stages have names these."""
    stages: dict[str, list[str]] = {}
    for name, found in problems.items():
        for text in dict.fromkeys(problem.text for problem in found):
            stages.setdefault(text, []).append(name)
    if stages:
        raise config_error(
            text if len(names) == len(problems) else f"{text} (stage {', '.join(names)})"
            for text, names in stages.items()
        )


def check_registered(path: str | Path, overrides: Sequence[str] = (), *, recorded: bool = False) -> None:
    """Check a configuration, but for the functions of the user's own. Arguments as of `read_config`.

    Raises:
        ConfigError: with a line for each problem.
    """
    stages = read_stages(path, overrides, recorded=recorded)
    _raise({name: list(parameter_problems(source, None)) for name, _, source in stages})


def check_stages(stages: Iterable[Stage]) -> None:
    """Check the names of functions and the parameters for them.

    Raises:
        ConfigError: with a line for each problem.
    """
    _raise({name: list(parameter_problems(source, config.code_folders)) for name, config, source in stages})


def check_parameters(config: Config, source: Source) -> None:
    """As `check_stages`, for a configuration without stages."""
    check_stages([Stage(WHOLE, config, source)])


def save_config(config: Config, path: Path) -> None:
    """Write a configuration that `load_config` reads back. A kill leaves the old file or the new one."""
    _save(plain(config), path)


def save_stages(stages: Sequence[Stage], path: Path) -> None:
    """Write a configuration of these stages that `load_stages` reads back, likewise."""
    _save(plain_stages(stages), path)


def _save(values: Mapping[str, Any], path: Path) -> None:
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(signed_yaml(dump(values)), encoding="utf-8")
    os.replace(temporary, path)


def plain(config: Config) -> dict[str, Any]:
    """The configuration as dictionaries, lists and scalars."""
    return config.model_dump(mode="json")


def plain_stages(stages: Sequence[Stage]) -> dict[str, Any]:
    """A configuration of these stages, likewise."""
    parts = {
        name: {key: value for key, value in plain(config).items() if key not in OF_THE_WHOLE}
        for name, config, _ in stages
    }
    return {"name": stages[0].config.name, STAGES: parts}


def changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """The differences between two configurations, a line for each value.

    Example:
        >>> changes({"seed": 0, "model": {"name": "a"}}, {"seed": 1, "model": {"name": "a", "width": 2}})
        ['seed: 0 -> 1', 'model.width: (not set) -> 2']
    """
    old, new = ({".".join(map(str, path)): value for path, value in leaves(tree)} for tree in (before, now))
    return [
        f"{key}: {shown(old[key]) if key in old else '(not set)'} -> {shown(new[key]) if key in new else '(not set)'}"
        for key in dict.fromkeys([*old, *new])
        if key not in old or key not in new or old[key] != new[key]
    ]
