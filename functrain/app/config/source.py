"""Values of a configuration that remember where they were written."""

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from functrain.app.config.wording import shown
from functrain.foundation.errors import ConfigError

MOST_PROBLEMS = 50  # in one message

Path_ = tuple[str | int, ...]  # the way to a value: ("training", "epochs")


class Problem(NamedTuple):
    """What is wrong with a configuration.

    Attributes:
        path: where.
        text: "file:line:column: what is wrong".
        is_unread: the value could not be read; null stands in its place.
    """

    path: Path_
    text: str
    is_unread: bool = False


@dataclass(frozen=True)
class Source:
    """Values, and for each the place it was written at.

    Attributes:
        values: dictionaries, lists and scalars.
        origins: path of a value -> "file:line:column" or "override 'key=value'".
        spellings: path of a value that is no text -> how it is written: `on`, `1e8`.
        problems: what is wrong with the text.
        folders: of the files that name functions of their own, and say no `code`.
        stage: the stage that the values are of; "" without stages.
        own: the paths that this stage itself says; the others it has from the rest of the configuration.
    """

    values: Any
    origins: Mapping[Path_, str]
    spellings: Mapping[Path_, str] = field(default_factory=dict)
    problems: tuple[Problem, ...] = ()
    folders: tuple[str, ...] = ()
    stage: str = ""
    own: frozenset[Path_] = frozenset()

    def replace(self, **changes: Any) -> "Source":
        """A source that differs in these fields."""
        return dataclasses.replace(self, **changes)

    def origin(self, path: Path_) -> str:
        """Where a value was written; for one that is missing, where its section begins."""
        while path and path not in self.origins:
            path = path[:-1]
        return self.origins[path]

    def at(self, path: Path_) -> Any:
        """The value at a path; None if there is none."""
        found = self.values
        for key in path:
            if isinstance(found, list) and isinstance(key, int) and key < len(found):
                found = found[key]
            else:
                found = found.get(key) if isinstance(found, dict) else None
        return found

    def spelling(self, path: Path_, value: Any) -> str:
        """How a value is written, for a message."""
        return self.spellings.get(path) or shown(value)

    def part(self, key: str) -> "Source":
        """The value of a key, without its origin."""
        return Source(
            self.values[key], {}, {path[1:]: text for path, text in self.spellings.items() if path[:1] == (key,)}
        )

    def without(self, key: str) -> "Source":
        """The source without a key of the top level."""
        values = {name: value for name, value in self.values.items() if name != key}
        origins, spellings = (
            {path: text for path, text in known.items() if path[:1] != (key,)}
            for known in (self.origins, self.spellings)
        )
        return self.replace(values=values, origins=origins, spellings=spellings)

    def sound(self) -> "Source":
        """This source, if nothing is wrong with its text.

        Raises:
            ConfigError: with a line for each problem.
        """
        if self.problems:
            raise config_error(problem.text for problem in self.problems)
        return self


class Assignment(NamedTuple):
    """A path, and the value that an override sets there."""

    path: Path_
    value: Source


def leaves(tree: Any, path: Path_ = ()) -> Iterator[tuple[Path_, Any]]:
    """The path and the value of each key that holds no section. Lists that hold sections are looked into.

    Example:
        >>> list(leaves({"a": {"b": [1, 2]}, "c": [{"d": 3}]}))
        [(('a', 'b'), [1, 2]), (('c', 0, 'd'), 3)]
    """
    if isinstance(tree, Mapping):
        inside = list(tree.items())
    elif isinstance(tree, list) and any(isinstance(each, Mapping) for each in tree):
        inside = list(enumerate(tree))
    else:
        yield path, tree
        return
    for key, value in inside:
        yield from leaves(value, (*path, key))


def config_error(problems: Any) -> ConfigError:
    """An error with a line for each problem."""
    lines = list(dict.fromkeys(problems))
    if len(lines) == 1:
        return ConfigError(lines[0])
    more = len(lines) - MOST_PROBLEMS
    shortened = lines[:MOST_PROBLEMS] + ([f"... and {more} more"] if more > 0 else [])
    return ConfigError("\n  ".join([f"{len(lines)} problems in the configuration:", *shortened]))
