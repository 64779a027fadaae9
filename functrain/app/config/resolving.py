"""A configuration as its files, the environment and the overrides make it: merged, with the origin of each value."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from functrain.app.config.catalogue import FUNCTIONS, STAGES, declared
from functrain.app.config.extending import merge, names_own_code, placed, read_extended
from functrain.app.config.former import asked_for, assignments, in_its_place
from functrain.app.config.overrides import override
from functrain.app.config.source import Assignment, Path_, Problem, Source
from functrain.app.config.stages import beginning_problem, by_name, checked, each_changed, part_at, stage_names
from functrain.app.config.suggestions import did_you_mean
from functrain.app.config.wording import shown
from functrain.foundation.errors import ConfigError

WHOLE = ""  # the name of a configuration without stages among those of stages


def resolve_stages(path: Path, overrides: Sequence[str] = (), *, recorded: bool = False) -> dict[str, Source]:
    """Read a file and those that it extends, replace variables, make its stages, and apply overrides.

    Args:
        path: the file.
        overrides: "key.path=value" or "+key.path=value" each; later ones win. They also win over what a stage says;
            `stages.NAME.key.path=value` is for one stage.
        recorded: a run recorded the file.

    Returns:
        By the name of the stage, in the order of the file: the values, and what is wrong with them so far. `name` and
        `code` are set, and paths in them are absolute. Without stages there is one source, under the name "".

    Raises:
        ConfigError: if the file cannot be read.
    """
    source = read_extended(path, recorded=recorded)
    if not isinstance(source.values, dict):
        raise ConfigError(
            f"{path}: a configuration is a mapping of sections (model, data, ...), not {shown(source.values)}"
        )
    source, overrides = _with_its_stages(source, overrides, path)
    names = stage_names(source)
    if not names:
        return {WHOLE: _finished(source.without(STAGES), WHOLE, [], overrides, path)}
    return {name: _finished(_stage_of(source, name), name, names, overrides, path) for name in names}


def overridden(source: Source, overrides: Sequence[str], stage: str = WHOLE, stages: Sequence[str] = ()) -> Source:
    """The source with values set from the command line; what is wrong with the overrides is among its `problems`.

    Args:
        source: of a stage, or of a configuration without stages.
        overrides: "key.path=value" each.
        stage, stages: the stage's name, and all of them.
    """
    problems: list[Problem] = []

    def here(path: Path_) -> Path_ | None:
        """Where an override's path leads in this stage; None if it is another stage's."""
        if path[0] != STAGES or not stages:
            return path
        if path[1] not in stages:
            raise ConfigError(
                f"there is no stage {path[1]!r}{did_you_mean(str(path[1]), stages)} stages: {', '.join(stages)}"
            )
        return path[2:] if path[1] == stage else None

    for text in overrides:
        try:
            source = override(source, text, _sections, _closed, here)
        except ConfigError as error:
            problems.append(Problem((), str(error)))
    return source.replace(problems=(*source.problems, *problems))


def _with_its_stages(source: Source, overrides: Sequence[str], path: Path) -> tuple[Source, list[str]]:
    """The source after the overrides that say which stages there are, and the other overrides."""
    left, problems = [], []
    for text in overrides:
        key, _, value = text.partition("=")
        keys = key.strip().split(".")
        removes = keys[0] == STAGES and len(keys) == 2 and value.strip() in ("", "null", "~")
        if removes and keys[1] in stage_names(source):
            stages = {name: stage for name, stage in source.values[STAGES].items() if name != keys[1]}
            source = source.replace(values={**source.values, STAGES: stages})
        elif keys == [STAGES]:
            try:
                changed = by_name(override(source, text))
            except ConfigError as error:
                problems.append(Problem((), str(error)))
                continue
            source = each_changed(changed, lambda part: placed(in_its_place(part), path.parent))
        else:
            left.append(text)
    return checked(source.replace(problems=(*source.problems, *problems))), left


def _stage_of(source: Source, name: str) -> Source:
    """A stage's source: the rest of the configuration with the stage's changes."""
    rest, own = source.without(STAGES), part_at(source, (STAGES, name))
    if not isinstance(own.values, dict):  # nothing, or what `checked` has refused
        own = Source({}, {})
    whole = source.origin(())
    problems = tuple(problem for problem in source.problems if problem.path[:1] != (STAGES,) or len(problem.path) < 3)
    merged = merge(rest.replace(problems=()), own)
    return merged.replace(
        origins={**merged.origins, (): whole},
        problems=(*problems, *own.problems),
        stage=name,
        own=frozenset(own.origins),
    )


def _finished(source: Source, stage: str, stages: Sequence[str], overrides: Sequence[str], path: Path) -> Source:
    """The source with its overrides, `name`, `stage` and `code`."""
    source = placed(asked_for(overridden(source, overrides, stage, stages)), path.parent)
    values = {"name": path.stem, **source.values}
    if stage:
        found = [beginning_problem(source, stage, stages)]
        if values.get("stage") is not None:
            found.append(Problem(("stage",), f"{source.origin(('stage',))}: stage is set by `stages`; leave it out"))
        source = source.replace(problems=(*source.problems, *(each for each in found if each is not None)))
        values["stage"] = stage
    if names_own_code(values):
        values["code"] = _code(values.get("code"), source.folders)
    return source.replace(values=values)


def _sections(given: Assignment) -> Iterator[Assignment]:
    """The keys that an override sets. An override of a whole stage sets those that it names."""
    path, value = given
    if path:
        yield from assignments(given)
    elif isinstance(value.values, dict):
        for key in value.values:
            yield from assignments(Assignment((key,), value.part(key)))
    else:
        raise ConfigError(f"a stage is a section of changes to the rest; got {shown(value.values)}")


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
