"""What makes a member the one it is: the merged configuration, the data's fingerprint, and the code."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from functrain.app.config.source import leaves
from functrain.app.config.wording import shown

DIGITS = 8  # of an identity, for people
_NOTHING = "(not set)"


@dataclass(frozen=True)
class Parts:
    """What a member is made of, as JSON.

    Attributes:
        config: dotted key -> value, of the keys on which bits may depend.
        data: split -> digest of its contents; None where it cannot be told.
        code: file -> digest, of the modules of the user's own that the configuration's functions are made of.
        init: digest of what `init_from` names; None without it.
        functrain: the release.
    """

    config: Mapping[str, Any]
    data: Mapping[str, str | None]
    code: Mapping[str, str]
    init: str | None
    functrain: str

    @property
    def identity(self) -> str:
        """The hash."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:16]


def flat(tree: Any) -> dict[str, Any]:
    """A configuration by dotted keys.

    Example:
        >>> flat({"a": {"b": 1}, "c": [2]})
        {'a.b': 1, 'c': [2]}
    """
    return {".".join(map(str, path)): value for path, value in leaves(tree)}


def differences(before: Parts, now: Parts) -> Iterator[str]:
    """What differs between two members, a line each."""
    for name in dict.fromkeys([*before.config, *now.config]):
        old, new = (shown(each.config[name]) if name in each.config else _NOTHING for each in (before, now))
        if old != new:
            yield f"the configuration changed: {name}: {old} -> {new}"
    for file in dict.fromkeys([*before.code, *now.code]):
        if before.code.get(file) != now.code.get(file):
            what = "is new" if file not in before.code else "is gone" if file not in now.code else "has changed"
            yield f"the code changed: {file} {what}"
    for split in dict.fromkeys([*before.data, *now.data]):
        if before.data.get(split) != now.data.get(split):
            yield f"the data changed: the split {split!r} holds other values"
    if before.init != now.init:
        yield "init_from names other parameters: the file or checkpoint has changed"
    if before.functrain != now.functrain:
        yield f"functrain was {before.functrain} and is {now.functrain}"


def digest_of_file(file: Path) -> str:
    """16 hexadecimal digits of a file's contents.

    Raises:
        OSError: it cannot be read.
    """
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()[:16]


def changed_file(code: Mapping[str, str]) -> str | None:
    """The first file that no longer has its digest."""
    for file, digest in code.items():
        try:
            same = digest_of_file(Path(file)) == digest
        except OSError:
            same = False
        if not same:
            return file
    return None
