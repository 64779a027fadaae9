"""The base of a configuration's sections, and how a key is declared."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal, NamedTuple, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema, WrapValidator, create_model
from pydantic.fields import FieldInfo

from functrain.loop.declaring import Declared, declarations
from functrain.loop.kinds import FLAG_OR_AUTO, PART
from functrain.loop.settings import declared


class Section(BaseModel):
    """A section: immutable, strict about types, and without unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Named(Section):
    """A function by name, with parameters."""

    model_config = ConfigDict(extra="allow")

    name: str = Field(description='a name from functrain\'s registry, or "package.module:function" of your own.')

    @property
    def parameters(self) -> dict[str, Any]:
        """The keys that are the function's."""
        return dict(self.model_extra or {})


def key(default: Any, doc: str, *, bits: bool = True, **limits: Any) -> Any:
    """A key of a section.

    Args:
        default: its default; `...` if it must be given.
        doc: what it does, for the page of settings.
        bits: whether the bits of a run may depend on it; a strict resume lets the other ones change.
        limits: as in pydantic's `Field`: `ge`, `gt`, `le`, `lt`.
    """
    return Field(default, description=doc, json_schema_extra={"bits": bits}, **limits)


def _number_or_auto(value: Any, _: Any) -> int | str:
    """A check with one message; pydantic has one for each type of a union."""
    if value == "auto" or (type(value) is int and value >= 1):
        return value
    raise ValueError("must be a whole number, 1 or more, or 'auto'")


def _flag_or_auto(value: Any, _: Any) -> bool | str:
    if value == "auto" or isinstance(value, bool):
        return value
    raise ValueError("must be true, false or 'auto'")


def _number_or_fraction(value: Any, _: Any) -> int | float:
    if PART.accepts(value):
        return value
    raise ValueError(f"must be {PART.allowed}")


NumberOrFraction = Annotated[
    int | float,
    WrapValidator(_number_or_fraction),
    WithJsonSchema(
        {"anyOf": [{"type": "integer", "minimum": 1}, {"type": "number", "exclusiveMinimum": 0, "maximum": 1}]}
    ),
]
NumberOrAuto = Annotated[
    int | str,
    WrapValidator(_number_or_auto),
    WithJsonSchema({"anyOf": [{"type": "integer", "minimum": 1}, {"enum": ["auto"]}]}),
]
FlagOrAuto = Annotated[
    bool | str,
    WrapValidator(_flag_or_auto),
    WithJsonSchema({"anyOf": [{"type": "boolean"}, {"enum": ["auto"]}]}),
]


def keys_of(section: str, rules: Mapping[str, type[Section]] | None = None) -> Any:
    """A base class with the keys that `functrain.loop.settings` declares for a section.

    Args:
        section: its name in a configuration.
        rules: the settings whose values are objects, each with the section that describes one.
    """
    return _section(section, (each for each in declared() if each.section == section), rules or {})


def options_of(options: type) -> Any:
    """A base class with the keys that a dataclass declares as settings."""
    return _section(options.__name__, declarations({options: ""}), {})


def _section(name: str, settings: Iterable[Declared], rules: Mapping[str, type[Section]]) -> Any:
    found: dict[str, Any] = {
        each.key: (_annotation(each, rules), key(each.default, each.doc, bits=each.bits))
        for each in settings
        if each.key is not None
    }
    return create_model(f"{name.capitalize()}Keys", __base__=Section, **found)


def _annotation(setting: Declared, rules: Mapping[str, type[Section]]) -> Any:
    """The type of a key, with the limits of its kind."""
    kind, optional = setting.kind, setting.optional
    if setting.name in rules:
        return rules[setting.name] | None
    if {int, str} <= set(get_args(setting.annotation)):
        return NumberOrAuto | None if optional else NumberOrAuto
    if kind is PART:
        return NumberOrFraction | None
    if kind is FLAG_OR_AUTO:
        return FlagOrAuto
    if kind.choices:
        return Literal[kind.choices]
    if kind.least is None and kind.above is None:
        return setting.annotation
    return Annotated[setting.annotation, Field(ge=kind.least, gt=kind.above)]


class Key(NamedTuple):
    """A key of a configuration: its path and what is declared of it."""

    path: tuple[str, ...]
    info: FieldInfo

    @property
    def dotted(self) -> str:
        """The path as one writes it."""
        return ".".join(self.path)

    @property
    def section(self) -> type[Section] | None:
        """The section that the key holds; None if it holds a value."""
        return section_in(self.info.annotation)

    @property
    def bits(self) -> bool:
        """Whether the bits of a run may depend on it."""
        extra = self.info.json_schema_extra
        return not isinstance(extra, dict) or bool(extra.get("bits", True))


def section_in(annotation: Any) -> type[Section] | None:
    """The section that a key of this type holds.

    Example:
        >>> section_in(Named | None), section_in(int | None)
        (<class 'functrain.app.config.keys.Named'>, None)
    """
    if get_origin(annotation) is list:
        return None
    options = get_args(annotation) if get_origin(annotation) is not None else (annotation,)
    return next((each for each in options if isinstance(each, type) and issubclass(each, Section)), None)


def item_in(annotation: Any) -> type[Section] | None:
    """The section that each item of a list is, for a key of this type."""
    return section_in(get_args(annotation)[0]) if get_origin(annotation) is list else None


def keys_in(section: type[Section], path: Sequence[str] = ()) -> Iterator[Key]:
    """The keys of a section, each followed by those of the section in it."""
    for name, info in section.model_fields.items():
        found = Key((*path, name), info)
        yield found
        if found.section is not None:
            yield from keys_in(found.section, found.path)
