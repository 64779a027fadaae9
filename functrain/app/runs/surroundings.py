"""What a run was started with: packages, code, data, machine. `environment.json` in the run's directory.

Each start that differs from the one before adds an entry.
"""

import hashlib
import json
import os
import platform
import re
import shutil
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Self

from functrain.app.config.schema import Config
from functrain.app.runs.code_version import CodeVersion, code_version
from functrain.app.runs.directory import write_json
from functrain.compiler.request import recorded
from functrain.data import Loader
from functrain.data.contents import content_digest
from functrain.foundation.errors import ConfigError
from functrain.foundation.signature import is_signed, sign
from functrain.loop.resume.environment import differences, fingerprint
from functrain.step import TrainState

FILE = "environment.json"
MOST_PACKAGES = 8  # that are said
LARGEST_FILE = 50_000_000  # bytes
_DISTRIBUTION = re.compile(r"(.+?)-([^-]+)(?:-py[\d.]+)?\.(?:dist|egg)-info")


@dataclass(frozen=True)
class Surroundings:
    """What a run was started with.

    Attributes:
        environment: the fingerprint that checkpoints carry.
        packages: installed distributions and their versions.
        data: for each split, a digest of its contents; None where it cannot be told.
        code: the version of the user's code, as JSON; None if no repository holds it.
        machine: the machine's name.
        functrain: the release.
        step: of the state that the start began with.
        time: of the start.
        command: that was typed.
    """

    environment: Mapping[str, Any]
    packages: Mapping[str, str]
    data: Mapping[str, str | None]
    code: Mapping[str, Any] | None
    machine: str
    functrain: str
    step: int = 0
    time: str = ""
    command: tuple[str, ...] = ()

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """The value that `asdict` gave; what a newer functrain added is left out."""
        known = {name: values[name] for name in cls.__dataclass_fields__ if name in values}
        return cls(**{**known, "command": tuple(known.get("command", ()))})

    def same_as(self, other: "Surroundings") -> bool:
        """Whether nothing differs but when and how the run was started."""
        ignored = {"step": 0, "time": "", "command": ()}
        return {**asdict(self), **ignored} == {**asdict(other), **ignored}


@dataclass(frozen=True)
class Now:
    """The surroundings at this moment, and the code that is not committed."""

    value: Surroundings
    patch: bytes = b""


def surroundings(config: Config, loaders: Mapping[str, Loader | None], state: TrainState) -> Now:
    """What a run would be started with now.

    Args:
        config: the run's.
        loaders: by split.
        state: that the start begins with.
    """
    compiling = config.compile
    how = recorded(compiling.backend, compiling.mode, compiling.engine) if compiling.enabled else "eager"
    environment = fingerprint(state.device, how)
    if compiling.enabled == "auto":
        del environment["compile"]  # each checkpoint says what was chosen
    found = code_version(next(iter(config.code_paths), Path.cwd()))
    value = Surroundings(
        environment=environment,
        packages=_packages(),
        data={
            name: content_digest(loader.dataset, reads=loader.num_workers == 0)
            for name, loader in loaders.items()
            if loader is not None
        },
        code=None if found is None else _code(found),
        machine=platform.node(),
        functrain=version("functrain"),
        step=state.step,
        time=datetime.now(UTC).isoformat(timespec="seconds"),
        command=tuple(sys.argv),
    )
    return Now(value, b"" if found is None else found.patch)


def record(run: Path, now: Now) -> None:
    """Add an entry to the file, and the patch beside it, unless nothing has changed since the last start."""
    starts = read(run) if now.value.step else []  # of a run that begins afresh, those before are another's
    if starts and starts[-1].same_as(now.value):
        return
    code = now.value.code
    if code is not None and code["patch"] is not None:
        (run / code["patch"]).write_bytes(now.patch)
    write_json(run / FILE, {"starts": [asdict(each) for each in (*starts, now.value)]})


