"""YAML and JSON as values that remember where they were written.

YAML as `yaml.safe_load` reads it, with these differences: `3e-4` and `1e3` are numbers (YAML 1.1 makes them text),
dates and `1:30` stay text, a key that is written twice is refused, keys are text, size and depth are bounded, and
values may refer to environment variables.
"""

import json
import re
from typing import Any

import yaml

from functrain.app.config.environment import escaped, substituted, unescaped
from functrain.app.config.source import Path_, Problem, Source
from functrain.app.config.yaml_errors import in_plain_words
from functrain.foundation.errors import ConfigError

MOST_NODES = 10_000
DEEPEST = 50
TOO_LARGE = (
    f"too large: a configuration has at most {MOST_NODES:,} values, nested at most {DEEPEST} deep (aliases count each "
    "time, and one inside itself never ends)"
)

_FLOAT, _TIMESTAMP, _INT = "tag:yaml.org,2002:float", "tag:yaml.org,2002:timestamp", "tag:yaml.org,2002:int"
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
_INT_PATTERN = re.compile(r"[-+]?(?:0b[0-1_]+|0x[0-9a-fA-F_]+|0[0-7_]*|[1-9][0-9_]*)\Z")  # without YAML 1.1's 1:30
_CONTROL = re.compile("[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]")
_SURROGATE = re.compile("[\ud800-\udfff]")


