"""A configuration as its files, the environment and the overrides make it: merged, with the origin of each value."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from functrain.app.config.catalogue import FUNCTIONS, declared
from functrain.app.config.extending import names_own_code, placed, read_extended
from functrain.app.config.former import asked_for, assignments
from functrain.app.config.overrides import override
from functrain.app.config.source import Path_, Problem, Source
from functrain.app.config.wording import shown
from functrain.foundation.errors import ConfigError


def resolve(path: Path, overrides: Sequence[str] = (), *, recorded: bool = False) -> Source:
    """Read a file and those that it extends, replace variables, and apply overrides.

    Args:
        path: the file.
        overrides: "key.path=value" or "+key.path=value" each; later ones win.
        recorded: a run recorded the file.

    Returns:
        The values, and what is wrong with them so far. `name` and `code` are set, and paths in them are absolute.

    Raises:
        ConfigError: if the file cannot be read.
    """
    source = read_extended(path, recorded=recorded)
    if not isinstance(source.values, dict):
        raise ConfigError(
            f"{path}: a configuration is a mapping of sections (model, data, ...), not {shown(source.values)}"
        )
    problems: list[Problem] = []
    for text in overrides:
        try:
            source = override(source, text, assignments, _closed)
        except ConfigError as error:
            problems.append(Problem((), str(error)))
    source = placed(asked_for(source), path.parent)
    values = {"name": path.stem, **source.values}
    if names_own_code(values):
        values["code"] = _code(values.get("code"), source.folders)
    return source.replace(values=values, problems=(*source.problems, *problems))


def _code(given: Any, folders: Sequence[str]) -> Any:
    """Where the functions of a configuration are imported from: what it says, and the folders of its files."""
    own = [given] if isinstance(given, str) else given or []
    if not isinstance(own, list) or not all(isinstance(each, str) for each in own):
        return given  # the schema refuses it
    found = list(dict.fromkeys([*own, *folders]))
    return found[0] if len(found) == 1 else found


def _closed(path: Path_) -> str | None:
    """Why no key can be added at a path; None if one can."""
    dotted = ".".join(map(str, path))
    if path in declared():
        return f"{dotted} is a key that every configuration has"
    if any(path[: len(section)] == section for section in FUNCTIONS):
        return None
    sections = ", ".join(".".join(map(str, section)) for section in FUNCTIONS)
    return f"+ adds parameters of the functions in {sections}, and {dotted} is none"
