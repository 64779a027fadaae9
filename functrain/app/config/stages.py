"""`stages:`, several runs in one configuration: each stage changes some sections of the rest.

A list of stages is read as the mapping of their names, so that `stages.NAME.key` is a place in either form.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from functrain.app.config.catalogue import STAGES as KEY
from functrain.app.config.source import Path_, Problem, Source
from functrain.app.config.suggestions import did_you_mean
from functrain.app.config.sweep_section import KEY as SWEEP
from functrain.app.config.wording import shown
from functrain.foundation.errors import ConfigError

OF_THE_WHOLE = ("name", "extends", "stage", SWEEP, KEY)  # keys that a stage does not have
FORM = "must be a mapping of names to sections, or a list of sections with a `name` each"
_NAME = re.compile(r"\w[\w-]*")
_TAKEN = ("checkpoints",)  # a folder of this name makes a directory a run's


def by_name(source: Source) -> Source:
    """The source with its stages as a mapping; what is no stage is among the `problems`."""
    given = source.values.get(KEY) if isinstance(source.values, dict) else None
    if not isinstance(given, list):
        return source
    found: dict[str, Any] = {}
    for index, stage in enumerate(given):
        path: Path_ = (KEY, index)
        name = stage.get("name") if isinstance(stage, dict) else None
        if not isinstance(name, str) or name in found:
            what = f"a second stage is called {name!r}" if name in found else f"stages.{index} needs a name"
            source = _with_problem(source, path, f"{what}: each stage of the list is a section with a name of its own")
            continue
        found[name] = {key: value for key, value in stage.items() if key != "name"}
        source = _renamed(source, path, (KEY, name))
    return source.replace(values={**source.values, KEY: found})


def each_changed(source: Source, change: Callable[[Source], Source]) -> Source:
    """The source with `change` made to each of its stages."""
    stages = source.values.get(KEY) if isinstance(source.values, dict) else None
    if not isinstance(stages, dict):
        return source
    changed, folders = dict(stages), list(source.folders)
    for name, stage in stages.items():
        if isinstance(stage, dict):
            path: Path_ = (KEY, name)
            part = change(part_at(source, path))
            changed[name] = part.values
            source = _with_part(source, path, part)
            folders += part.folders if source.values.get("code") is None else ()
    return source.replace(values={**source.values, KEY: changed}, folders=tuple(dict.fromkeys(folders)))


def part_at(source: Source, prefix: Path_) -> Source:
    """The section at a path, as a source of its own."""
    depth = len(prefix)
    origins, spellings = (
        {path[depth:]: text for path, text in known.items() if path[:depth] == prefix}
        for known in (source.origins, source.spellings)
    )
    problems = tuple(
        problem._replace(path=problem.path[depth:]) for problem in source.problems if problem.path[:depth] == prefix
    )
    return Source(source.at(prefix), {(): source.origin(prefix), **origins}, spellings, problems)


def stage_names(source: Source) -> list[str]:
    """The names of a source's stages, in their order; none if it has no stages."""
    stages = source.values.get(KEY)
    return list(stages) if isinstance(stages, dict) else []


def checked(source: Source) -> Source:
    """The source with what is wrong with its stages, as far as it is not a setting's fault, among the `problems`."""
    stages = source.values.get(KEY)
    if stages is not None and not isinstance(stages, dict):
        return _with_problem(source, (KEY,), f"stages {FORM}; got {shown(stages)}")
    for name, stage in (stages or {}).items():
        path: Path_ = (KEY, name)
        if not _NAME.fullmatch(name) or name in _TAKEN:
            rule = "letters, digits, _ and -, since it names a folder" + (f", and not {name}" if name in _TAKEN else "")
            source = _with_problem(source, path, f"the name of a stage is made of {rule}; got {name!r}")
        if stage is not None and not isinstance(stage, dict):
            source = _with_problem(source, path, f"a stage is a section of changes to the rest; got {shown(stage)}")
        for key in OF_THE_WHOLE if isinstance(stage, dict) else ():
            if key in stage:
                source = _with_problem(source, (*path, key), f"stages.{name}.{key}: {_why_not(key)}")
    return source


def _why_not(key: str) -> str:
    if key == "name":
        return "the key of a stage is its name, and the run's name stands at the top level"
    return f"a stage has no {key} of its own; it stands at the top level"


def beginning_problem(source: Source, name: str, names: Sequence[str]) -> Problem | None:
    """Why a stage cannot begin with the stage that it names: only with an earlier one."""
    path: Path_ = ("init_from", "stage")
    other, earlier = source.at(path), names[: names.index(name)]
    if not isinstance(other, str) or other in earlier:
        return None
    listed = ", ".join(earlier) or f"none, since {name} is the first"
    why = did_you_mean(other, names)
    if other in names:
        why = f", {'which is this stage itself' if other == name else f'which comes after {name}'};"
    return Problem(path, f"{source.origin(path)}: init_from.stage of {name} is {other!r}{why} earlier stages: {listed}")


def chosen_name(names: Sequence[str], path: str | Path, stage: str | None) -> str:
    """The name of the stage that was chosen; "" for a configuration without stages.

    Args:
        names: of its stages; without stages the one name "".
        path: of the configuration.
        stage: the choice.

    Raises:
        ConfigError: there is no such stage, or none of several is chosen.
    """
    listed = ", ".join(names)
    if listed and stage is None:
        raise ConfigError(f"{path} has the stages {listed}: choose one with --stage NAME")
    if not listed and stage is not None:
        raise ConfigError(f"--stage {stage}: {path} has no stages")
    if stage is not None and stage not in names:
        raise ConfigError(f"{path} has no stage {stage!r}{did_you_mean(stage, names)} stages: {listed}")
    return stage or ""


def _with_problem(source: Source, path: Path_, text: str) -> Source:
    problem = Problem(path, f"{source.origin(path)}: {text}")
    return source.replace(problems=(*source.problems, problem))


def _renamed(source: Source, old: Path_, new: Path_) -> Source:
    """The source with what is known of a section under another path."""
    depth = len(old)

    def moved(path: Path_) -> Path_:
        return (*new, *path[depth:]) if path[:depth] == old else path

    origins, spellings = (
        {moved(path): text for path, text in known.items()} for known in (source.origins, source.spellings)
    )
    problems = tuple(problem._replace(path=moved(problem.path)) for problem in source.problems)
    return source.replace(origins=origins, spellings=spellings, problems=problems)


def _with_part(source: Source, prefix: Path_, part: Source) -> Source:
    """The source with what a changed section knows of itself."""
    depth = len(prefix)
    origins, spellings = (
        {path: text for path, text in old.items() if path[:depth] != prefix}
        | {(*prefix, *path): text for path, text in new.items()}
        for old, new in ((source.origins, part.origins), (source.spellings, part.spellings))
    )
    return replace(source, origins=origins, spellings=spellings)