class _Loader(yaml.SafeLoader):
    """A SafeLoader with resolvers of its own."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag not in (_FLOAT, _TIMESTAMP, _INT)]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(_FLOAT, _FLOAT_PATTERN, list("-+.0123456789"))
_Loader.add_implicit_resolver(_INT, _INT_PATTERN, list("-+0123456789"))


class _Dumper(yaml.SafeDumper):
    """A SafeDumper that quotes the text `1e3`, which the loader above would take for a number."""


_Dumper.add_implicit_resolver(_FLOAT, _FLOAT_PATTERN, list("-+.0123456789"))


def dump(values: Any) -> str:
    """YAML that `parse` reads back as the same values.

    Example:
        >>> dump({"lr": 3e-4, "text": "1e3", "cost": "${X}"})
        "lr: 0.0003\\ntext: '1e3'\\ncost: $${X}\\n"
    """
    return yaml.dump(_escaped(values), Dumper=_Dumper, sort_keys=False)


def dump_flow(value: Any) -> str:
    """YAML in one line, without a line break at its end.

    Example:
        >>> dump_flow([1, "a, b"]), dump_flow(None), dump_flow("two\\nlines")
        ("[1, 'a, b']", 'null', '"two\\\\nlines"')
    """
    if isinstance(value, str) and "\n" in value:
        return json.dumps(escaped(value), ensure_ascii=False)
    return yaml.dump([_escaped(value)], Dumper=_Dumper, default_flow_style=True, width=10**9, sort_keys=False)[1:-2]


def _escaped(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _escaped(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_escaped(inner) for inner in value]
    return escaped(value) if isinstance(value, str) else value


def parse(text: str, name: str, *, recorded: bool = False) -> Source:
    """Read YAML.

    Args:
        text: a document.
        name: the file's, or "override 'key=value'", which has no lines.
        recorded: `dump` wrote it, so that it refers to no environment variable.

    Returns:
        The values; `problems` names a key that is written twice, a variable that is not set, and the like.

    Raises:
        ConfigError: with the place, if it is not YAML.

    Example:
        >>> source = parse("training:\\n  lr: 3e-4\\n", "a.yaml")
        >>> source.values, source.origin(("training", "lr"))
        ({'training': {'lr': 0.0003}}, 'a.yaml:2:3')
    """
    try:
        loader = _Loader(text)
        try:
            root = loader.get_single_node()
            reader = _Reader(loader, name, recorded)
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
    return Source(values, {(): name, **reader.origins}, reader.spellings, tuple(reader.problems))


def parse_json(text: str, name: str) -> Source:
    """Read JSON, as `parse` reads YAML.

    Example:
        >>> parse_json('{"lr": 3e-4}', "a.json").values
        {'lr': 0.0003}
    """
    try:
        json.loads(text)
    except json.JSONDecodeError as error:
        raise ConfigError(f"{name}:{error.lineno}:{error.colno}: this is not valid JSON: {error.msg}") from None
    except (RecursionError, ValueError) as error:
        detail = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise ConfigError(f"{name}: this is not valid JSON: {detail}") from None
    # JSON is YAML but for tabs between values, and for control characters and Unicode's line breaks within text.
    return parse(_CONTROL.sub(lambda found: f"\\u{ord(found[0]):04x}", text.replace("\t", " ")), name)


def plain_scalar(text: str) -> Any:
    """The value of a text without quotes.

    Example:
        >>> plain_scalar("3e-4"), plain_scalar("true"), plain_scalar("a: b")
        (0.0003, True, 'a: b')
    """
    loader = _Loader("")
    try:
        tag = loader.resolve(yaml.ScalarNode, text, (True, False))
        return loader.construct_object(yaml.ScalarNode(tag, text))
    except ValueError:  # a number of too many digits
        return text
    finally:
        loader.dispose()


class _Reader:
    """Turns YAML nodes into values, notes lines on the way, and counts: aliases can multiply without end."""

    def __init__(self, loader: _Loader, name: str, recorded: bool) -> None:
        self.origins: dict[Path_, str] = {}
        self.spellings: dict[Path_, str] = {}
        self.problems: list[Problem] = []
        self._loader = loader
        self._name = name
        self._recorded = recorded
        self._count = 0

    def value(self, node: yaml.Node, path: Path_, depth: int) -> Any:
        self._count += 1
        if self._count > MOST_NODES or depth > DEEPEST:
            raise ConfigError(f"{self._at(node)}: {TOO_LARGE}")
        if isinstance(node, yaml.CollectionNode) and node.tag not in _COLLECTIONS:
            return self._wrong(path, node, f"the tag {node.tag!r} is not allowed; a configuration is plain values")
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path, depth)
        if isinstance(node, yaml.SequenceNode):
            for index, item in enumerate(node.value):
                self.origins[*path, index] = self._at(item)
            return [self.value(item, (*path, index), depth + 1) for index, item in enumerate(node.value)]
        return self._scalar(node, path)

    def _scalar(self, node: yaml.Node, path: Path_) -> Any:
        try:
            value = self._loader.construct_object(node)
        except ValueError:
            value = node  # such as !!int x, or a number of too many digits
        if isinstance(value, str):
            return self._text(value, node, path)
        if value is None or isinstance(value, (bool, int, float)):
            if node.value:
                self.spellings[path] = node.value
            return value
        return self._wrong(path, node, f"a value is text, a number, true, false or null; got {node.value[:60]!r}")

    def _text(self, text: str, node: yaml.Node, path: Path_) -> Any:
        text = _joined(text)
        if _SURROGATE.search(text):
            return self._wrong(path, node, "text with half a character (a lone surrogate)")
        if "${" not in text or isinstance(node, _Literal):
            return text
        if self._recorded:
            return unescaped(text)
        try:
            found = substituted(text)
        except ValueError as error:
            return self._wrong(path, node, str(error))
        if found.names:
            self.origins[path] = f"{self._at(node)} ({', '.join(f'${{{name}}}' for name in found.names)})"
        if not found.whole:
            return found.text
        tag = self._loader.resolve(yaml.ScalarNode, found.text, (True, False))
        return self._scalar(_Literal(tag, found.text, node.start_mark), path)

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
            key = _joined(key) if isinstance(key, str) else key
            if not isinstance(key, str):
                given = repr(key_node.value) if isinstance(key_node, yaml.ScalarNode) else "a list or section"
                self._wrong(path, key_node, f"a key must be text, got {given}; put it in quotes", is_unread=False)
            elif key in own:
                self._wrong(
                    (*path, key), key_node, f"the key {key!r} is already set in {own[key]}; keep one", is_unread=False
                )
            else:
                own[key] = self.origins[*path, key] = self._at(key_node)
                values[key] = self.value(value_node, (*path, key), depth + 1)
        return values

    def _merged(self, node: yaml.Node, path: Path_, depth: int) -> dict[str, Any]:
        """What `<<:` brings in; of several mappings the first one wins."""
        merged: dict[str, Any] = {}
        for part in reversed(node.value if isinstance(node, yaml.SequenceNode) else [node]):
            if isinstance(part, yaml.MappingNode):
                for key_node, _ in part.value:
                    self.origins[*path, str(key_node.value)] = self._at(key_node)
                merged.update(self.value(part, path, depth + 1))
            else:
                self._wrong(path, part, "<< takes a mapping or a list of mappings", is_unread=False)
        return merged

    def _wrong(self, path: Path_, node: yaml.Node, text: str, *, is_unread: bool = True) -> None:
        self.problems.append(Problem(path, f"{self._at(node)}: {text}", is_unread))

    def _at(self, node: yaml.Node) -> str:
        mark = node.start_mark
        return self._name if self._name.startswith("override ") else f"{self._name}:{mark.line + 1}:{mark.column + 1}"


def _joined(text: str) -> str:
    """The text with pairs of surrogates, as JSON writes a character, as that character."""
    if not _SURROGATE.search(text):
        return text
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")


class _Literal(yaml.ScalarNode):
    """A scalar that is not looked at for variables again."""
