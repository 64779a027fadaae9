"""What two descriptions of `functrain.loop.resume.describing` differ in, in words."""

from collections.abc import Mapping
from typing import Any

from functrain.loop.resume.describing import OWN, Description, is_number


def numbers_named(description: Mapping[str, Any], name: str) -> Description:
    """The part of a description that is numbers of this name, wherever they are."""
    return {path: value for path, value in description.items() if _tail(path) == name and is_number(value)}


def changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What two descriptions differ in: numbers and texts; if there are none, code.

    Example:
        >>> changes({"1.eps": 1e-8, "function": "f"}, {"1.eps": 1e-6, "function": "f", "nesterov": True})
        ['eps was 1e-08 and is 1e-06', 'nesterov was absent and is True']
    """
    different = [name for name in {**before, **now} if not _same(before.get(name, _ABSENT), now.get(name, _ABSENT))]
    code = [name for name in different if _tail(name) in ("function", "class")]
    plain = [name for name in different if name not in code]
    shown = _short(plain)
    said = [f"{shown[name]} was {before.get(name, _ABSENT)} and is {now.get(name, _ABSENT)}" for name in plain]
    replaced = [f"the code of {name.rpartition('.')[0] or 'the function'} has changed" for name in code]
    return said or list(dict.fromkeys(replaced))


_ABSENT = "absent"


def _tail(name: str) -> str:
    """The last part of a name, without the number of those that have one name."""
    return name.rpartition(".")[2].partition("#")[0]


def _short(names: list[str]) -> dict[str, str]:
    """Names without the way there, where that leaves them different."""
    last = [_tail(name) for name in names]
    return {name: tail if last.count(tail) == 1 and not tail.isdigit() else name for name, tail in zip(names, last)}


def _same(before: Any, now: Any) -> bool:
    """Byte code can only be compared with that of the same Python; functrain's own functions may have moved."""
    if before == now:
        return True
    if not (isinstance(before, str) and isinstance(now, str)):
        return False
    if before.startswith(f"{OWN}.") and now.startswith(f"{OWN}:"):  # a checkpoint of 0.1 has the module's name, too
        return before.endswith("." + now.removeprefix(f"{OWN}:"))
    if "@" not in before or "@" not in now:
        return False
    (name, code), (other, other_code) = (text.rsplit("@", 1) for text in (before, now))
    return name == other and code.partition(":")[0] != other_code.partition(":")[0]
