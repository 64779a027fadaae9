"""The JSON Schema of a configuration file, made from the declarations.

`python -m functrain.app.config.json_schema` writes the file that `functrain.app.config.catalogue` reads.
"""

import inspect
import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from pydantic import PydanticSchemaGenerationError, TypeAdapter
from pydantic.errors import PydanticInvalidForJsonSchema

from functrain.app.config.catalogue import FILE, FUNCTIONS, LISTS, REMOVED, STAGES, VARIABLE
from functrain.app.config.former import ASKED_FOR, SWITCHES
from functrain.app.config.keys import Key, Named, Section, item_in, keys_in
from functrain.app.config.parameters import signature
from functrain.app.config.registry import REGISTRY
from functrain.app.config.schema import Config, section_at
from functrain.app.config.stages import OF_THE_WHOLE
from functrain.app.config.wording import meaning

DIALECT = "https://json-schema.org/draft/2020-12/schema"
WIDTH = 160  # of a line of the file
_DROPPED = ("title", "default", "description", "bits")  # of pydantic's schema: written here, or of no use


def json_schema() -> dict[str, Any]:
    """The schema."""
    sections = {kind: section_at(path) for path, kind in FUNCTIONS.items()}
    sections |= {kind: section_at((key, 0)) for key, kind in LISTS.items()}
    properties = _properties(Config, ())
    _add_functions(properties, ())
    return {
        "$schema": DIALECT,
        "title": "functrain configuration",
        "description": "A run of functrain: docs/settings.md lists the keys.",
        "type": "object",
        "properties": {"extends": _EXTENDS, STAGES: _stages(properties), **properties},
        "additionalProperties": False,
        "if": {"anyOf": [{"required": ["extends"]}, {"required": [STAGES]}]},
        "else": _required(Config, ()),
        "$defs": {
            "variable": {
                "type": "string",
                "pattern": r"\$\{",
                "description": "An environment variable: ${NAME}, or ${NAME:default}.",
            },
            "removed": {"type": "null", "description": "Removes the value that the file inherits."},
            **{
                f"{kind}.{name}": _function(kind, function, sections.get(kind))
                for kind, table in REGISTRY.items()
                for name, function in table.items()
            },
        },
    }


_EXTENDS = {
    "description": "Configuration files that this one is merged on, relative to this one. Sections are merged; later "
    "files and this one win; lists are replaced; null removes a value.",
    "anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}],
}


def _stages(properties: Mapping[str, Any]) -> dict[str, Any]:
    """Stages by name, or in a list; each has keys of the configuration."""
    keys = {name: {"$ref": f"#/properties/{name}"} for name in properties if name not in OF_THE_WHOLE}
    stage = {"properties": keys, "additionalProperties": False}
    named = {"properties": {"name": {"type": "string"}, **keys}, "additionalProperties": False, "required": ["name"]}
    return {
        "description": "Several runs, one after another: each stage changes keys of the rest. docs/stages.md has more.",
        "anyOf": [
            {"type": "object", "additionalProperties": {"anyOf": [{"type": "object", **stage}, {"type": "null"}]}},
            {"type": "array", "items": {"type": "object", **named}},
            {"type": "null"},
        ],
    }


def _properties(section: type[Section], path: tuple[str, ...]) -> dict[str, Any]:
    plain = section.model_json_schema()["properties"]
    return {
        key.path[-1]: _key(key, plain[key.path[-1]]) for key in keys_in(section, path) if len(key.path) == len(path) + 1
    }


def _key(key: Key, plain: Mapping[str, Any]) -> dict[str, Any]:
    """A key: what it means, its default, and the values that it takes."""
    info = key.info
    facts: dict[str, Any] = {}
    if key.section is not None:
        facts["description"] = " ".join((key.section.__doc__ or "").split())
    else:
        facts["description"] = meaning(info.description or "")
    if not info.is_required():
        facts["default"] = {} if isinstance(info.default, Section) else info.default
    facts["x-bits"] = key.bits
    item = item_in(info.annotation)
    if item is not None:
        return facts | {"anyOf": [{"type": "array", "items": _item(item, key.path)}, REMOVED]}
    if key.section is None:
        return facts | {"anyOf": _alternatives(plain)}
    schema = _section(key.section, key.path)
    null = REMOVED if info.is_required() else {"type": "null"}
    switch = [{"type": "boolean"}, {"enum": ["auto"]}] if key.path[0] in SWITCHES and len(key.path) == 1 else []
    switch += [{"type": "boolean"}] if key.path in ASKED_FOR else []
    return facts | {"anyOf": [schema, *switch, null]}


def _item(item: type[Section], path: tuple[str, ...]) -> dict[str, Any]:
    """An item of a list of functions: a section, or the name alone where there are registered ones."""
    section, kind = _section(item, path) | {"required": ["name"]}, LISTS[path[-1]]
    if not REGISTRY[kind]:
        return section
    _name_functions(section, kind)
    return {"anyOf": [_names(kind), section]}


def _section(section: type[Section], path: tuple[str, ...]) -> dict[str, Any]:
    is_open = issubclass(section, Named)
    return {"type": "object", "properties": _properties(section, path), "additionalProperties": is_open}


