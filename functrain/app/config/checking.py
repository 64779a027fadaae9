"""A quick check of a configuration against its JSON Schema, without pydantic and torch.

It says yes only where `functrain.app.config.loading` surely finds no fault; that module words the errors.
"""

from collections.abc import Mapping
from typing import Any

from functrain.app.config.catalogue import schema
from functrain.app.config.members_section import members_problems
from functrain.app.config.source import Source
from functrain.app.config.sweep_section import KEY as SWEEP
from functrain.app.config.sweep_section import sweep_problems


def is_surely_sound(source: Source) -> bool:
    """Whether a configuration has no fault but in the parameters of the user's own functions."""
    values = {"name": "x", **source.values}
    folders = [values["name"], values.get("stage") or "x"]
    return (
        not source.problems
        and all(isinstance(name, str) and name.isidentifier() for name in folders)
        and _fits(values, schema())
        and _has_required(values, schema()["else"])
        and _keeps_rules(source)
        and not any(sweep_problems(source))
        and not any(members_problems(source))
    )


def is_surely_sound_sweep(source: Source) -> bool:
    """Whether the section `sweep` of a configuration has no fault, whatever the rest has."""
    return (
        not any(problem.path[:1] == (SWEEP,) for problem in source.problems)
        and _fits(source.values.get(SWEEP), schema()["properties"][SWEEP])
        and not any(sweep_problems(source))
    )


def _keeps_rules(source: Source) -> bool:
    """Whether the rules between keys surely hold, which a schema does not have."""

    def given(*path: str) -> bool:
        return bool(source.at(path))

    averages = given("training", "ema_decay") or not any(
        given("training", key) for key in ("ema_warmup", "ema_every", "ema_average_buffers")
    )
    warm_ups = [given("optimizer", "schedule", key) for key in ("warmup_steps", "warmup_fraction")]
    scales = [given("training", key) for key in ("loss_scale", "loss_scaling")]
    begins = [given("init_from", key) for key in ("path", "stage")]
    has_a_beginning = sum(begins) == 1 or source.at(("init_from",)) is None
    has_an_end = given("training", "epochs") or given("training", "steps")
    return (
        averages
        and has_an_end
        and has_a_beginning
        and not all(warm_ups)
        and not all(scales)
        and not given("data", "collate_fn")
        and not given("distributed", "shards")
        and not given("distributed", "blocks")
        and not given("distributed", "mesh")
        and not given("distributed", "tensor_parallel")
        and not given("distributed", "sync_batchnorm")
        and source.at(("distributed", "reduction")) in (None, "fast")
        and not isinstance(source.at(("data", "pad_to")), list)
    )


def _has_required(values: Any, rule: Mapping[str, Any]) -> bool:
    if not isinstance(values, dict):
        return True
    inside = rule.get("properties", {})
    return all(name in values for name in rule.get("required", ())) and all(
        _has_required(values.get(name), each) for name, each in inside.items()
    )


def _fits(value: Any, facts: Mapping[str, Any]) -> bool:
    """Whether a value is one that a part of the schema describes."""
    if "$ref" in facts:
        name = facts["$ref"].removeprefix("#/$defs/")
        return "." in name and _fits(value, schema()["$defs"][name])
    if "anyOf" in facts:
        return any(_fits(value, each) for each in facts["anyOf"])
    if "enum" in facts or "const" in facts:
        return value in facts.get("enum", [facts.get("const")])
    if "properties" in facts:
        return isinstance(value, dict) and _section_fits(value, facts)
    return _is_of_type(value, facts) and _is_within(value, facts)


def _section_fits(value: Mapping[str, Any], facts: Mapping[str, Any]) -> bool:
    known, rest = facts["properties"], facts["additionalProperties"]
    if not all(key in known or rest for key in value):
        return False
    if not all(known[key] is True or _fits(each, known[key]) for key, each in value.items() if key in known):
        return False
    required = (name for name in facts.get("x-required", ()) if name != "total_steps")
    if not all(name in value for name in required):
        return False
    named = next((each["then"] for each in facts.get("allOf", ()) if _names(value, each)), None)
    return named is None or _fits(value, named)


def _names(section: Mapping[str, Any], rule: Mapping[str, Any]) -> bool:
    return bool(section.get("name") == rule["if"]["properties"]["name"]["const"])


def _is_of_type(value: Any, facts: Mapping[str, Any]) -> bool:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    types: Mapping[str, bool] = {
        "null": value is None,
        "boolean": isinstance(value, bool),
        "string": isinstance(value, str),
        "integer": is_number and isinstance(value, int),
        "number": is_number and abs(value) < float("inf"),
        "array": isinstance(value, list),
        "object": isinstance(value, dict),
    }
    return "type" not in facts or types[facts["type"]]


def _is_within(value: Any, facts: Mapping[str, Any]) -> bool:
    if isinstance(value, list):
        first = facts.get("prefixItems", [])
        lengths = facts.get("minItems", 0) <= len(value) <= facts.get("maxItems", len(value))
        items = [*first, *[facts.get("items", {})] * (len(value) - len(first))]
        return lengths and all(_fits(each, item) for each, item in zip(value, items, strict=False))
    if isinstance(value, str):
        return len(value) >= facts.get("minLength", 0) and (":" in value or facts.get("pattern") is None)
    if isinstance(value, (int, float)):
        return (
            value >= facts.get("minimum", value)
            and value <= facts.get("maximum", value)
            and ("exclusiveMinimum" not in facts or value > facts["exclusiveMinimum"])
            and ("exclusiveMaximum" not in facts or value < facts["exclusiveMaximum"])
        )
    return True
