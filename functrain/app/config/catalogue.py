"""What a configuration can hold, read from the JSON Schema beside this file: without torch, and fast.

`functrain.app.config.json_schema` makes the file from the declarations, and a test compares it with them.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

FILE = Path(__file__).with_name("schema.json")
STAGES = "stages"  # the key of a configuration's stages, each of which changes the other keys
REMOVED = {"$ref": "#/$defs/removed"}  # null where a key does not take it: it removes what the file inherits
VARIABLE = {"$ref": "#/$defs/variable"}  # "${NAME}" in place of a value that is no text

# Kinds of functions, and their plurals.
KINDS: Mapping[str, str] = {
    "model": "models",
    "data": "datasets",
    "objective": "objectives",
    "loss": "losses",
    "optimizer": "optimizers",
    "schedule": "schedules",
    "metric": "metrics",
    "transform": "transforms",
    "callback": "callbacks",
}

# The sections that name functions, and the kinds of these.
FUNCTIONS: Mapping[tuple[str | int, ...], str] = {
    ("model",): "model",
    ("data",): "data",
    ("objective",): "objective",
    ("optimizer",): "optimizer",
    ("optimizer", "schedule"): "schedule",
}

# The lists of such sections.
LISTS: Mapping[str, str] = {"transforms": "transform", "metrics": "metric", "callbacks": "callback"}


@cache
def schema() -> Mapping[str, Any]:
    """The JSON Schema of a configuration file."""
    found: Mapping[str, Any] = json.loads(FILE.read_bytes())
    return found


class Entry(NamedTuple):
    """A key of a configuration.

    Attributes:
        path: of keys.
        facts: its part of the schema.
    """

    path: tuple[str, ...]
    facts: Mapping[str, Any]

    @property
    def dotted(self) -> str:
        """The path as one writes it."""
        return ".".join(self.path)

    @property
    def section(self) -> Mapping[str, Any] | None:
        """The schema of the section that the key holds; None if it holds a value."""
        return section_in(self.facts)

    @property
    def takes_null(self) -> bool:
        """Whether null is a value of the key."""
        return {"type": "null"} in self.facts["anyOf"]


def section_in(facts: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The schema of the section that a key holds; None if it holds a value."""
    return next((each for each in facts["anyOf"] if "properties" in each), None)


def entries(section: Mapping[str, Any] | None = None, path: Sequence[str] = ()) -> Iterator[Entry]:
    """The declared keys of a section (default: of all), each followed by those of the section in it."""
    for name, facts in (schema() if section is None else section)["properties"].items():
        found = Entry((*path, name), facts)
        yield found
        if found.section is not None:
            yield from entries(found.section, found.path)


@cache
def declared() -> Mapping[tuple[str | int, ...], Entry]:
    """The declared keys by their paths."""
    return {entry.path: entry for entry in entries()}


def takes_null(path: tuple[str | int, ...]) -> bool:
    """Whether null is a value of a declared key, also of one in a stage.

    Example:
        >>> takes_null(("training", "clip_norm")), takes_null(("data", "batch_size")), takes_null(("model", "width"))
        (True, False, False)
    """
    place = path[2:] if path[:1] == (STAGES,) else path
    return place in declared() and declared()[place].takes_null


class Function(NamedTuple):
    """A function that a configuration can name.

    Attributes:
        name: the name.
        summary: its first sentence.
        parameters: name -> its part of the schema, with `default` and `description` where there is one.
        required: the parameters without a default.
        is_open: it takes any further keyword.
    """

    name: str
    summary: str
    parameters: Mapping[str, Mapping[str, Any]]
    required: tuple[str, ...]
    is_open: bool


def functions(kind: str) -> dict[str, Function]:
    """The functions of a kind, by name.

    Example:
        >>> functions("optimizer")["adamw"].parameters["weight_decay"]["default"]
        0.01
    """
    found: dict[str, Function] = {}
    for key, facts in schema()["$defs"].items():
        own, _, name = key.partition(".")
        if own == kind and name:
            parameters = {key: each for key, each in facts["properties"].items() if isinstance(each, Mapping)}
            found[name] = Function(
                name, facts["description"], parameters, tuple(facts["x-required"]), facts["additionalProperties"]
            )
    return found