def _alternatives(plain: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The values that a key takes: those of its type, a variable, and null."""
    core = list(_flat(plain))
    if not any(each == {} or (each.get("type") == "string" and not {"enum", "const"} & each.keys()) for each in core):
        core.append(VARIABLE)
    if {"type": "null"} not in core and {} not in core:
        core.append(REMOVED)
    return core


def _flat(plain: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    if "anyOf" in plain:
        for each in plain["anyOf"]:
            yield from _flat(each)
    else:
        yield {name: value for name, value in plain.items() if name not in _DROPPED}


def _required(section: type[Section], path: tuple[str, ...]) -> dict[str, Any]:
    """The keys that a file must have, if it extends no other; a run's name is the file's by default."""
    own = [key for key in keys_in(section, path) if len(key.path) == len(path) + 1]
    names = [key.path[-1] for key in own if key.info.is_required() and key.path != ("name",)]
    inside = {key.path[-1]: _required(key.section, key.path) for key in own if key.section is not None}
    properties = {name: rule for name, rule in inside.items() if rule}
    return {**({"required": names} if names else {}), **({"properties": properties} if properties else {})}


def _add_functions(properties: Mapping[str, Any], path: tuple[str, ...]) -> None:
    """Give the sections that name a function the names, and the parameters that belong to each."""
    for name, facts in properties.items():
        for schema in facts.get("anyOf", ()):
            if "properties" not in schema:
                continue
            inside = (*path, name)
            if inside in FUNCTIONS:
                _name_functions(schema, FUNCTIONS[inside])
            _add_functions(schema["properties"], inside)


def _name_functions(schema: dict[str, Any], kind: str) -> None:
    """Give a section that names a function the names, and the parameters that belong to each."""
    schema["properties"]["name"] |= {"anyOf": [*_names(kind)["anyOf"], REMOVED]}
    schema["allOf"] = [
        {
            "if": {"properties": {"name": {"const": each}}, "required": ["name"]},
            "then": {"$ref": f"#/$defs/{kind}.{each}"},
        }
        for each in REGISTRY[kind]
    ]


def _names(kind: str) -> dict[str, Any]:
    return {"anyOf": [{"enum": list(REGISTRY[kind])}, {"type": "string", "pattern": ":|\\$\\{"}]}


def _function(kind: str, function: Callable[..., Any], section: type[Section] | None) -> dict[str, Any]:
    """A registered function: what it does, and its parameters."""
    expected = signature(kind, function)
    docs, defaults = _docs(kind, function), _defaults(function)
    parameters = {
        name: {
            **({"description": meaning(docs[name])} if name in docs else {}),
            **({"default": defaults[name]} if name in defaults else {}),
            "anyOf": _alternatives(_plain(annotation)),
        }
        for name, annotation in expected.types.items()
    }
    declared = dict.fromkeys(section.model_fields if section is not None else (), True)
    return {
        "description": summary(function),
        "properties": {**declared, **parameters},
        "x-required": list(expected.required),
        "additionalProperties": expected.open,
    }


def _plain(annotation: Any) -> dict[str, Any]:
    if annotation is Any:
        return {}
    try:
        return TypeAdapter(annotation).json_schema()
    except (PydanticSchemaGenerationError, PydanticInvalidForJsonSchema):
        return {}


def _defaults(function: Callable[..., Any]) -> dict[str, Any]:
    found = {}
    for name, parameter in inspect.signature(function).parameters.items():
        try:
            found[name] = json.loads(json.dumps(parameter.default))
        except TypeError:
            continue  # none, or one that a configuration has no value for
    return found


def summary(function: Callable[..., Any]) -> str:
    """The first sentence of a docstring."""
    return inspect.cleandoc(function.__doc__ or "").partition("\n\n")[0].replace("\n", " ").rstrip(":")


def _docs(kind: str, function: Callable[..., Any]) -> dict[str, str]:
    """What is said of each parameter, in the docstring or in that of the function which it refers to."""
    other = re.search(r"[Aa]rguments (?:and result )?(?:are those of|as of)\s+`(\w+)`", function.__doc__ or "")
    same = REGISTRY[kind].get(other[1]) if other else None
    return {**(parameter_docs(same) if same is not None else {}), **parameter_docs(function)}


def parameter_docs(function: Callable[..., Any]) -> dict[str, str]:
    """What a docstring says of each parameter under `Args:`."""
    found = re.search(r"^Args:\n((?:[ ].*\n?|\n)+)", inspect.cleandoc(function.__doc__ or ""), re.MULTILINE)
    docs: dict[str, str] = {}
    names: list[str] = []
    for line in (found[1] if found else "").splitlines():
        entry = re.match(r" {4}(\w+(?:, \w+)*): (.*)", line)
        if entry:
            names = entry[1].split(", ")
            docs |= dict.fromkeys(names, entry[2])
        else:
            docs |= {name: f"{docs[name]} {line.strip()}".rstrip() for name in names}
    return docs


def text() -> str:
    """The file."""
    return _laid_out(json_schema(), "") + "\n"


def _laid_out(value: Any, indent: str) -> str:
    """JSON with each value in one line where it fits."""
    line = json.dumps(value, ensure_ascii=False)
    if len(line) + len(indent) <= WIDTH or not isinstance(value, (dict, list)):
        return line
    inside = indent + " "
    if isinstance(value, list):
        return "[\n" + ",\n".join(inside + _laid_out(each, inside) for each in value) + f"\n{indent}]"
    items = (f"{inside}{json.dumps(key)}: {_laid_out(each, inside)}" for key, each in value.items())
    return "{\n" + ",\n".join(items) + f"\n{indent}}}"


if __name__ == "__main__":
    FILE.write_text(text(), encoding="utf-8")
