"""Patterns of dotted names, such as "encoder.*", and what may have been meant by one that fits no name."""

import difflib
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

SHOWN = 12  # names in a message
COMPARED = 2000  # names at most: a file may have any number of them


def fits(name: str, patterns: Iterable[str]) -> bool:
    """Whether a name is, or fits, one of the patterns.

    Example:
        >>> fits("head.weight", ["head.*"]), fits("head.weight", ["head"])
        (True, False)
    """
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def did_you_mean(pattern: str, names: Sequence[str]) -> str:
    """'; did you mean ...?' with the nearest name or pattern, else '.'.

    Example:
        >>> did_you_mean("haed.*", ["body.weight", "head.weight", "head.bias"])
        "; did you mean 'head.*'?"
        >>> did_you_mean("head", ["body.weight", "head.weight", "head.bias"])
        "; did you mean 'head.*'?"
    """
    names = names[:COMPARED]
    starred = {f"{name[:end]}.*": None for name in names for end, letter in enumerate(name) if letter == "."}
    members = [f"{pattern}.*"] if f"{pattern}.*" in starred else []
    close = members or difflib.get_close_matches(pattern, [*names, *starred], n=1, cutoff=0.4)
    return f"; did you mean {close[0]!r}?" if close else "."


def listed(names: Sequence[str]) -> str:
    """The first names, for a message."""
    return ", ".join(names[:SHOWN]) + (f", ... ({len(names)} in all)" if len(names) > SHOWN else "")
