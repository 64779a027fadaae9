"""`extends:`, one configuration file on top of others."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from functrain.app.config.catalogue import STAGES, takes_null
from functrain.app.config.files import is_recorded, read_source
from functrain.app.config.former import in_its_place
from functrain.app.config.source import Path_, Problem, Source, leaves
from functrain.app.config.stages import by_name, each_changed
from functrain.app.config.wording import shown
from functrain.foundation.errors import ConfigError

KEY = "extends"
DEEPEST = 50  # files, each of which extends the next


def read_extended(path: Path, *, recorded: bool = False) -> Source:
    """Read a configuration file and those that it extends, merged.

    Args:
        path: the file.
        recorded: a run recorded it. It is complete, extends nothing, and may have keys in their former places.

    Raises:
        ConfigError: if the file cannot be read. What is wrong with the files that it extends is among the `problems`.
    """
    return _read(path, recorded=True) if recorded else _Extending().read(path, ())


def _read(path: Path, *, recorded: bool) -> Source:
    def in_place(part: Source) -> Source:
        return placed(in_its_place(part, recorded=recorded), path.parent)

    return in_place(each_changed(by_name(read_source(path, recorded=recorded)), in_place))


class _Extending:
    """Reads each file once, so that two of them may extend a third."""

    def __init__(self) -> None:
        self._read: dict[str, Source] = {}

    def read(self, path: Path, chain: tuple[Path, ...]) -> Source:
        """A file, merged with those that it extends; `chain` are the files that led to it."""
        identity = os.path.realpath(path)
        if identity not in self._read:
            recorded = bool(chain) and is_recorded(path)
            own = _read(path, recorded=recorded)
            self._read[identity] = own if recorded else self._on_its_bases(own, path, (*chain, path))
        return self._read[identity]

    def _on_its_bases(self, own: Source, path: Path, chain: tuple[Path, ...]) -> Source:
        if not isinstance(own.values, dict) or KEY not in own.values:
            return own
        value, problems = own.values[KEY], list(own.problems)
        merged = Source({}, {(): own.origin(())})
        texts = value if isinstance(value, list) else [value]
        for index, text in enumerate(texts):
            where = own.origin((KEY, index) if isinstance(value, list) else (KEY,))
            try:
                base = self._base(text, path, chain)
            except ConfigError as error:
                if not any(problem.path[:1] == (KEY,) for problem in own.problems):
                    problems.append(Problem((KEY,), f"{where}: extends: {error}", is_unread=True))
                continue
            merged = merge(merged, base)
        merged = merge(merged, own.without(KEY))
        return merged.replace(problems=tuple(dict.fromkeys((*merged.problems, *problems))))

    def _base(self, text: Any, path: Path, chain: tuple[Path, ...]) -> Source:
        if not isinstance(text, str) or not text or "\0" in text:
            raise ConfigError(f"must be the path of a configuration file, or a list of them; got {shown(text)}")
        base = path.parent / os.path.expanduser(text)
        names = [os.path.realpath(each) for each in chain]
        if os.path.realpath(base) in names:
            circle = [*chain[names.index(os.path.realpath(base)) :], base]
            raise ConfigError(f"a circle: {' -> '.join(map(str, circle))}")
        if len(chain) > DEEPEST:
            raise ConfigError(f"more than {DEEPEST} files, each of which extends the next")
        source = self.read(base, chain)
        if not isinstance(source.values, dict):
            raise ConfigError(f"{base}: a configuration is a mapping of sections, not {shown(source.values)}")
        return source.without("name")  # a run's name is its file's own


def merge(base: Source, own: Source) -> Source:
    """The values of two files. Of two sections the keys are merged; everything else is the second file's.

    `null` in the second file removes what the first one says, where the key does not take null as a value.

    Example:
        >>> base = Source({"training": {"epochs": 3, "clip_norm": 1.0}, "seed": 1}, {(): "a"})
        >>> merge(base, Source({"training": {"clip_norm": None}, "seed": None}, {(): "b"})).values
        {'training': {'epochs': 3, 'clip_norm': None}}
    """
    replaced: set[Path_] = set()
    removed: set[Path_] = set()
    values = _merged(base.values, own.values, (), replaced, removed)
    gone = replaced | removed
    origins, spellings = (
        {
            path: text
            for path, text in old.items()
            if not any(path[:length] in gone for length in range(1, len(path) + 1))
        }
        | {path: text for path, text in new.items() if path not in removed}
        for old, new in ((base.origins, own.origins), (base.spellings, own.spellings))
    )
    problems = tuple(dict.fromkeys((*base.problems, *own.problems)))
    folders = tuple(dict.fromkeys((*own.folders, *base.folders)))
    return Source(values, origins, spellings, problems, folders)


def _merged(old: Any, new: Any, path: Path_, replaced: set[Path_], removed: set[Path_]) -> Any:
    if not (isinstance(old, dict) and isinstance(new, dict)):
        replaced.add(path)
        return new
    values = dict(old)
    for key, value in new.items():
        inside = (*path, key)
        if value is None and values.get(key) is not None and not takes_null(inside):
            removed.add(inside)
            del values[key]
        else:
            values[key] = _merged(values.get(key), value, inside, replaced, removed)
    return values


def placed(source: Source, folder: Path) -> Source:
    """The source with absolute paths in `code`, `init_from.path` and `data.path`, which are relative to a folder.

    `data.path` is that of functrain's own data sets; a function of the user's own gets what is written.
    The folder is added to the source's if functions of the user's own are named, and no `code` says where they are.
    """
    if not isinstance(source.values, dict):
        return source
    values = dict(source.values)
    code, begins = values.get("code"), values.get("init_from")
    if isinstance(code, str):
        values["code"] = absolute(code, folder)
    elif isinstance(code, list):
        values["code"] = [absolute(each, folder) if isinstance(each, str) else each for each in code]
    if isinstance(begins, dict) and isinstance(begins.get("path"), str) and begins["path"]:
        values["init_from"] = {**begins, "path": absolute(begins["path"], folder)}
    data = values.get("data")
    if isinstance(data, dict) and isinstance(data.get("path"), str) and ":" not in str(data.get("name", ":")):
        values["data"] = {**data, "path": absolute(data["path"], folder)}
    here = [absolute(".", folder)] if code is None and names_own_code(values) else []
    return source.replace(values=values, folders=tuple(dict.fromkeys([*here, *source.folders])))


def names_own_code(values: Mapping[str, Any]) -> bool:
    """Whether a configuration, but for its stages, names a function as "package.module:function"."""
    return any(
        isinstance(value, str) and ":" in value and path[-1] in ("name", "collate_fn", "loss", "loss_fn")
        for path, value in leaves(values)
        if path and path[0] != STAGES
    )


def absolute(path: str, folder: Path) -> str:
    """A path that a file in a folder says, absolute."""
    return os.path.abspath(folder / os.path.expanduser(path))
