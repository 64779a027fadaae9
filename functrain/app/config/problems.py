"""What is wrong with a configuration, as "file:line:column: what is wrong, what is allowed"."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, get_args

from functrain.app.config.catalogue import FUNCTIONS, LISTS
from functrain.app.config.extending import KEY as EXTENDS
from functrain.app.config.former import ASKED_FOR, SWITCHES, new_place
from functrain.app.config.parameters import complaint, signature, takes_one, wish
from functrain.app.config.registry import lookup
from functrain.app.config.schema import own_losses, section_at
from functrain.app.config.source import Path_, Problem, Source, leaves
from functrain.app.config.suggestions import meant
from functrain.foundation.errors import ConfigError


def independent(problems: Sequence[Problem], source: Source) -> Iterator[Problem]:
    """The problems without those that follow from others: from a value or a file that could not be read."""
    unread = [problem.path for problem in problems if problem.is_unread and problem.path != (EXTENDS,)]
    lacks_a_file = any(problem.path == (EXTENDS,) for problem in problems)
    for problem in problems:
        path = problem.path
        follows = not problem.is_unread and path and any(_is_along(path, other) for other in unread)
        if not follows and not (lacks_a_file and not problem.is_unread and _may_be_elsewhere(path, source)):
            yield problem


def _is_along(path: Path_, other: Path_) -> bool:
    length = min(len(path), len(other))
    return path[:length] == other[:length]


def _may_be_elsewhere(path: Path_, source: Source) -> bool:
    """Whether what is missed at a path may be in a file that could not be read."""
    return bool(path) and (path not in source.origins or isinstance(source.at(path), dict))


def schema_problem(details: Any, source: Source) -> Problem:
    """One of pydantic's complaints in our words."""
    path: Path_ = details["loc"]
    return Problem(path, f"{source.origin(path)}: {_schema_problem(path, details, source)}")


def _schema_problem(path: Path_, details: Any, source: Source) -> str:
    section, name = path[:-1], ".".join(map(str, path))
    if details["type"] == "extra_forbidden":
        place = new_place(path)
        if place is not None:
            return f"{name} is {place} now"
        return _unknown_key(path, source, list(section_at(section).model_fields))
    if details["type"] == "missing":
        return f"missing key {path[-1]!r}{_inside(section)}"
    given = source.spelling(path, details["input"])
    if details["type"] in ("model_type", "model_attributes_type"):
        keys = ", ".join(section_at(path).model_fields)
        switch = "true, false, auto or " if name in SWITCHES else "true, false or " if path in ASKED_FOR else ""
        return f"{name} must be {switch}a section with keys of its own ({keys}); got {given}"
    got = "" if isinstance(details["input"], dict) else f"; got {given}"
    return f"{name} {wish(details['msg'])}{got}".lstrip()  # a rule of the whole has no name


def _unknown_key(path: Path_, source: Source, allowed: Sequence[str], function: str = "") -> str:
    section, key = path[:-1], str(path[-1])
    of = f" ({function})" if function else ""
    inside = _inside(section) or " at the top level"
    heir = _heir(path, source)
    way_out = f"; to remove what {heir} inherits, set it to null there" if heir else ""
    return f"unknown key {key!r}{inside}{of}{meant(key, allowed)} allowed: {', '.join(allowed)}{way_out}"


def _heir(path: Path_, source: Source) -> str:
    """The file or the stage that inherits the value at a path; "" if the value is its own."""
    origin, main = source.origin(path), source.origin(())
    if origin.startswith("override "):
        return ""
    if path not in source.own and (*path[:-1], "name") in source.own:  # of the function that the stage does not have
        return f"stage {source.stage}"
    return "" if origin == main or origin.startswith(f"{main}:") else main


def _inside(section: Path_) -> str:
    return f" in {'.'.join(map(str, section))}" if section else ""


