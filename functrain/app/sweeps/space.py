"""What a sweep searches: the values and the ranges that the overrides of the command line give to keys."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from functrain.app.config.ranges import Axis, Value, searched, value_of
from functrain.app.config.yaml_text import dump_flow
from functrain.foundation.errors import ConfigError


@dataclass(frozen=True)
class Space:
    """What a command line searches.

    Attributes:
        keys: that differ from member to member.
        fixed: the overrides that all members have.
    """

    keys: tuple[Axis, ...]
    fixed: tuple[str, ...]

    @property
    def ranges(self) -> tuple[Axis, ...]:
        """The keys whose values are drawn."""
        return tuple(key for key in self.keys if key.range is not None)

    @property
    def fixed_names(self) -> set[str]:
        """The keys that `fixed` sets."""
        return {text.partition("=")[0].strip().removeprefix("+") for text in self.fixed}


def read_space(overrides: Sequence[str]) -> Space:
    """The space that overrides describe. One with a comma list, `choice(...)` or a range is searched.

    Raises:
        ConfigError: with a line for each problem.

    Example:
        >>> space = read_space(["optimizer.lr=1e-3,3e-4", "model={name: a, width: 3}", "model.depth=int(1, 4)"])
        >>> [key.texts or str(key.range) for key in space.keys], space.fixed
        ([('1e-3', '3e-4'), 'int(1, 4)'], ('model={name: a, width: 3}',))
    """
    keys: dict[str, Axis] = {}
    fixed: list[str] = []
    for text in overrides:
        name, _, value = (part.strip() for part in text.partition("="))
        found = searched(name, value, f"override {text!r}") if value else None  # the planner refuses it without "="
        if found is None:
            fixed.append(text)
        elif found.dotted in keys:
            raise ConfigError(f"{found.dotted} is searched twice; give all of its values in one override")
        else:
            keys[found.dotted] = replace(found, origin=f"override {text!r}")
    for text in fixed:
        name = text.partition("=")[0].strip().removeprefix("+")
        if name in keys:
            raise ConfigError(f"{name} is searched, and override {text!r} sets it; give it once")
    return Space(tuple(keys.values()), tuple(fixed))


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
        found[name.strip().removeprefix("+")] = value_of(value, f"override {text!r}")
    return found
