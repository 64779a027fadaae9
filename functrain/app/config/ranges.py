"""What a key is searched over: the values or the range that stand for it, on the command line or in `sweep.axes`."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from functrain.app.config.yaml_text import parse
from functrain.foundation.errors import ConfigError

DIGITS = 4  # significant ones of a number that is drawn from a range
RANGES = ("log", "uniform", "int")
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
class Axis:
    """A key that is searched.

    Attributes:
        name: as it was typed: "optimizer.lr", or "+model.depth".
        texts: its values as they were typed; empty if `range` has them.
        range: they are drawn from.
        origin: where they are written, for a message.
    """

    name: str
    texts: tuple[str, ...] = ()
    range: Range | None = None
    origin: str = field(default="", compare=False)

    @property
    def dotted(self) -> str:
        """The key in the configuration."""
        return self.name.removeprefix("+")


def searched(name: str, text: str, where: str) -> Axis | None:
    """The key whose values a text gives; None if it gives one value, which is not searched.

    Args:
        name: of the key.
        text: "1,2,3", "choice(1, 2, 3)" or a range.
        where: the text stands, for a message.

    Raises:
        ConfigError: one of the values cannot be read.

    Example:
        >>> searched("optimizer.lr", "1e-3,3e-4", "here").texts, searched("optimizer.lr", "1e-3", "here")
        (('1e-3', '3e-4'), None)
    """
    call = _CALL.fullmatch(text)
    if call is not None and call[1] in RANGES:
        return Axis(name, range=_range(where, call[1], split(call[2])))
    values = split(text if call is None else call[2])
    if call is None and len(values) == 1:
        return None
    if not all(values):
        raise ConfigError(f"{where}: there is a comma with no value at its side")
    for each in values:
        value_of(each, where)
    return Axis(name, tuple(values))


def _range(where: str, kind: str, ends: Sequence[str]) -> Range:
    wish = f"{where}: write {kind}(low, high), such as "
    wish += {"log": "log(1e-4, 1e-2)", "uniform": "uniform(0, 0.5)", "int": "int(1, 8)"}[kind]
    numbers = [value_of(end, where) for end in ends]
    sound = [type(number) in ((int,) if kind == "int" else (int, float)) for number in numbers]
    if len(numbers) != 2 or not all(sound):
        raise ConfigError(wish)
    low, high = numbers
    if not low < high or (kind == "log" and low <= 0) or not math.isfinite(high - low):
        raise ConfigError(f"{wish}; low must be below high{', and above 0' * (kind == 'log')}")
    return Range(kind, low, high)


def value_of(text: str, where: str) -> Value:
    """The value of a text in YAML.

    Raises:
        ConfigError: it is none; the message says where the text stands.
    """
    return parse(text, where).sound().values


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
