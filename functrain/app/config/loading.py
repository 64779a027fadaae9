"""Read a file and overrides into a checked `Config`, and write one back to a file.

All problems are reported at once, each with its file and line, or its override.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError

from functrain.app.config.former import SWITCHES, assignments, in_its_place, new_place
from functrain.app.config.parameters import complaint, shown, signature, takes_one, wish
from functrain.app.config.registry import lookup
from functrain.app.config.schema import Config, Named, section_at
from functrain.app.config.signature import signed_yaml
from functrain.app.config.source import Path_, Source, dump, override, read_source
from functrain.app.config.suggestions import meant
from functrain.app.config.trust import is_run, trust_users_config
from functrain.foundation.errors import ConfigError

MOST_PROBLEMS = 8  # in one message


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
    config, source = read_config(path, overrides, recorded=path.name == "config.yaml" and is_run(path.parent))
    if config.references and config.code is not None and not Path(config.code).is_dir():
        raise ConfigError(
            f"{source.origin(('code',))}: code: there is no folder {config.code} to import functions from"
        )
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
    path = Path(path)
    source = in_its_place(read_source(path), recorded=recorded)
    for text in overrides:
        source = override(source, text, assignments)
    if not isinstance(source.values, dict):
        raise ConfigError(
            f"{path}: a configuration is a mapping of sections (model, data, ...), not {shown(source.values)}"
        )
    values = {"name": path.stem, **source.values}
    if _names_own_code(values):
        # Absolute, so that the copy in the run's directory finds the code as well.
        values["code"] = os.path.abspath(path.parent / os.path.expanduser(str(values.get("code") or ".")))
    begins = values.get("init_from")
    if isinstance(begins, dict) and isinstance(begins.get("path"), str) and begins["path"]:
        values["init_from"] = {**begins, "path": os.path.abspath(path.parent / os.path.expanduser(begins["path"]))}
    try:
        config = Config.model_validate(values)
    except ValidationError as error:
        raise _config_error(_schema_problem(details, source) for details in error.errors()) from None
    return config, source


def check_parameters(config: Config, source: Source) -> None:
    """Check the names of functions and the parameters for them.

    Raises:
        ConfigError: with a line for each problem.
    """
    problems = [
        problem for section in named_sections(config) for problem in _parameter_problems(section, config, source)
    ]
    problems += _collate_problems(config, source)
    if problems:
        raise _config_error(problems)


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
    old, new = dict(_values(before)), dict(_values(now))
    return [
        f"{key}: {shown(old[key]) if key in old else '(not set)'} -> {shown(new[key]) if key in new else '(not set)'}"
        for key in dict.fromkeys([*old, *new])
        if key not in old or key not in new or old[key] != new[key]
    ]


class NamedSection(NamedTuple):
    """A section that names a function: its path, its kind, and its values."""

    path: tuple[str, ...]
    kind: str
    value: Named


def named_sections(config: Config) -> list[NamedSection]:
    """The sections of a configuration that name functions."""
    found = [
        NamedSection(("model",), "model", config.model),
        NamedSection(("data",), "data", config.data),
        NamedSection(("objective",), "objective", config.objective),
        NamedSection(("optimizer",), "optimizer", config.optimizer),
    ]
    if config.optimizer.schedule is not None:
        found.append(NamedSection(("optimizer", "schedule"), "schedule", config.optimizer.schedule))
    return found


def _names_own_code(values: Mapping[str, Any]) -> bool:
    names = ("name", "collate_fn")
    return any(key.endswith(names) and isinstance(value, str) and ":" in value for key, value in _values(values))


def _values(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The dotted path and the value of each key that holds no section."""
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _values(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _config_error(problems: Any) -> ConfigError:
    lines = list(dict.fromkeys(problems))
    if len(lines) == 1:
        return ConfigError(lines[0])
    more = len(lines) - MOST_PROBLEMS
    shortened = lines[:MOST_PROBLEMS] + ([f"... and {more} more"] if more > 0 else [])
    return ConfigError("\n  ".join([f"{len(lines)} problems in the configuration:", *shortened]))


def _schema_problem(details: Any, source: Source) -> str:
    """One of pydantic's complaints as "file:line: what is wrong"."""
    path: Path_ = details["loc"]
    where, section = source.origin(path), path[:-1]
    if details["type"] == "extra_forbidden":
        place = new_place(path)
        if place is not None:
            return f"{where}: {'.'.join(map(str, path))} is {place} now"
        return _unknown_key(where, str(path[-1]), section, list(section_at(section).model_fields))
    if details["type"] == "missing":
        return f"{where}: missing key {path[-1]!r}{_inside(section)}"
    name = ".".join(map(str, path))
    given = source.spelling(path, details["input"])
    if details["type"] in ("model_type", "model_attributes_type"):
        keys = ", ".join(section_at(path).model_fields)
        switch = "true, false or " if name in SWITCHES else ""
        return f"{where}: {name} must be {switch}a section with keys of its own ({keys}); got {given}"
    got = "" if isinstance(details["input"], dict) else f"; got {given}"
    return f"{where}: {name} {wish(details['msg'])}{got}"


def _unknown_key(where: str, key: str, section: Path_, allowed: Sequence[str], function: str = "") -> str:
    of = f" ({function})" if function else ""
    inside = _inside(section) or " at the top level"
    return f"{where}: unknown key {key!r}{inside}{of}{meant(key, allowed)} allowed: {', '.join(allowed)}"


def _inside(section: Path_) -> str:
    return f" in {'.'.join(map(str, section))}" if section else ""


def _collate_problems(config: Config, source: Source) -> Iterator[str]:
    """What is wrong with the function that puts samples together."""
    name = config.data.collate_fn
    if name is None:
        return
    where = f"{source.origin(('data', 'collate_fn'))}: data.collate_fn"
    try:
        function = lookup("collate_fn", name, config.code_folders)
    except ConfigError as error:
        yield f"{where}: {error}"
        return
    if isinstance(function, type) or not takes_one(function):
        kind = "a class" if isinstance(function, type) else "a function of other arguments"
        yield f"{where} must be a function of the list of samples, which returns the batch; got {kind}, {name!r}"


def _parameter_problems(section: NamedSection, config: Config, source: Source) -> Iterator[str]:
    """What is wrong with the parameters of a named function."""
    path, kind, value = section
    try:
        function = lookup(kind, value.name, config.code_folders)
    except ConfigError as error:
        yield f"{source.origin((*path, 'name'))}: {error}"
        return
    expected = signature(kind, function)
    fields = list(type(value).model_fields)
    given = value.parameters
    for key, item in given.items():
        where = source.origin((*path, key))
        if key in expected.types:
            wrong = complaint(item, expected.types[key], source.spelling((*path, key), item))
            if wrong is not None:
                yield f"{where}: {'.'.join((*path, key))} {wrong}"
        elif not expected.open:
            yield _unknown_key(where, key, path, [*fields, *expected.types], value.name)
    for key in expected.required:
        # A schedule's length is the run's, where it is not given.
        if key not in given and not (kind == "schedule" and key == "total_steps"):
            yield f"{source.origin(path)}: missing key {key!r}{_inside(path)}: {value.name} has no default for it"
