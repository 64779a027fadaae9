"""TOML as values that remember where they were written.

`tomllib` reads the values but keeps no places, so a scanner of the text finds the keys' places.
"""

import re
import tomllib
from bisect import bisect_right
from collections.abc import Iterator
from typing import Any

from functrain.app.config.environment import substituted
from functrain.app.config.source import Path_, Problem, Source
from functrain.app.config.yaml_text import DEEPEST, MOST_NODES, TOO_LARGE, plain_scalar
from functrain.foundation.errors import ConfigError

_TOKEN = re.compile(
    r'''(?P<blank>[ \t\r]+|\#[^\n]*)
    |(?P<text>"""(?:[^\\]|\\.)*?"""(?:"{0,2})|\'\'\'.*?\'\'\'(?:'{0,2})|"(?:[^"\\\n]|\\.)*"|'[^'\n]*')
    |(?P<bare>[^\s\[\]{},=.\#"']+)
    |(?P<sign>[\[\]{},=.\n])''',
    re.VERBOSE | re.DOTALL,
)


def parse_toml(text: str, name: str) -> Source:
    """Read TOML.

    Args:
        text: a document.
        name: the file's.

    Raises:
        ConfigError: with the place, if it is not TOML.

    Example:
        >>> source = parse_toml("[training]\\nepochs = 3\\n", "a.toml")
        >>> source.values, source.origin(("training", "epochs"))
        ({'training': {'epochs': 3}}, 'a.toml:2:1')
    """
    try:
        values = tomllib.loads(text.replace("\r\n", "\n"))
    except tomllib.TOMLDecodeError as error:
        found = re.fullmatch(r"(.*) \(at (?:line (\d+), column (\d+)|end of document)\)", str(error), re.DOTALL)
        place = f"{name}:{found[2]}:{found[3]}" if found and found[2] else name
        raise ConfigError(f"{place}: this is not valid TOML: {found[1] if found else error}") from None
    except (RecursionError, ValueError) as error:
        detail = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise ConfigError(f"{name}: this is not valid TOML: {detail}") from None
    origins: dict[Path_, str] = {(): name}
    starts = [0, *(match.end() for match in re.finditer("\n", text))]
    for path, offset in _Scanner(text).places():
        line = bisect_right(starts, offset)
        origins.setdefault(path, f"{name}:{line}:{offset - starts[line - 1] + 1}")
    reader = _Reader(origins)
    return Source(reader.value(values, ()), origins, {}, tuple(reader.problems))


class _Reader:
    """Checks values, and replaces environment variables in them."""

    def __init__(self, origins: dict[Path_, str]) -> None:
        self.problems: list[Problem] = []
        self._origins = origins
        self._count = 0

    def value(self, value: Any, path: Path_) -> Any:
        self._count += 1
        if self._count > MOST_NODES or len(path) > DEEPEST:
            raise ConfigError(f"{self._at(path)}: {TOO_LARGE}")
        if isinstance(value, dict):
            return {key: self.value(inner, (*path, key)) for key, inner in value.items()}
        if isinstance(value, list):
            return [self.value(inner, (*path, index)) for index, inner in enumerate(value)]
        if isinstance(value, str) and "${" in value:
            return self._text(value, path)
        if isinstance(value, (bool, int, float, str)):
            return value
        return self._wrong(path, f"a value is text, a number, true or false; got {value}; put it in quotes")

    def _text(self, text: str, path: Path_) -> Any:
        try:
            found = substituted(text)
        except ValueError as error:
            return self._wrong(path, str(error))
        if found.names:
            self._origins[path] = f"{self._at(path)} ({', '.join(f'${{{name}}}' for name in found.names)})"
        return plain_scalar(found.text) if found.whole else found.text

    def _wrong(self, path: Path_, text: str) -> None:
        self.problems.append(Problem(path, f"{self._at(path)}: {text}", is_unread=True))

    def _at(self, path: Path_) -> str:
        while path not in self._origins:
            path = path[:-1]
        return self._origins[path]


class _Scanner:
    """Finds the keys of a text that is valid TOML."""

    def __init__(self, text: str) -> None:
        self._tokens = [
            (match.lastgroup or "", match[0], match.start())
            for match in _TOKEN.finditer(text)
            if match.lastgroup != "blank"
        ]
        self._next = 0

    def places(self) -> Iterator[tuple[Path_, int]]:
        """The path of each key and item, and where it begins."""
        table: Path_ = ()
        tables: dict[Path_, int] = {}  # arrays of tables, with their lengths
        while self._next < len(self._tokens):
            offset = self._tokens[self._next][2]
            if self._skip("\n"):
                continue
            if self._skip("["):
                many = self._skip("[")
                table = self._in_arrays(self._key(), tables, many)
                while self._skip("]"):
                    pass
                yield from ((table[:length], offset) for length in range(1, len(table) + 1))
            else:
                yield from self._assignment(table)

    def _in_arrays(self, key: Path_, tables: dict[Path_, int], many: bool) -> Path_:
        path: Path_ = ()
        for number, part in enumerate(key, 1):
            path = (*path, part)
            if many and number == len(key):
                tables[path] = tables.get(path, 0) + 1
            if path in tables:
                path = (*path, tables[path] - 1)
        return path

    def _assignment(self, table: Path_) -> Iterator[tuple[Path_, int]]:
        offset = self._tokens[self._next][2]
        path = (*table, *(key := self._key()))
        yield from ((path[:length], offset) for length in range(len(path) - len(key) + 1, len(path) + 1))
        self._skip("=")
        yield from self._value(path)

    def _value(self, path: Path_) -> Iterator[tuple[Path_, int]]:
        if self._skip("["):
            index = 0
            while not self._skip("]") and self._next < len(self._tokens):
                if not (self._skip("\n") or self._skip(",")):
                    yield (*path, index), self._tokens[self._next][2]
                    yield from self._value((*path, index))
                    index += 1
        elif self._skip("{"):
            while not self._skip("}") and self._next < len(self._tokens):
                if not (self._skip("\n") or self._skip(",")):
                    yield from self._assignment(path)
        else:
            while self._next < len(self._tokens) and self._tokens[self._next][1] not in ("\n", ",", "]", "}"):
                self._next += 1

    def _key(self) -> Path_:
        parts: list[str] = []
        while self._next < len(self._tokens) and self._tokens[self._next][1] not in ("=", "]", "\n"):
            kind, text, _ = self._tokens[self._next]
            self._next += 1
            if text != ".":
                parts.append(next(iter(tomllib.loads(f"{text} = 0"))) if kind == "text" else text)
        return tuple(parts)

    def _skip(self, sign: str) -> bool:
        if self._next < len(self._tokens) and self._tokens[self._next][:2] == ("sign", sign):
            self._next += 1
            return True
        return False
