"""The page of settings, made from their declarations.

`python -m functrain.app.config.settings_page docs/settings.md` writes it.
"""

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

from functrain.app.config.former import ASKED_FOR, STILL_READ, moves
from functrain.app.config.keys import Key, Section, item_in, keys_in
from functrain.app.config.schema import Config
from functrain.app.config.suggestions import OTHER_NAMES
from functrain.app.config.wording import meaning, shown

_HEAD = """\
# Settings

A configuration is a YAML or JSON file with the sections below. `functrain train c.yaml section.key=value` sets a key on
the command line; the last value wins. functrain refuses an unknown key and suggests the nearest one.

Scripts have the same settings: `fit` and `init_state` take the keys of `training`, `compile`, `evaluation`,
`checkpoint` and `logging` as arguments of the same names. Only `compile.enabled` is `fit(compile=...)`. What `fit`
calls `eval_loader` is the split `val` of the data, and `run_dir` is the run's directory.

The column "bits" says whether the bits of the result may depend on a key. `--strict-resume` lets a key change for
which it says "no", and refuses other changes.

<!-- Made from the declarations: python -m functrain.app.config.settings_page docs/settings.md -->
"""
_FORMER = """
## Former places

All settings of a run once stood in `training`. A key in its former place is an error that names the new one.
{still_read} are read in both places, since most configurations set them.
A run that recorded the former places can still be shown, evaluated, exported, replayed and resumed.

"""
_OTHERS = """
## Names in other trainers

The keys of the trainers that functrain replaces, and of other ones. Somebody who writes one of them gets an error that
names functrain's own. functrain saves after each epoch; `checkpoint.save_every` counts updates.

"""
_TYPES: Mapping[Any, str] = {
    int: "whole number",
    float: "number",
    bool: "true or false",
    str: "text",
    str | list[str]: "text, or a list of text",
    int | list[int]: "whole number, 1 or more, or a list of them",
    Sequence[str]: "list of text",
    Mapping[str, str]: "text by name",
    dict[str, Any]: "values by key",
    int | str: "whole number, 1 or more, or `auto`",  # `NumberOrAuto`
    int | float: "whole number, 1 or more, or a fraction above 0.0 and at most 1.0",  # `NumberOrFraction`
    bool | str: "true, false or `auto`",  # `FlagOrAuto`
}


def page() -> str:
    """The page in Markdown."""
    parts = [_HEAD, "\n## At the top\n\n", *_table(key for key in _own(Config) if key.section is None)]
    for key in keys_in(Config):
        if key.section is not None:
            parts += _section(key, key.section)
    still_read = " and ".join(f"`{'.'.join(map(str, old))}`" for old, _ in STILL_READ)
    parts += [_FORMER.format(still_read=still_read), "| former place | place |\n|---|---|\n"]
    parts += [f"| `{'.'.join(map(str, old))}` | `{'.'.join(map(str, new))}` |\n" for old, new in moves()]
    parts += [_OTHERS, "| other name | here |\n|---|---|\n"]
    parts += [f"| `{name}` | `{home}` |\n" for name, home in OTHER_NAMES.items()]
    return "".join(parts)


def _section(key: Key, section: type[Section]) -> Iterator[str]:
    """Heading, what the section is for, and its table."""
    text = " ".join((section.__doc__ or "").split())
    yield f"\n{'#' * (1 + len(key.path))} `{key.dotted}`\n\n{text}\n\n"
    yield from _table(_own(section, key.path))


def _own(section: type[Section], path: Sequence[str] = ()) -> list[Key]:
    return [key for key in keys_in(section, path) if len(key.path) == len(path) + 1]


def _table(keys: Iterable[Key]) -> Iterator[str]:
    yield "| key | values | default | bits | meaning |\n|---|---|---|---|---|\n"
    for key in keys:
        info = key.info
        default = "(required)" if info.is_required() else f"`{shown(info.default)}`"
        if key.path == ("name",):  # `read_config` fills it in
            default = "the file's"
        cells = [
            f"`{key.path[-1]}`",
            _values(key),
            default,
            "yes" if key.bits else "no",
            meaning(info.description or ""),
        ]
        yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |\n"


def _values(key: Key) -> str:
    """The values of a key in words: 'whole number, 1 or more, or null'."""
    if key.section is not None:
        return "true, false or a section" if key.path in ASKED_FOR else "section, or null"
    options = get_args(key.info.annotation)
    null = type(None) in options
    typed = next((each for each in options if each is not type(None)), key.info.annotation) if null else None
    return f"{_type(typed if null else key.info.annotation)}{_limits(key)}{', or null' if null else ''}"


def _type(annotation: Any) -> str:
    if get_origin(annotation) is Literal:
        return ", ".join(f"`{choice}`" for choice in get_args(annotation))
    if item_in(annotation) is not None or annotation == list[dict[str, Any]]:
        return "list of sections"
    if get_origin(annotation) is list:
        return "list of text"
    if get_origin(annotation) is Annotated:
        return _type(get_args(annotation)[0])
    return _TYPES[annotation]


def _limits(key: Key) -> str:
    words = {"ge": "{} or more", "gt": "above {}", "le": "{} or less", "lt": "below {}"}
    found = [
        text.format(f"{getattr(limit, name):g}")
        for limit in key.info.metadata
        for name, text in words.items()
        if hasattr(limit, name) and getattr(limit, name) is not None
    ]
    return "".join(f", {text}" for text in found)


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(page(), encoding="utf-8")
