"""Overrides on the command line: `key.path=value`, and `+key.path=value` for a key that is not there yet."""

from collections.abc import Callable, Iterable
from typing import Any

from functrain.app.config.source import Assignment, Path_, Source
from functrain.app.config.yaml_text import parse
from functrain.foundation.errors import ConfigError


def _as_given(assignment: Assignment) -> Iterable[Assignment]:
    return [assignment]


def _anywhere(_: Path_) -> str | None:
    return None


def _as_written(path: Path_) -> Path_ | None:
    return path


def override(
    source: Source,
    text: str,
    places: Callable[[Assignment], Iterable[Assignment]] = _as_given,
    is_closed: Callable[[Path_], str | None] = _anywhere,
    here: Callable[[Path_], Path_ | None] = _as_written,
) -> Source:
    """The source with one value set from the command line.

    A section that is given as a mapping changes the keys in it and keeps the others; one with a `name` replaces the
    section as a whole.

    Args:
        source: what the file says.
        text: "key.path=value", the value in YAML; "+key.path=value" adds a key and never changes one.
        places: what is set, by the places that keys have today.
        is_closed: why no key can be added at a path, in words; None if one can.
        here: where a path leads in this source; None if it is another source's.

    Raises:
        ConfigError: if the text has another form, the path leads through a value that is no section, or a key cannot
            be added.

    Example:
        >>> source = override(parse("training: {epochs: 3}", "a.yaml"), "training.epochs=5")
        >>> source.values, source.origin(("training", "epochs"))
        ({'training': {'epochs': 5}}, "override 'training.epochs=5'")
    """
    origin = f"override {text!r}"
    dotted, equals, value = text.partition("=")
    adds = dotted.startswith("+")
    path = tuple(dotted.removeprefix("+").strip().split("."))
    if not equals or not all(path):
        raise ConfigError(f"{origin}: write key.path=value, such as training.epochs=5")
    if not isinstance(source.values, dict):
        return source  # the loader of the configuration will refuse it
    parsed = parse(value, origin).sound() if value.strip() else Source(None, {})
    try:
        place = here(path)
        if place is None:
            return source
        assignments = list(places(Assignment(place, parsed)))
    except ConfigError as error:
        raise ConfigError(f"{origin}: {error}") from None
    if adds:
        _check_addition(source, place, origin, is_closed(place))
    for assignment in assignments:
        source = _assigned(source, assignment, origin)
    return source


def _check_addition(source: Source, path: Path_, origin: str, closed: str | None) -> None:
    key, found = ".".join(map(str, path)), source.values
    if closed is not None:
        raise ConfigError(f"{origin}: {closed}; leave out the +")
    for name in path:
        if not isinstance(found, dict) or name not in found:
            return
        found = found[name]
    raise ConfigError(
        f"{origin}: + adds a key, and {key} is already set in {source.origin(path)}; to change it leave out the +"
    )


def _assigned(source: Source, assignment: Assignment, origin: str) -> Source:
    path, parsed = assignment
    values = section = dict(source.values)
    origins = dict(source.origins)
    for depth, key in enumerate(path[:-1], 1):
        inner = section.get(key)
        if inner is not None and not isinstance(inner, dict):
            given = source.spelling(path[:depth], inner)
            raise ConfigError(
                f"{origin}: {'.'.join(map(str, path[:depth]))} is {given}, not a section with keys of its own"
            )
        section[key] = dict(inner or {})
        origins.setdefault(path[:depth], origin)
        section = section[key]
    spellings = dict(source.spellings)
    replaced: list[Path_] = []
    section[path[-1]] = _merged(section.get(path[-1]), parsed.values, path, replaced)
    for gone in replaced:
        for known in (origins, spellings):
            for inside in [other for other in known if other[: len(gone)] == gone]:
                del known[inside]
        origins[gone] = origin
    spellings |= {(*path, *inside): text for inside, text in parsed.spellings.items()}
    return source.replace(values=values, origins=origins, spellings=spellings)


def _merged(old: Any, new: Any, path: Path_, replaced: list[Path_]) -> Any:
    """The new value; of two sections the old one's keys stay, unless the new one has a `name`, which makes it whole.

    The paths of what was replaced are added to `replaced`.
    """
    if isinstance(old, dict) and isinstance(new, dict) and "name" not in new:
        return old | {key: _merged(old.get(key), value, (*path, key), replaced) for key, value in new.items()}
    replaced.append(path)
    return new
