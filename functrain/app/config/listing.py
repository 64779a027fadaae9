"""What a configuration can name, as text; nothing of it is imported."""

import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from functrain.app.config.catalogue import FUNCTIONS, KINDS, Function, declared, functions
from functrain.app.config.suggestions import did_you_mean
from functrain.app.config.wording import shown
from functrain.app.plain_json import json_lines
from functrain.foundation.errors import ConfigError

WIDTH = 120
OWN = "or your own as package.module:function"
NONE = "none of functrain's own; name yours as package.module:function"
_TYPES: Mapping[str, str] = {
    "integer": "whole number",
    "number": "number",
    "string": "text",
    "boolean": "true or false",
    "null": "null",
    "array": "list",
    "object": "section",
}


def all_kinds() -> Iterator[str]:
    """A paragraph for each kind."""
    width = max(map(len, KINDS.values()))
    for kind, plural in KINDS.items():
        names = ", ".join(functions(kind)) or NONE
        yield from _row([plural, names], [width])


def kind_named(text: str) -> str:
    """The kind of a name in the singular or plural.

    Raises:
        ConfigError: if there is none.

    Example:
        >>> kind_named("optimizers"), kind_named("data sets")
        ('optimizer', 'data')
    """
    plain = text.lower().replace(" ", "").replace("-", "")
    found = next((kind for kind, plural in KINDS.items() if plain in (kind, plural, plural.removesuffix("s"))), None)
    if found is None:
        raise ConfigError(
            f"there is no list of {text!r}{did_you_mean(plain, KINDS.values())} known: {', '.join(KINDS.values())}"
        )
    return found


def names_of(kind: str) -> Iterator[str]:
    """A line for each function of a kind."""
    found = functions(kind)
    width = max(map(len, found), default=0)
    for function in found.values():
        yield from _row([function.name, function.summary], [width])
    yield OWN if found else NONE


def parameters_of(kind: str, name: str) -> Iterator[str]:
    """What a function does, and its parameters.

    Raises:
        ConfigError: if there is none.
    """
    function = _named(kind, name)
    yield from textwrap.wrap(f"{name}: {function.summary}", WIDTH)
    rows = [[key, type_of(facts), _default(key, function, facts)] for key, facts in function.parameters.items()]
    if rows:
        yield ""
        header = ["parameter", "values", "default"]
        widths = [max(len(row[column]) for row in [header, *rows]) for column in range(3)]
        yield from _row([*header, "meaning"], widths)
        for row, facts in zip(rows, function.parameters.values(), strict=True):
            yield from _row([*row, facts.get("description", "")], widths)
    section = next((path for path, own in FUNCTIONS.items() if own == kind), None)
    if section is not None:
        keys = [path[-1] for path in declared() if path[:-1] == section]
        yield ""
        yield f"Further keys of {'.'.join(map(str, section))}: {', '.join(map(str, keys))}"
    if function.is_open:
        yield "It takes any further keyword."


def as_json(kind: str | None, name: str | None) -> Iterator[str]:
    """What the other functions say, for programs.

    Raises:
        ConfigError: there is no such name.
    """
    if kind is None:
        value: Any = {plural: list(functions(each)) for each, plural in KINDS.items()}
    elif name is None:
        value = {function.name: function.summary for function in functions(kind).values()}
    else:
        function = _named(kind, name)
        parameters = {key: {"values": type_of(facts), **_shown(facts)} for key, facts in function.parameters.items()}
        value = {"name": name, "summary": function.summary, "parameters": parameters}
        value["required"] = list(function.required)
    yield from json_lines(value)


def _shown(facts: Mapping[str, Any]) -> dict[str, Any]:
    return {key: facts[key] for key in ("default", "description") if key in facts}


def _named(kind: str, name: str) -> Function:
    found = functions(kind)
    if name in found:
        return found[name]
    if ":" in name:
        raise ConfigError(f"{name!r} is your own: its signature and docstring are in its file")
    raise ConfigError(f"unknown {kind} {name!r}{did_you_mean(name, found)} known: {', '.join(found)}")


def type_of(facts: Mapping[str, Any]) -> str:
    """The values of a key in words.

    Example:
        >>> type_of({"anyOf": [{"type": "integer", "minimum": 1}, {"type": "null"}]})
        'whole number, 1 or more, or null'
    """
    words = [_words(each) for each in facts["anyOf"] if "$ref" not in each]
    return ", or ".join(dict.fromkeys(words))


def _words(facts: Mapping[str, Any]) -> str:
    if "enum" in facts or "const" in facts:
        return ", ".join(map(str, facts.get("enum", [facts.get("const")])))
    if not facts:
        return "anything"
    limits = {"minimum": "{} or more", "exclusiveMinimum": "above {}", "maximum": "{} or less"}
    limits["exclusiveMaximum"] = "below {}"
    found = [text.format(f"{facts[key]:g}") for key, text in limits.items() if key in facts]
    kind = _TYPES.get(facts.get("type", ""), "anything")
    items: Sequence[Mapping[str, Any]] = facts.get("prefixItems", ())
    if items:
        kind = f"list of {len(items)}"
    return ", ".join([kind, *found])


def _default(key: str, function: Function, facts: Mapping[str, Any]) -> str:
    if key in function.required:
        return "(required)"
    return shown(facts["default"]) if "default" in facts else ""


def _row(cells: Iterable[str], widths: Sequence[int]) -> Iterator[str]:
    """A row; the last cell is wrapped."""
    *first, last = cells
    head = "".join(f"{cell:{width}}  " for cell, width in zip(first, widths, strict=True))
    wrapped = textwrap.wrap(last, max(WIDTH - len(head), 30)) or [""]
    yield f"{head}{wrapped[0]}".rstrip()
    for line in wrapped[1:]:
        yield " " * len(head) + line
