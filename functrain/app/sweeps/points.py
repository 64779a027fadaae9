"""The members of a sweep as points of its space: all combinations, a list, or random ones."""

import hashlib
import itertools
import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from functrain.app.config.files import read_source
from functrain.app.config.ranges import Axis
from functrain.app.config.wording import shown
from functrain.app.sweeps.space import Space, override_text, settings_of
from functrain.foundation.errors import ConfigError
from functrain.foundation.regular_files import read_regular

Point = tuple[str, ...]  # the overrides of a member that not all members have

MOST_MEMBERS = 10_000
LARGEST_LIST = 1_000_000  # bytes
DRAWS = 100  # for each member that is wanted: a small space has fewer points than that


def grid(space: Space) -> list[Point]:
    """All combinations of the values; the last key changes first.

    Raises:
        ConfigError: there is nothing to combine, or too much.

    Example:
        >>> from functrain.app.sweeps.space import read_space
        >>> grid(read_space(["seed=0,1", "model.width=32"]))
        [('seed=0',), ('seed=1',)]
    """
    for key in space.ranges:
        raise ConfigError(
            f"{key.name}={key.range} is a range, which a grid cannot go through: draw members with --random N or "
            "--optuna N, or list values"
        )
    _check_count(_product(space))
    return list(itertools.product(*([f"{key.name}={text}" for text in key.texts] for key in space.keys)))


def _product(space: Space) -> int:
    count = 1
    for key in space.keys:
        count *= len(key.texts)
    return count


def _check_count(count: int) -> None:
    if count > MOST_MEMBERS:
        raise ConfigError(f"the sweep would have {count:,} members; at most {MOST_MEMBERS:,} are allowed")


def listed(path: Path, space: Space) -> list[Point]:
    """The members of a file, each with all combinations of the command line's values.

    Args:
        path: a list of sections in YAML or JSON, or else a text with the overrides of a member in each line.
        space: of the command line.

    Raises:
        ConfigError: the file cannot be read, or holds something else.
    """
    own = list(_of_file(path) if path.suffix.lower() in (".yaml", ".yml", ".json") else _of_lines(path))
    if not own:
        raise ConfigError(f"{path} lists no members")
    return with_grid(own, space, path)


def with_grid(points: Sequence[Point], space: Space, source: Path | str) -> list[Point]:
    """Listed members, each with all combinations of the searched values.

    Args:
        points: the listed ones.
        space: what is searched beside them.
        source: the file or key that lists them, for a message.

    Raises:
        ConfigError: a key is both listed and given for all members, or there are too many members.
    """
    others, taken = grid(space), {axis.dotted for axis in space.keys} | space.fixed_names
    for point in points:
        if twice := settings_of(point).keys() & taken:
            raise ConfigError(f"{min(twice)} is set both by {source} and for all members; give it once")
    _check_count(len(points) * len(others))
    return [(*point, *other) for point in points for other in others]


def _of_file(path: Path) -> Iterator[Point]:
    members = read_source(path).sound().values
    if not isinstance(members, list) or not all(isinstance(member, dict) for member in members):
        raise ConfigError(
            f"{path}: a list of members is wanted, each with its keys, such as [{{optimizer.lr: 1e-3}}]; got "
            f"{shown(members)}"
        )
    for member in members:
        yield tuple(override_text(name, value) for name, value in member.items())


def _of_lines(path: Path) -> Iterator[Point]:
    try:
        lines = read_regular(path, LARGEST_LIST).decode().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from None
    for number, line in enumerate(lines, 1):
        try:
            point = tuple(shlex.split(line, comments=True))
        except ValueError as error:
            raise ConfigError(f"{path}:{number}: {error}") from None
        if strange := [text for text in point if "=" not in text]:
            raise ConfigError(f"{path}:{number}: write key.path=value, such as training.epochs=5; got {strange[0]!r}")
        if point:
            yield point


def random_points(space: Space, count: int, seed: int) -> list[Point]:
    """Points that seed, key and number alone decide, all different; fewer if the space has fewer.

    Raises:
        ConfigError: nothing is searched, or there are too many.
    """
    if not space.keys:
        raise ConfigError("--random needs keys to draw, such as optimizer.lr='log(1e-4, 1e-2)' or model.width=32,64")
    _check_count(count)
    found: dict[str, Point] = {}
    for number in range(count * DRAWS):
        point = tuple(_drawn(key, number, seed) for key in space.keys)
        found.setdefault(point_key(point), point)
        if len(found) == count:
            break
    return list(found.values())


def _drawn(key: Axis, number: int, seed: int) -> str:
    bits = hashlib.sha256(f"{seed}/{key.dotted}/{number}".encode()).digest()[:6]
    fraction = int.from_bytes(bits) / 2**48
    if key.range is None:
        return f"{key.name}={key.texts[int(fraction * len(key.texts))]}"
    return override_text(key.name, key.range.at(fraction))


def point_key(point: Sequence[str]) -> str:
    """The same text for the same values, however they are written.

    Example:
        >>> point_key(["optimizer.lr=1e-3"]) == point_key(["optimizer.lr=0.001"])
        True
    """
    return json.dumps(settings_of(point), sort_keys=True)


def label(point: Point) -> str:
    """A name for people and for a folder: the last part of each key, and its value.

    Example:
        >>> label(("optimizer.lr=1e-3", "model.name=my/net:x")), label(())
        ('lr=1e-3,name=my-net-x', 'base')
    """
    parts = []
    for text in point:
        name, _, value = text.partition("=")
        parts.append(f"{name.strip().rpartition('.')[2].removeprefix('+')}={_plain(value.strip())}")
    return (",".join(parts) or "base")[:LONGEST_LABEL].rstrip("-.,=")


LONGEST_LABEL = 60
_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._+-")


def _plain(value: str) -> str:
    return "".join(each if each in _PLAIN else "-" for each in value).strip("-")


def columns(points: Sequence[Mapping[str, Any]]) -> list[str]:
    """The keys that any of the members sets, in the order of their first use."""
    return list(dict.fromkeys(name for settings in points for name in settings))
