"""The names of checkpoints, and of groups and leaves inside them."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import quote

TEMPORARY_PREFIX = ".tmp-"
TRASH_PREFIX = ".trash-"
DAMAGED_SUFFIX = ".damaged"
_BUNDLE = "%bundle-"

_NAME = re.compile(r"step-(\d{8,})(?:\.m(\d+))?(?:\.r(\d+))?", re.ASCII)
_ITEM = re.compile(r"[A-Za-z][A-Za-z0-9_]*|group-\d+", re.ASCII)
_RESERVED_ITEMS = frozenset({"metrics", "auto", "functrain"})  # orbax's own names and the placeholder's


@dataclass(frozen=True, order=True)
class Position:
    """Where in a run a checkpoint was taken; the order of positions is the order of checkpoints.

    Args:
        step: optimizer updates done.
        micro_step: micro-batches done since.
        revision: 0 for the first checkpoint of this (step, micro_step), then 1, 2, ...
    """

    step: int
    micro_step: int = 0
    revision: int = 0

    @property
    def name(self) -> str:
        """The directory's name.

        Example:
            >>> Position(120).name, Position(120, 2).name, Position(120, 2, 1).name
            ('step-00000120', 'step-00000120.m2', 'step-00000120.m2.r1')
        """
        micro = f".m{self.micro_step}" if self.micro_step else ""
        revision = f".r{self.revision}" if self.revision else ""
        return f"step-{self.step:08d}{micro}{revision}"


def parse_name(name: str) -> Position | None:
    """The position that a directory's name tells; None if it is not the name of a checkpoint.

    Example:
        >>> parse_name("step-00000120.m2"), parse_name("step-00000120.damaged")
        (Position(step=120, micro_step=2, revision=0), None)
    """
    match = _NAME.fullmatch(name)
    if match is None:
        return None
    position = Position(*(int(part or 0) for part in match.groups()))
    return position if position.name == name else None


def next_position(step: int, micro_step: int, existing: Iterable[str]) -> Position:
    """The position with the next free revision; whatever stands in the directory is never overwritten.

    Example:
        >>> next_position(7, 0, ["step-00000007", "step-00000007.r1.damaged"])
        Position(step=7, micro_step=0, revision=2)
    """
    taken = [parse_name(name.split(DAMAGED_SUFFIX)[0]) for name in existing]
    revisions = [p.revision for p in taken if p and (p.step, p.micro_step) == (step, micro_step)]
    return Position(step, micro_step, max(revisions, default=-1) + 1)


def item_names(groups: Iterable[str]) -> dict[str, str]:
    """A directory name for each group: its own where that is safe on every file system.

    Example:
        >>> item_names(["params", "Params", "a/b", "metrics"])
        {'params': 'params', 'Params': 'group-1', 'a/b': 'group-2', 'metrics': 'group-3'}
    """
    names: dict[str, str] = {}
    taken = set(_RESERVED_ITEMS)
    for number, group in enumerate(groups):
        # Only orbax knows what it will reserve next, so only plain identifiers pass.
        usable = is_item_name(group) and "-" not in group and group.casefold() not in taken and len(group) <= 100
        names[group] = group if usable else f"group-{number}"
        taken.add(names[group].casefold())
    return names


def is_item_name(name: str) -> bool:
    """Whether a name from an index may be joined to a path."""
    return _ITEM.fullmatch(name) is not None


def array_key(path: str) -> str:
    """A leaf's name inside its item: the path, percent-encoded, so that different paths stay different.

    Example:
        >>> array_key("conv.weight"), array_key("a b/../c"), array_key("")
        ('conv.weight', 'a%20b/%2E%2E/c', '%')
    """
    parts = quote(path, safe="/", errors="surrogatepass").split("/")
    return "/".join(part.replace(".", "%2E") if part in (".", "..") else part or "%" for part in parts)


def bundle_key(dtype: str) -> str:
    """The name of the array that holds the small leaves of a dtype; no leaf has such a name.

    Example:
        >>> bundle_key("float32")
        '%bundle-float32'
    """
    return f"{_BUNDLE}{dtype}"


def is_bundle_key(key: str) -> bool:
    """Whether a key is a bundle's: percent-encoding never gives a "%" before a small letter."""
    return key.startswith(_BUNDLE)
