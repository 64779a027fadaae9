"""The text of a configuration as values that remember where they come from.

YAML as `yaml.safe_load` reads it, with these differences: `3e-4` and
`1e3` are numbers (YAML 1.1 makes them text), dates stay text, a key that is written twice is refused, keys
are text, and size and depth are bounded.
"""

import io
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from functrain.app.config.parameters import shown
from functrain.app.config.yaml_errors import in_plain_words
from functrain.foundation.errors import ConfigError
from functrain.foundation.regular_files import read_regular

LARGEST_FILE = 1_000_000
MOST_NODES = 10_000
DEEPEST = 50

Path_ = tuple[str | int, ...]  # the way to a value: ("training", "epochs")

_FLOAT, _TIMESTAMP = "tag:yaml.org,2002:float", "tag:yaml.org,2002:timestamp"
_MERGE = "tag:yaml.org,2002:merge"
_COLLECTIONS = ("tag:yaml.org,2002:map", "tag:yaml.org,2002:seq")
_FLOAT_PATTERN = re.compile(
    r"""[-+]?(?:[0-9][0-9_]*\.[0-9_]*(?:[eE][-+]?[0-9]+)?
        |\.[0-9][0-9_]*(?:[eE][-+]?[0-9]+)?
        |[0-9][0-9_]*[eE][-+]?[0-9]+
        |\.(?:inf|Inf|INF))\Z
        |\.(?:nan|NaN|NAN)\Z""",
    re.VERBOSE,
)


