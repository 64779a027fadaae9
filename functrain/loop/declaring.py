"""How a setting is declared: default, kind, documentation, effect on bits, and place in a configuration."""

from collections.abc import Iterator, Mapping
from dataclasses import field, fields
from typing import Any, NamedTuple

from functrain.loop.kinds import Kind


def setting(
    default: Any, kind: Kind, doc: str, *, bits: bool = True, optional: bool = False, key: str | None = ""
) -> Any:
    """A field of a group.

    Args:
        default: its default. None is allowed wherever it is the default.
        kind: what is allowed.
        doc: what it does, for `fit`'s docstring and the page of settings.
        bits: whether the bits of a run may depend on it; a strict resume lets the other ones change.
        optional: None is allowed, though it is not the default.
        key: its key in the section of a configuration; default: its name. None if a configuration does not have it.
    """
    optional = optional or default is None
    metadata = {"kind": kind, "doc": doc, "bits": bits, "optional": optional, "key": key}
    return field(default=default, metadata=metadata)


class Declared(NamedTuple):
    """A setting as it is declared.

    Attributes:
        name: the keyword of `fit`.
        default, kind, doc, bits, optional: see `setting`.
        annotation: the type of its values.
        section, key: its place in a configuration; the key is None if it has none.
    """

    name: str
    default: Any
    annotation: Any
    kind: Kind
    doc: str
    bits: bool
    optional: bool
    section: str
    key: str | None

    @property
    def place(self) -> str:
        """The dotted path in a configuration."""
        return f"{self.section}.{self.key}"


def declarations(groups: Mapping[type, str]) -> Iterator[Declared]:
    """The settings of groups.

    Args:
        groups: dataclasses with fields that `setting` made, each with its section of a configuration.
    """
    for group, section in groups.items():
        for each in fields(group):
            metadata = {**each.metadata, "key": each.name if each.metadata["key"] == "" else each.metadata["key"]}
            yield Declared(name=each.name, default=each.default, annotation=each.type, section=section, **metadata)
