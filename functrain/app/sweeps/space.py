"""What a sweep searches: the values and the ranges that the overrides of the command line give to keys."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from functrain.app.config.yaml_text import dump_flow, parse
from functrain.foundation.errors import ConfigError

DIGITS = 4  # significant ones of a number that is drawn from a range
RANGES = ("log", "uniform", "int")
CHOICE = "choice"
_CALL = re.compile(r"(log|uniform|int|choice)\((.*)\)", re.DOTALL)
_OPENS, _CLOSES = "([{", ")]}"

Value = Any  # of a configuration: text, a number, true, false, null, a list or a section


@dataclass(frozen=True)
class Range:
    """A range of numbers.

    Attributes:
        kind: "log" (log-uniform), "uniform", or "int" (whole numbers, both ends included).
        low, high: its ends.
    """

    kind: str
    low: float
    high: float

    def at(self, fraction: float) -> float | int:
        """The number at a fraction, from 0 to less than 1, of the range.

        Example:
            >>> Range("log", 1e-4, 1e-2).at(0.5), Range("int", 1, 3).at(0.99)
            (0.001, 3)
        """
        if self.kind == "int":
            return int(self.low) + int(fraction * (int(self.high) - int(self.low) + 1))
        if self.kind == "log":
            low, high = math.log(self.low), math.log(self.high)
            return self.rounded(math.exp(low + fraction * (high - low)))
        return self.rounded(self.low + fraction * (self.high - self.low))

    def rounded(self, number: float) -> float | int:
        """A number of the range with `DIGITS` digits, so that people can read it."""
        return int(number) if self.kind == "int" else min(max(float(f"{number:.{DIGITS}g}"), self.low), self.high)

    def __str__(self) -> str:
        ends = [str(int(end)) if self.kind == "int" else f"{end:g}" for end in (self.low, self.high)]
        return f"{self.kind}({', '.join(ends)})"


@dataclass(frozen=True)
class Key:
    """A key that is searched.

    Attributes:
        name: as it was typed: "optimizer.lr", or "+model.depth".
        texts: its values as they were typed; empty if `range` has them.
        range: they are drawn from.
    """

    name: str
    texts: tuple[str, ...] = ()
    range: Range | None = None

    @property
    def dotted(self) -> str:
        """The key in the configuration."""
        return self.name.removeprefix("+")


@dataclass(frozen=True)
class Space:
    """What a command line searches.

    Attributes:
        keys: that differ from member to member.
        fixed: the overrides that all members have.
    """

    keys: tuple[Key, ...]
    fixed: tuple[str, ...]

    @property
    def ranges(self) -> tuple[Key, ...]:
        """The keys whose values are drawn."""
        return tuple(key for key in self.keys if key.range is not None)


def read_space(overrides: Sequence[str]) -> Space:
    """The space that overrides describe. One with a comma list, `choice(...)` or a range is searched.

    Raises:
        ConfigError: with a line for each problem.

    Example:
        >>> space = read_space(["optimizer.lr=1e-3,3e-4", "model={name: a, width: 3}", "model.depth=int(1, 4)"])
        >>> [key.texts or str(key.range) for key in space.keys], space.fixed
        ([('1e-3', '3e-4'), 'int(1, 4)'], ('model={name: a, width: 3}',))
    """
    keys: dict[str, Key] = {}
    fixed: list[str] = []
    for text in overrides:
        found = _key(text)
        if found is None:
            fixed.append(text)
        elif found.dotted in keys:
            raise ConfigError(f"{found.dotted} is searched twice; give all of its values in one override")
        else:
            keys[found.dotted] = found
    for text in fixed:
        name = text.partition("=")[0].strip().removeprefix("+")
        if name in keys:
            raise ConfigError(f"{name} is searched, and override {text!r} sets it; give it once")
    return Space(tuple(keys.values()), tuple(fixed))


def _key(text: str) -> Key | None:
    """The key that an override searches; None if it sets one value."""
    name, equals, value = text.partition("=")
    if not equals:
        return None  # the planner refuses it
    name, value = name.strip(), value.strip()
    call = _CALL.fullmatch(value)
    if call is not None and call[1] in RANGES:
        return Key(name, range=_range(text, call[1], split(call[2])))
    values = split(value if call is None else call[2])
    if call is None and len(values) == 1:
        return None
    if not all(values):
        raise ConfigError(f"override {text!r}: there is a comma with no value at its side")
    for each in values:
        parse(each, f"override {text!r}").sound()
    return Key(name, tuple(values))


def _range(text: str, kind: str, ends: Sequence[str]) -> Range:
    wish = f"override {text!r}: write {kind}(low, high), such as "
    wish += {"log": "log(1e-4, 1e-2)", "uniform": "uniform(0, 0.5)", "int": "int(1, 8)"}[kind]
    numbers = [value_of(end, text) for end in ends]
    sound = [type(number) in ((int,) if kind == "int" else (int, float)) for number in numbers]
    if len(numbers) != 2 or not all(sound):
        raise ConfigError(wish)
    low, high = numbers
    if not low < high or (kind == "log" and low <= 0) or not math.isfinite(high - low):
        raise ConfigError(f"{wish}; low must be below high{', and above 0' * (kind == 'log')}")
    return Range(kind, low, high)


def value_of(text: str, override: str) -> Value:
    """The value of a text in YAML.

    Raises:
        ConfigError: it is none.
    """
    return parse(text, f"override {override!r}").sound().values


def split(text: str) -> list[str]:
    """The parts of a text between its commas, but for those in brackets or quotes.

    Example:
        >>> split("1e-3, 3e-4"), split("[1,2],{a: 1, b: 2}"), split("'a,b'")
        (['1e-3', '3e-4'], ['[1,2]', '{a: 1, b: 2}'], ["'a,b'"])
    """
    parts, depth, quote = [""], 0, ""
    for character in text:
        if quote:
            quote = "" if character == quote else quote
        elif character in "'\"" and (depth or not parts[-1].strip()):  # within a word it is an apostrophe
            quote = character
        elif character in _OPENS:
            depth += 1
        elif character in _CLOSES:
            depth -= 1
        elif character == "," and depth <= 0:
            parts.append("")
            continue
        parts[-1] += character
    return [part.strip() for part in parts]


def override_text(name: str, value: Value) -> str:
    """An override that sets a key to a value.

    Example:
        >>> override_text("optimizer.lr", 1e-05), override_text("name", "1e3")
        ('optimizer.lr=1.0e-05', "name='1e3'")
    """
    return f"{name}={dump_flow(value)}"


def settings_of(point: Sequence[str]) -> Mapping[str, Value]:
    """The values that a member's overrides give, by key.

    Example:
        >>> settings_of(["optimizer.lr=1e-3", "+model.depth=2"])
        {'optimizer.lr': 0.001, 'model.depth': 2}
    """
    found = {}
    for text in point:
        name, _, value = text.partition("=")
        found[name.strip().removeprefix("+")] = value_of(value, text)
    return found
