"""The section `sweep` of a configuration, beyond the types of its keys. It imports neither torch nor pydantic."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from functrain.app.config.catalogue import FUNCTIONS, STAGES, declared
from functrain.app.config.ranges import Axis, searched
from functrain.app.config.source import Path_, Problem, Source
from functrain.app.config.suggestions import meant
from functrain.app.config.wording import shown
from functrain.app.config.yaml_text import dump_flow
from functrain.foundation.errors import ConfigError

KEY = "sweep"
SAMPLERS = ("random", "optuna")
_OF_THE_FILE = (KEY, "extends", "stage")  # keys that no member has of its own


def sweep_section(source: Source) -> Mapping[str, Any]:
    """The section's values; nothing if there is none."""
    found = source.values.get(KEY) if isinstance(source.values, dict) else None
    return found if isinstance(found, dict) else {}


def axes(source: Source) -> list[Axis]:
    """The keys that the section searches.

    Raises:
        ConfigError: one of them is none, or its values cannot be read.
    """
    return [
        replace(_axis(name, value, source), origin=source.origin((KEY, "axes", name)))
        for name, value in _named(source, "axes")
    ]


def members(source: Source) -> list[tuple[str, ...]]:
    """The overrides of each member that the section lists."""
    found = []
    for index, member in enumerate(sweep_section(source).get("members") or ()):
        path: Path_ = (KEY, "members", index)
        found.append(tuple(f"{name}={_spelled(value, (*path, name), source)}" for name, value in member.items()))
    return found


def sweep_problems(source: Source) -> Iterator[Problem]:
    """What is wrong with the section, but for the types of its keys."""
    section = sweep_section(source)
    for name, value in _named(source, "axes"):
        path: Path_ = (KEY, "axes", name)
        try:
            _check_key(name, f"sweep.axes: {name!r}")
            _axis(name, value, source)
        except ConfigError as error:
            yield Problem(path, f"{source.origin(path)}: {error}")
    listed = section.get("members")
    for index, member in enumerate(listed if isinstance(listed, list) else ()):
        for name in member if isinstance(member, dict) else ():
            path = (KEY, "members", index, name)
            try:
                _check_key(name, f"sweep.members.{index}: {name!r}")
            except ConfigError as error:
                yield Problem(path, f"{source.origin(path)}: {error}")
    for key, text in _rules(section):
        yield Problem((KEY, key), f"{source.origin((KEY, key))}: sweep.{key} {text}")


def _named(source: Source, key: str) -> Iterator[tuple[str, Any]]:
    given = sweep_section(source).get(key)
    yield from given.items() if isinstance(given, dict) else ()


def _axis(name: str, value: Any, source: Source) -> Axis:
    where, path = f"sweep.axes.{name}", (KEY, "axes", name)
    if isinstance(value, list) and value:
        return Axis(name, tuple(_spelled(each, (*path, index), source) for index, each in enumerate(value)))
    found = searched(name, value.strip(), where) if isinstance(value, str) else None
    if found is None:
        raise ConfigError(
            f"{where} must be a list of values, or a range such as 'log(1e-4, 1e-1)'; got "
            f"{source.spelling(path, value)}"
        )
    return found


def _spelled(value: Any, path: Path_, source: Source) -> str:
    """A value as the file spells it, so that members are called as on the command line."""
    return source.spellings.get(path) or dump_flow(value)


def _check_key(name: str, where: str) -> None:
    """See that there is such a key, as far as that can be told.

    Raises:
        ConfigError: with the nearest key.
    """
    path: Path_ = tuple(name.split("."))
    if path[0] in _OF_THE_FILE or path == (STAGES,):
        raise ConfigError(f"{where} is no key that members can differ in")
    place = path[2:] if path[0] == STAGES and len(path) > 2 else path
    if place in declared() or any(len(place) > len(each) and place[: len(each)] == each for each in FUNCTIONS):
        return
    known = next(depth for depth in range(len(place), -1, -1) if not depth or place[:depth] in declared())
    allowed = [str(each[-1]) for each in declared() if each[:-1] == place[:known]]
    section = ".".join(map(str, place[:known]))
    raise ConfigError(
        f"{where} is no key of a configuration{meant(str(place[known]), allowed)} keys"
        f"{f' of {section}' if section else ''}: {', '.join(allowed) or 'none'}"
    )


def _rules(section: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The rules between keys that do not hold: a key, and what is wrong with it."""

    def given(key: str) -> bool:
        return section.get(key) not in (None, False, [])

    sampler = section.get("sampler", "grid")
    if sampler in SAMPLERS and not given("count"):
        yield "sampler", f"{sampler} needs count, the number of members"
    if sampler == "grid" and given("count"):
        yield "count", "is the number of members that a sampler draws: set sampler to random or optuna"
    if sampler in SAMPLERS and given("members"):
        yield "members", f"lists the members, and sampler {sampler} draws them: give one of the two"
    if given("metric") and not given("mode"):
        yield "metric", f"{shown(section['metric'])} needs mode: min or max"
    if given("mode") and not given("metric"):
        yield "mode", "belongs to metric: set that, too, or evaluation.watch_mode instead"
    if given("asha") and sampler == "optuna":
        yield "asha", "cannot be combined with sampler optuna: random draws members that asha can prune"
    if given("stage") and given("all_stages"):
        yield "stage", "trains one stage, and all_stages all of them: give one of the two"
