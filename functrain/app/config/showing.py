"""A merged configuration as text, with the origin of each value."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from functrain.app.config.catalogue import FUNCTIONS, STAGES, functions, schema, section_in
from functrain.app.config.checking import is_surely_sound
from functrain.app.config.files import is_recorded
from functrain.app.config.resolving import WHOLE, resolve_stages
from functrain.app.config.source import Path_, Source
from functrain.app.config.stages import OF_THE_WHOLE, chosen_name
from functrain.app.config.sweep_section import KEY as SWEEP
from functrain.app.config.yaml_text import dump_flow

WIDTH = 44  # of a value, before its origin
DEFAULTS: Mapping[Path_, str] = {
    ("name",): "default: the file's name",
    ("stage",): "stages",
    ("code",): "default: the folders of the files that name functions",
}


class Line(NamedTuple):
    """A key, its value, and where that is from; a section has no value here."""

    path: Path_
    value: Any
    origin: str
    is_section: bool = False

    @property
    def kind(self) -> str:
        """What the origin is: "file", "environment", "override" or "default"."""
        for kind, mark in (("default", "default"), ("override", "override ")):
            if self.origin.startswith(mark):
                return kind
        return "environment" if " (${" in self.origin else "file"


def shown_config(path: Path, overrides: Sequence[str], stage: str | None = None) -> list[Line]:
    """The keys of a configuration, of which each section's stand below it.

    Args:
        path, overrides: the configuration.
        stage: show this one of its stages alone.

    Raises:
        ConfigError: with a line for each problem.
    """
    recorded = is_recorded(path)
    sources = resolve_stages(path, overrides, recorded=recorded)
    if not all(map(is_surely_sound, sources.values())):
        from functrain.app.config.loading import check_registered

        check_registered(path, overrides, recorded=recorded)
    if stage is None and WHOLE not in sources:
        return list(_staged(sources))
    name = chosen_name(list(sources), path, stage)
    return list(_lines(schema(), sources[name].values, (), sources[name]))


def _staged(sources: Mapping[str, Source]) -> Iterator[Line]:
    """A configuration of several stages, each with all of its keys."""
    first = next(iter(sources.values()))
    yield Line(("name",), first.values["name"], _origin(("name",), first))
    yield from (line for line in _lines(schema(), first.values, (), first) if line.path[0] == SWEEP)
    yield Line((STAGES,), None, "", is_section=True)
    for stage, source in sources.items():
        yield Line((STAGES, stage), None, "", is_section=True)
        for line in _lines(schema(), source.values, (), source):
            if line.path[0] not in OF_THE_WHOLE:
                yield line._replace(path=(STAGES, stage, *line.path))


def _lines(section: Mapping[str, Any], values: Mapping[str, Any], path: Path_, source: Source) -> Iterator[Line]:
    for name, facts in section["properties"].items():
        inside, own = (*path, name), section_in(facts)
        value = values.get(name, facts.get("default"))
        if inside in (("extends",), (STAGES,)) or (inside == ("name",) and "name" not in values):
            continue
        origin = _origin(inside, source) if name in values else "default"
        if own is None or (value is None and facts.get("default") is None):
            yield Line(inside, value, origin)
        else:
            yield Line(inside, None, origin, is_section=True)
            yield from _lines(own, value or {}, inside, source)
    if path in FUNCTIONS:
        yield from _parameters(section, values, path, source)


def _origin(path: Path_, source: Source) -> str:
    return source.origins.get(path) or DEFAULTS.get(path) or source.origin(path)


def _parameters(section: Mapping[str, Any], values: Mapping[str, Any], path: Path_, source: Source) -> Iterator[Line]:
    """The parameters of the function that a section names: those given, then the function's defaults."""
    for name, value in values.items():
        if name not in section["properties"]:
            yield Line((*path, name), value, _origin((*path, name), source))
    function = functions(FUNCTIONS[path]).get(values["name"])
    for name, facts in function.parameters.items() if function is not None else ():
        if name not in values and "default" in facts:
            yield Line((*path, name), facts["default"], f"default of {values['name']}")


def as_yaml(lines: Sequence[Line]) -> Iterator[str]:
    """The lines as YAML, each value's origin in a comment."""
    for line in lines:
        indent = "  " * (len(line.path) - 1)
        if line.is_section:
            yield f"{indent}{dump_flow(line.path[-1])}:"
        else:
            yield f"{f'{indent}{dump_flow(line.path[-1])}: {dump_flow(line.value)}':{WIDTH}}  # {line.origin}"


def as_json(lines: Sequence[Line]) -> Iterator[str]:
    """The lines as JSON: the values, and the origin of each key."""
    values: dict[Any, Any] = {}
    origins = {}
    for line in lines:
        holder = values
        for key in line.path[:-1]:
            holder = holder[key]
        holder[line.path[-1]] = {} if line.is_section else line.value
        if not line.is_section:
            origins[".".join(map(str, line.path))] = {"kind": line.kind, "origin": line.origin}
    yield json.dumps({"config": values, "origins": origins}, indent=2, ensure_ascii=False)
