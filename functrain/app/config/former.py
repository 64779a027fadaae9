"""Read keys in the places where they once stood, and the short form of a section.

The section `training` once held all settings of a run. Runs that were recorded then are still read.
"""

from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any, NamedTuple

from functrain.app.config.catalogue import entries
from functrain.app.config.source import Assignment, Path_, Source


class Move(NamedTuple):
    """Where a key stood, and where it stands."""

    old: Path_
    new: Path_


OF_A_RUN = ("compile", "evaluation", "checkpoint", "logging")  # the sections that were once part of `training`

# The two that most configurations set. They are read in their former places, too.
STILL_READ = (
    Move(("training", "compile"), ("compile", "enabled")),
    Move(("training", "log_every"), ("logging", "log_every")),
)

SWITCHES: Mapping[str, str] = {"compile": "enabled"}  # section -> its key that `section: false` sets
# Sections that `true` asks for with their defaults.
ASKED_FOR = frozenset({("logging", "wandb"), ("logging", "mlflow"), ("sweep", "asha")})


@cache
def moves() -> tuple[Move, ...]:
    """The keys of a run that have moved out of `training`."""
    switches = {(section, key): section for section, key in SWITCHES.items()}
    return tuple(
        Move(("training", switches.get((path[0], path[1]), path[1])), path)
        for path in (entry.path for entry in entries())
        if len(path) == 2 and path[0] in OF_A_RUN
    )


def new_place(path: Path_) -> str | None:
    """Today's dotted place of the key that once stood at a path.

    Example:
        >>> new_place(("training", "keep")), new_place(("training", "epochs"))
        ('checkpoint.keep', None)
    """
    return next((".".join(map(str, new)) for old, new in moves() if old == path), None)


def is_switch(value: Any) -> bool:
    """Whether a value that stands for a section is one of its switch, as in `compile: false`."""
    return isinstance(value, bool) or value == "auto"


def in_its_place(source: Source, *, recorded: bool = False) -> Source:
    """A configuration with its keys where they stand today.

    Args:
        source: as a file has it.
        recorded: whether a run recorded it. Then every former place is read.

    Example:
        >>> in_its_place(Source({"compile": False, "training": {"log_every": 5}}, {(): "a.yaml"})).values
        {'compile': {'enabled': False}, 'training': {}, 'logging': {'log_every': 5}}
    """
    if not isinstance(source.values, dict):
        return source  # the loader of the configuration will refuse it
    for section, switch in SWITCHES.items():
        if is_switch(source.values.get(section)):
            values = {**source.values, section: {switch: source.values[section]}}
            source = _renamed(source, values, Move((section,), (section, switch)))
    for move in moves() if recorded else STILL_READ:
        source = _moved(source, move)
    return asked_for(source)


def asked_for(source: Source) -> Source:
    """A configuration with `{}` or null for each section that true or false stands for.

    Example:
        >>> asked_for(Source({"logging": {"wandb": True, "mlflow": False}}, {(): "a.yaml"})).values
        {'logging': {'wandb': {}, 'mlflow': None}}
    """
    for section, key in ASKED_FOR:
        holder = source.values.get(section)
        if isinstance(holder, dict) and isinstance(holder.get(key), bool):
            source = source.replace(values={**source.values, section: {**holder, key: _section_for(holder[key])}})
    return source


def _section_for(flag: bool) -> dict[str, Any] | None:
    return {} if flag else None


def assignments(given: Assignment) -> Iterator[Assignment]:
    """The keys that an override sets, in today's places."""
    path, value = given
    if path[0] in SWITCHES and len(path) == 1 and is_switch(value.values):
        yield Assignment((*path, SWITCHES[str(path[0])]), value)
    elif path in ASKED_FOR and isinstance(value.values, bool):
        yield Assignment(path, value.replace(values=_section_for(value.values)))
    elif path == ("training",) and isinstance(value.values, dict):
        former = {str(move.old[1]): move for move in STILL_READ if move.old[1] in value.values}
        rest = {key: inner for key, inner in value.values.items() if key not in former}
        yield Assignment(path, Source(rest, {}, value.spellings))
        for name, move in former.items():
            yield Assignment(move.new, value.part(name))
    else:
        yield Assignment(next((new for old, new in STILL_READ if old == path), path), value)


def _moved(source: Source, move: Move) -> Source:
    """The source with one value moved, if it is there and its new place is free; else the schema refuses it."""
    (old, name), (new, key) = move
    holder, target = source.values.get(old), source.values.get(new, {})
    if not isinstance(holder, dict) or name not in holder or not isinstance(target, dict) or key in target:
        return source
    rest = {other: value for other, value in holder.items() if other != name}
    return _renamed(source, {**source.values, old: rest, new: {**target, key: holder[name]}}, move)


def _renamed(source: Source, values: Any, move: Move) -> Source:
    """The source with other values, and origins and spellings under the new path."""
    depth = len(move.old)
    origins, spellings = (
        {(move.new + path[depth:] if path[:depth] == move.old else path): text for path, text in known.items()}
        for known in (source.origins, source.spellings)
    )
    origins.setdefault(move.new[:-1], source.origin(move.old))  # of a section that came about by the move
    return source.replace(values=values, origins=origins, spellings=spellings)