def parameter_problems(source: Source, folders: Iterable[Path] | None) -> Iterator[Problem]:
    """What is wrong with the names of functions and with their parameters.

    Args:
        source: the configuration.
        folders: where its own functions are imported from; None leaves these out.
    """
    for path, kind in [*FUNCTIONS.items(), *_in_lists(source)]:
        section = source.at(path)
        name = section.get("name") if isinstance(section, dict) else section if kind in LISTS.values() else None
        if isinstance(name, str) and (folders is not None or ":" not in name):
            yield from _of_function(path, kind, name, source, folders)
    if folders is not None:
        yield from _of_collate_fn(source, folders)


def _in_lists(source: Source) -> Iterator[tuple[Path_, str]]:
    for key, kind in LISTS.items():
        items = source.at((key,))
        yield from (((key, index), kind) for index in range(len(items or ())) if isinstance(items, list))


def _of_function(
    path: Path_, kind: str, name: str, source: Source, folders: Iterable[Path] | None
) -> Iterator[Problem]:
    """What is wrong with the parameters of a named function."""
    try:
        function = lookup(kind, name, folders)
    except ConfigError as error:
        yield Problem((*path, "name"), f"{source.origin((*path, 'name'))}: {error}")
        return
    expected, section = signature(kind, function), source.at(path)
    fields = list(section_at(path).model_fields)
    given = {key: value for key, value in section.items() if key not in fields} if isinstance(section, dict) else {}
    own = dict(own_losses(given)) if kind == "objective" else {}
    for place, loss in own.items():
        problem = _of_own_loss(loss, folders)
        if problem is not None:
            yield Problem((*path, *place), f"{source.origin((*path, *place))}: {problem}")
    for key, item in given.items():
        inside = (*path, key)
        if (key,) in own:
            problem = None
        elif key in expected.types:
            wrong = complaint(item, expected.types[key], source.spelling(inside, item))
            wrong = wrong or _unclear(item, inside, expected.types[key], source)
            problem = None if wrong is None else f"{'.'.join(map(str, inside))} {wrong}"
        else:
            problem = None if expected.open else _unknown_key(inside, source, [*fields, *expected.types], name)
        if problem is not None:
            yield Problem(inside, f"{source.origin(inside)}: {problem}")
    for key in expected.required:
        # A schedule's length is the run's, where it is not given.
        if key not in given and not (kind == "schedule" and key == "total_steps"):
            missing = f"missing key {key!r}{_inside(path)}: {name} has no default for it"
            yield Problem((*path, key), f"{source.origin(path)}: {missing}")


def _unclear(item: Any, path: Path_, expected: Any, source: Source) -> str | None:
    """Why a value may be misread: `no` is false in YAML 1.1, and text to everybody else."""
    if _takes_bool(expected):
        return None
    for inside, value in leaves(item, path):
        places = [inside] if isinstance(value, bool) else []
        places += (
            [(*inside, index) for index, each in enumerate(value) if isinstance(each, bool)]
            if isinstance(value, list)
            else []
        )
        for place in places:
            spelling = source.spellings.get(place, "true")
            if spelling.lower() not in ("true", "false"):
                return f"must be true or false, or text in quotes; got {spelling}"
    return None


def _takes_bool(annotation: Any) -> bool:
    return annotation is bool or any(_takes_bool(each) for each in get_args(annotation))


def _of_own_loss(name: str, folders: Iterable[Path] | None) -> str | None:
    if folders is None:
        return None
    try:
        lookup("loss", name, folders)
    except ConfigError as error:
        return str(error)
    return None


def _of_collate_fn(source: Source, folders: Iterable[Path]) -> Iterator[Problem]:
    """What is wrong with the function that puts samples together."""
    path = ("data", "collate_fn")
    name = source.at(path)
    if not isinstance(name, str):
        return
    where = f"{source.origin(path)}: data.collate_fn"
    try:
        function = lookup("collate_fn", name, folders)
    except ConfigError as error:
        yield Problem(path, f"{where}: {error}")
        return
    if isinstance(function, type) or not takes_one(function):
        kind = "a class" if isinstance(function, type) else "a function of other arguments"
        yield Problem(
            path, f"{where} must be a function of the list of samples, which returns the batch; got {kind}, {name!r}"
        )