def copy(run: Path, to: Path, data: Mapping[str, str | None] | None = None) -> None:
    """Copy the file and the patches of a run into another run's directory.

    Args:
        run: of which.
        to: the other one's directory.
        data: its digests of the data, where they are others.
    """
    starts = [each if data is None else replace(each, data=dict(data)) for each in read(run)]
    write_json(to / FILE, {"starts": [asdict(each) for each in starts]})
    for patch in run.glob("uncommitted-*.patch"):
        shutil.copy2(patch, to / patch.name)


def read(run: Path) -> list[Surroundings]:
    """The starts of a run, the first one first; none for a run of an earlier functrain.

    Raises:
        ConfigError: the file is damaged.
    """
    path = run / FILE
    if not path.is_file():
        return []
    try:
        if path.stat().st_size > LARGEST_FILE:
            raise ValueError("it is too large")
        return [Surroundings.from_json(each) for each in json.loads(path.read_text(encoding="utf-8"))["starts"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{path} is damaged ({error}): put back the file as it was, or remove it") from None


def what_differs(before: Surroundings, now: Surroundings) -> list[str]:
    """What is not as it was at a start, a sentence each."""
    said = differences(before.environment, now.environment)
    packages = [
        f"{name} was {before.packages.get(name, 'not installed')} and is {now.packages.get(name, 'not installed')}"
        for name in sorted(before.packages.keys() | now.packages.keys())
        if before.packages.get(name) != now.packages.get(name) and name not in ("torch", "numpy")
    ]
    said += packages[:MOST_PACKAGES]
    if len(packages) > MOST_PACKAGES:
        said.append(f"{len(packages) - MOST_PACKAGES} more packages have another version")
    for split in sorted(before.data.keys() | now.data.keys()):
        if before.data.get(split) != now.data.get(split):
            said.append(f"the split {split!r} of the data holds other values")
    return said


def recorded_code(run: Path, before: Surroundings, trust: bool) -> CodeVersion | None:
    """The version of the code at a start; None if it was not recorded.

    Raises:
        ConfigError: its patch is missing, or is not what this user's run wrote.
    """
    code = before.code
    if code is None:
        return None
    patch = b""
    if code["patch"] is not None:
        path = run / Path(str(code["patch"])).name
        try:
            patch = path.read_bytes()
        except OSError as error:
            raise ConfigError(f"{path} cannot be read ({error.strerror}): put back the file as it was") from None
    found = CodeVersion(Path(str(code["root"])), str(code["commit"]), patch, tuple(code.get("left_out", ())))
    if not trust and not is_signed(_signed_text(found), code.get("signature")):
        raise ConfigError(
            f"the uncommitted changes beside {run / FILE} are not what your run wrote: to run them would run their "
            "author's code. If you trust where they come from, give --trust"
        )
    return found


def _code(found: CodeVersion) -> dict[str, Any]:
    digest = hashlib.sha256(found.patch).hexdigest()[:8]
    return {
        "root": str(found.root),
        "commit": found.commit,
        "patch": f"uncommitted-{digest}.patch" if found.patch else None,
        "left_out": list(found.left_out),
        "signature": sign(_signed_text(found)),
    }


def _signed_text(code: CodeVersion) -> str:
    """The repository is a part of it: git runs what a repository's settings name."""
    return f"{code.root}\n{code.commit}\n{code.patch.decode(errors='surrogateescape')}"


def _packages() -> dict[str, str]:
    """Names and versions, by the names of the folders: to read the metadata of a hundred packages takes 0.1 s."""
    found: dict[str, str] = {}
    for folder in reversed(sys.path):
        with suppress(OSError):
            entries = map(_DISTRIBUTION.fullmatch, os.listdir(folder or "."))
            found |= {entry[1].replace("_", "-"): entry[2] for entry in entries if entry is not None}
    return dict(sorted(found.items(), key=lambda item: item[0].lower()))
