"""The version of the user's own code: the git commit, and what was not committed as a patch."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

TIMEOUT = 10.0  # seconds, of each git command
LARGEST_PATCH = 10_000_000  # bytes
LARGEST_FILE, MOST_FILES = 100_000, 200  # of files that git does not track yet


@dataclass(frozen=True)
class CodeVersion:
    """The code in a git repository.

    Attributes:
        root: of the repository.
        commit: that is checked out.
        patch: from the commit to the files as they are, Python files that git does not track included.
        left_out: what the patch lacks, a sentence each.
    """

    root: Path
    commit: str
    patch: bytes
    left_out: tuple[str, ...] = ()

    @property
    def short(self) -> str:
        """For people."""
        return self.commit[:10] + (" with uncommitted changes" if self.patch or self.left_out else "")


def code_version(folder: Path) -> CodeVersion | None:
    """The version of the code in a folder; None outside of a git repository, without git, or before a first commit."""
    try:
        root, commit = (
            _git(folder, "rev-parse", "--show-toplevel", "HEAD").decode(errors="surrogateescape").split("\n")[:2]
        )
        with _index_copy(Path(root)) as environment:
            left_out = _add_new_files(Path(root), environment)
            patch = _git(Path(root), *DIFF, environment=environment)
    except (OSError, subprocess.SubprocessError, ValueError):
        return None
    if len(patch) > LARGEST_PATCH:
        left_out += (f"the uncommitted changes have {len(patch):,} bytes, more than {LARGEST_PATCH:,}",)
        patch = b""
    return CodeVersion(Path(root), commit, patch, left_out)


# Nothing that a repository's settings name is run.
DIFF = ("diff", "HEAD", "--binary", "--no-ext-diff", "--no-textconv", "--no-color", "--full-index")


def export(version: CodeVersion, folder: Path) -> None:
    """Write the code of a version to an empty folder.

    Raises:
        OSError: the repository does not have the commit any more, or the patch does not fit.
    """
    try:
        archive = folder / ".archive.tar"
        _git(version.root, "archive", "--format=tar", f"--output={archive}", version.commit)
        shutil.unpack_archive(archive, folder, "tar", filter="data")
        archive.unlink()
        if version.patch:
            _git(folder, "apply", "--whitespace=nowarn", "-", given=version.patch, environment=_outside(folder))
    except subprocess.SubprocessError as error:
        reason = getattr(error, "stderr", b"") or str(error).encode()
        raise OSError(reason.decode(errors="replace").strip().split("\n")[-1]) from error


@contextmanager
def _index_copy(root: Path) -> Iterator[Mapping[str, str]]:
    """The environment of git commands that may add files to the index, and leave the repository's own alone."""
    with tempfile.TemporaryDirectory(prefix="functrain-") as scratch:
        index = Path(scratch, "index")
        own = root / _git(root, "rev-parse", "--git-path", "index").decode().rstrip("\n")
        if own.is_file():
            shutil.copy2(own, index)  # with its time, by which git knows which files it must read again
        yield {"GIT_INDEX_FILE": str(index)}


def _add_new_files(root: Path, environment: Mapping[str, str]) -> tuple[str, ...]:
    """Announce the Python files that git does not track, so that the patch has them; what it will lack."""
    listed = _git(root, "ls-files", "--others", "--exclude-standard", "-z", "--", "*.py", environment=environment)
    names = [os.fsdecode(name) for name in listed.split(b"\0") if name]
    small = [name for name in names if (root / name).is_file() and (root / name).stat().st_size <= LARGEST_FILE]
    taken = small[:MOST_FILES]
    if taken:
        _git(root, "add", "--intent-to-add", "--", *taken, environment=environment)
    return tuple(f"{name}, which git does not track" for name in names if name not in set(taken))[:MOST_FILES]


def _outside(folder: Path) -> Mapping[str, str]:
    """`git apply` takes a folder inside of a repository for that repository's; here it is none's."""
    return {"GIT_CEILING_DIRECTORIES": str(folder.resolve().parent), "GIT_DIR": str(folder / ".none")}


def _git(folder: Path, *arguments: str, environment: Mapping[str, str] = {}, given: bytes | None = None) -> bytes:
    """The output of a git command.

    Raises:
        OSError, subprocess.SubprocessError: it failed.
    """
    usual = {"GIT_OPTIONAL_LOCKS": "0", "LC_ALL": "C"}
    command: Sequence[str] = ["git", "-c", "core.fsmonitor=false", "-c", "core.quotePath=false", *arguments]
    return subprocess.run(
        command,
        cwd=folder,
        input=given,
        stdin=subprocess.DEVNULL if given is None else None,
        capture_output=True,
        timeout=TIMEOUT,
        check=True,
        env={**os.environ, **usual, **environment},
    ).stdout
