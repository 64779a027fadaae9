"""Read a file and overrides into a checked `Config`, and write one back to a file.

All problems are reported at once, each with its file and line, or its override.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from functrain.app.config.files import is_recorded
from functrain.app.config.problems import independent, parameter_problems, schema_problem
from functrain.app.config.resolving import resolve
from functrain.app.config.schema import Config
from functrain.app.config.source import Source, config_error, leaves
from functrain.app.config.trust import trust_users_config
from functrain.app.config.wording import shown
from functrain.app.config.yaml_text import dump
from functrain.foundation.errors import ConfigError
from functrain.foundation.signature import signed_yaml


def load_config(path: str | Path, overrides: Sequence[str] = (), *, trust: bool = False) -> Config:
    """Read, override and check a configuration that the user has named. It may import the functions that it names.

    Args:
        path: a YAML (or JSON) file.
        overrides: "key.path=value" each. They replace values of the file, and later ones replace earlier ones.
        trust: whether it may also import them from a run's directory.

    Raises:
        ConfigError: with a line for each problem.
    """
    path = Path(path)
    config, source = read_config(path, overrides, recorded=is_recorded(path))
    missing = [folder for folder in config.code_paths if not folder.is_dir()] if config.references else []
    if missing:
        raise ConfigError(f"{source.origin(('code',))}: code: there is no folder {missing[0]} to import functions from")
    config = trust_users_config(config, trust)
    check_parameters(config, source)
    return config


def read_config(path: str | Path, overrides: Sequence[str] = (), *, recorded: bool = False) -> tuple[Config, Source]:
    """Read a configuration and the origins of its values. This imports no function that it names.

    Args:
        path, overrides: as in `load_config`.
        recorded: whether a run recorded it. Then keys may stand in their former places.

    Raises:
        ConfigError: with a line for each problem.
    """
    source = resolve(Path(path), overrides, recorded=recorded)
    problems = list(source.problems)
    try:
        config = Config.model_validate(source.values)
    except ValidationError as error:
        problems += [schema_problem(details, source) for details in error.errors()]
        config = None
    if config is None or problems:
        # All that can be told without running code of the user's.
        problems += parameter_problems(source, None)
        raise config_error(problem.text for problem in independent(problems, source))
    return config, source


def check_registered(path: str | Path, overrides: Sequence[str] = (), *, recorded: bool = False) -> None:
    """Check a configuration, but for the functions of the user's own. Arguments as of `read_config`.

    Raises:
        ConfigError: with a line for each problem.
    """
    _, source = read_config(path, overrides, recorded=recorded)
    problems = list(parameter_problems(source, None))
    if problems:
        raise config_error(problem.text for problem in problems)


def check_parameters(config: Config, source: Source) -> None:
    """Check the names of functions and the parameters for them.

    Raises:
        ConfigError: with a line for each problem.
    """
    problems = list(parameter_problems(source, config.code_folders))
    if problems:
        raise config_error(problem.text for problem in problems)


def save_config(config: Config, path: Path) -> None:
    """Write a configuration that `load_config` reads back. A kill leaves the old file or the new one."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(signed_yaml(dump(plain(config))), encoding="utf-8")
    os.replace(temporary, path)


def plain(config: Config) -> dict[str, Any]:
    """The configuration as dictionaries, lists and scalars."""
    return config.model_dump(mode="json")


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
