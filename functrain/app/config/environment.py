"""Environment variables in the values of a configuration: `${NAME}` and `${NAME:default}`."""

import os
import re
from typing import NamedTuple

_PART = re.compile(r"\$\$\{|\$\{(?P<inside>[^{}]*)(?P<end>\}?)")
_INSIDE = re.compile(r"(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::(?P<default>.*))?", re.DOTALL)


class Substituted(NamedTuple):
    """A text with the values of its variables.

    Attributes:
        text: the text.
        names: the variables that it refers to.
        whole: it is one reference and nothing else, so that it may become a number.
    """

    text: str
    names: tuple[str, ...]
    whole: bool


def substituted(text: str) -> Substituted:
    """Replace the variables in a text. `$${` stands for `${` itself.

    Raises:
        ValueError: a variable is not set and has no default, or a reference is not well-formed.

    Example:
        >>> substituted("${FUNCTRAIN_NO_SUCH:3e-4}"), substituted("a$${b}").text
        (Substituted(text='3e-4', names=('FUNCTRAIN_NO_SUCH',), whole=True), 'a${b}')
    """
    names: list[str] = []

    def value(found: re.Match[str]) -> str:
        if found["inside"] is None:
            return "${"
        if not found["end"]:
            raise ValueError(
                f"{found[0]!r} has no closing brace, or a brace within it. A reference is ${{NAME}} or "
                "${NAME:default}, in quotes within {...} and [...]; $${ stands for ${ itself"
            )
        inside = _INSIDE.fullmatch(found["inside"])
        if inside is None:
            raise ValueError(f"{found[0]!r} is no reference to a variable: write ${{NAME}} or ${{NAME:default}}")
        name, default = inside["name"], inside["default"]
        if default is not None and re.match(r"[-=?+][^0-9.]", f"{default} "):
            raise ValueError(f"{found[0]!r} has a default as in a shell; here it is ${{{name}:{default[1:]}}}")
        names.append(name)
        if name in os.environ:
            return os.environ[name]
        if default is None:
            raise ValueError(
                f"the environment variable {name} is not set; set it, or give a default: ${{{name}:default}}"
            )
        return default

    whole = _PART.fullmatch(text)
    result = _PART.sub(value, text)
    return Substituted(result, tuple(names), bool(whole and names))


def unescaped(text: str) -> str:
    """A text that may refer to no variable, as `escaped` has written it."""
    return text.replace("$${", "${")


def escaped(text: str) -> str:
    """A text that stands for itself.

    Example:
        >>> escaped("${HOME}")
        '$${HOME}'
    """
    return text.replace("${", "$${")