class _Loader(yaml.SafeLoader):
    """A SafeLoader with resolvers of its own."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag not in (_FLOAT, _TIMESTAMP)]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(_FLOAT, _FLOAT_PATTERN, list("-+.0123456789"))


class _Dumper(yaml.SafeDumper):
    """A SafeDumper that quotes the text `1e3`, which the loader above would take for a number."""


_Dumper.add_implicit_resolver(_FLOAT, _FLOAT_PATTERN, list("-+.0123456789"))


def dump(values: Any) -> str:
    """YAML that `parse` reads back as the same values.

    Example:
        >>> dump({"lr": 3e-4, "text": "1e3"})
        "lr: 0.0003\\ntext: '1e3'\\n"
    """
    return yaml.dump(values, Dumper=_Dumper, sort_keys=False)


@dataclass(frozen=True)
class Source:
    """Values, and for each the place it was written at.

    Attributes:
        values: dictionaries, lists and scalars.
        origins: path of a value -> "file:line" or "override 'key=value'".
        spellings: path of a value that is no text -> how it is written: `on`, `1e8`.
    """

    values: Any
    origins: Mapping[Path_, str]
    spellings: Mapping[Path_, str] = field(default_factory=dict)

    def origin(self, path: Path_) -> str:
        """Where a value was written; for one that is missing, where its section begins."""
        while path and path not in self.origins:
            path = path[:-1]
        return self.origins[path]

    def spelling(self, path: Path_, value: Any) -> str:
        """How a value is written, for a message."""
        return self.spellings.get(path) or shown(value)

    def part(self, key: str) -> "Source":
        """The value of a key, without its origin."""
        return Source(
            self.values[key], {}, {path[1:]: text for path, text in self.spellings.items() if path[:1] == (key,)}
        )


class Assignment(NamedTuple):
    """A path, and the value that an override sets there."""

    path: Path_
    value: Source


def _as_given(assignment: Assignment) -> Iterable[Assignment]:
    return [assignment]


def read_source(path: Path) -> Source:
    """Read a configuration file.

    Raises:
        ConfigError: if there is no such file, or it is not YAML.
    """
    try:
        if path.is_dir():
            raise IsADirectoryError
        if path.stat().st_size > LARGEST_FILE:
            raise ConfigError(f"{path} has more than {LARGEST_FILE:,} bytes, so it is no configuration")
        text = io.TextIOWrapper(io.BytesIO(read_regular(path, LARGEST_FILE)), encoding="utf-8").read()
    except FileNotFoundError:
        first = "; the first argument is the configuration file, overrides follow it" if "=" in str(path) else ""
        raise ConfigError(f"there is no configuration file {path}{_nearby(path)}{first}") from None
    except IsADirectoryError:
        hint = f"; did you mean {path / 'config.yaml'}?" if (path / "config.yaml").is_file() else ""
        raise ConfigError(f"{path} is a directory, not a configuration file{hint}") from None
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not text in UTF-8: {error}") from error
    return parse(text, str(path))


def parse(text: str, name: str) -> Source:
    """Read YAML; `name` is the file's, for messages.

    Raises:
        ConfigError: with the line, if it is not YAML or a key is written twice.

    Example:
        >>> source = parse("training:\\n  lr: 3e-4\\n", "a.yaml")
        >>> source.values, source.origin(("training", "lr"))
        ({'training': {'lr': 0.0003}}, 'a.yaml:2')
    """
    try:
        loader = _Loader(text)
        try:
            root = loader.get_single_node()
            reader = _Reader(loader, name)
            values = {} if root is None else reader.value(root, (), 0)
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        raise ConfigError(in_plain_words(error, name)) from None
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        detail = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
        if isinstance(error, yaml.reader.ReaderError):
            detail = f"it holds the control character U+{error.character:04X}"
        raise ConfigError(f"{name}: this is not valid YAML: {detail}") from None
    return Source(values, {(): name, **reader.origins}, reader.spellings)


class _Reader:
    """Turns YAML nodes into values, notes lines on the way, and counts: aliases can multiply without end."""

    def __init__(self, loader: _Loader, name: str) -> None:
        self.origins: dict[Path_, str] = {}
        self.spellings: dict[Path_, str] = {}
        self._loader = loader
        self._name = name
        self._count = 0

    def value(self, node: yaml.Node, path: Path_, depth: int) -> Any:
        self._count += 1
        if self._count > MOST_NODES or depth > DEEPEST:
            raise ConfigError(
                f"{self._at(node)}: too large: a configuration has at most {MOST_NODES:,} values, nested at most "
                f"{DEEPEST} deep (aliases count each time, and one inside itself never ends)"
            )
        if isinstance(node, yaml.CollectionNode) and node.tag not in _COLLECTIONS:
            raise ConfigError(f"{self._at(node)}: the tag {node.tag!r} is not allowed; a configuration is plain values")
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path, depth)
        if isinstance(node, yaml.SequenceNode):
            for index, item in enumerate(node.value):
                self.origins[*path, index] = self._at(item)
            return [self.value(item, (*path, index), depth + 1) for index, item in enumerate(node.value)]
        value = self._loader.construct_object(node)
        if value is None or isinstance(value, (bool, int, float, str)):
            if not isinstance(value, str) and node.value:
                self.spellings[path] = node.value
            return value
        raise ConfigError(f"{self._at(node)}: a value is text, a number, true, false or null; got {node.value!r}")

    def _mapping(self, node: yaml.MappingNode, path: Path_, depth: int) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if key_node.tag == _MERGE:
                values.update(self._merged(value_node, path, depth))
        own: dict[str, str] = {}
        for key_node, value_node in node.value:
            if key_node.tag == _MERGE:
                continue
            key = self._loader.construct_object(key_node) if isinstance(key_node, yaml.ScalarNode) else None
            if not isinstance(key, str):
                given = repr(key_node.value) if isinstance(key_node, yaml.ScalarNode) else "a list or section"
                raise ConfigError(f"{self._at(key_node)}: a key must be text, got {given}; put it in quotes")
            if key in own:
                raise ConfigError(f"{self._at(key_node)}: the key {key!r} is already set in {own[key]}; keep one")
            own[key] = self.origins[*path, key] = self._at(key_node)
            values[key] = self.value(value_node, (*path, key), depth + 1)
        return values

    def _merged(self, node: yaml.Node, path: Path_, depth: int) -> dict[str, Any]:
        """What `<<:` brings in; of several mappings the first one wins."""
        merged: dict[str, Any] = {}
        for part in reversed(node.value if isinstance(node, yaml.SequenceNode) else [node]):
            if not isinstance(part, yaml.MappingNode):
                raise ConfigError(f"{self._at(part)}: << takes a mapping or a list of mappings")
            for key_node, _ in part.value:
                self.origins[*path, str(key_node.value)] = self._at(key_node)
            merged.update(self.value(part, path, depth + 1))
        return merged

    def _at(self, node: yaml.Node) -> str:
        return f"{self._name}:{node.start_mark.line + 1}"


def override(source: Source, text: str, places: Callable[[Assignment], Iterable[Assignment]] = _as_given) -> Source:
    """The source with one value set from the command line.

    A section that is given as a mapping changes the keys in it and keeps the others; one with a `name` replaces the
    section as a whole.

    Args:
        source: what the file says.
        text: "key.path=value", the value in YAML.
        places: what is set, by the places that keys have today.

    Raises:
        ConfigError: if the text has another form, or the path leads through a value that is no section.

    Example:
        >>> source = override(parse("training: {epochs: 3}", "a.yaml"), "training.epochs=5")
        >>> source.values, source.origin(("training", "epochs"))
        ({'training': {'epochs': 5}}, "override 'training.epochs=5'")
    """
    origin = f"override {text!r}"
    dotted, equals, value = text.partition("=")
    path = tuple(dotted.strip().split("."))
    if not equals or not all(path):
        raise ConfigError(f"{origin}: write key.path=value, such as training.epochs=5")
    if not isinstance(source.values, dict):
        return source  # the loader of the configuration will refuse it
    parsed = parse(value, origin) if value.strip() else Source(None, {})
    for assignment in places(Assignment(path, parsed)):
        source = _assigned(source, assignment, origin)
    return source


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
    return Source(values, origins, spellings)


def _merged(old: Any, new: Any, path: Path_, replaced: list[Path_]) -> Any:
    """The new value; of two sections the old one's keys stay, unless the new one has a `name`, which makes it whole.

    The paths of what was replaced are added to `replaced`.
    """
    if isinstance(old, dict) and isinstance(new, dict) and "name" not in new:
        return old | {key: _merged(old.get(key), value, (*path, key), replaced) for key, value in new.items()}
    replaced.append(path)
    return new


def _nearby(path: Path) -> str:
    import difflib

    folder = path.parent
    names = [p.name for p in folder.glob("*.y*ml")] if folder.is_dir() else []
    close = difflib.get_close_matches(path.name, names, n=1)
    return f"; did you mean {folder / close[0]}?" if close else ""
