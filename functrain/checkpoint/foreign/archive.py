"""An archive: one file with a trained model and what belongs to it, as plain data with checksums.

It is a zip file. Its first member, `archive.json`, lists the others with their sizes and SHA-256 digests, and is
signed. Members are not compressed, so the file's size bounds what they can take. Nothing is extracted to disk.
"""

import hashlib
import io
import json
import os
import re
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

from torch import Tensor

from functrain.checkpoint.files import write_atomically
from functrain.checkpoint.foreign.safetensors_format import tensors_in
from functrain.checkpoint.uninterrupted import uninterrupted
from functrain.foundation.errors import CheckpointError
from functrain.foundation.regular_files import open_regular
from functrain.foundation.signature import canonical, is_signed, sign

MANIFEST, WEIGHTS = "archive.json", "model.safetensors"
VERSION = 1
_LARGEST_MANIFEST, _MOST_MEMBERS = 10_000_000, 1_000
_NAME = re.compile(r"\w[\w.-]*(?:/\w[\w.-]*)*", re.ASCII)  # no way out of a folder
_TIME = (1980, 1, 1, 0, 0, 0)  # the first that zip knows: the same content gives the same bytes
_HEAD = 30  # bytes before the first member's name


def write_archive(path: str | os.PathLike[str], members: Mapping[str, bytes | Path], about: Mapping[str, Any]) -> None:
    """Write an archive; it appears when it is complete. The same content gives the same bytes.

    Args:
        path: the file; an existing one is replaced.
        members: by name, such as `test/metrics.json`: the content, or the file that has it.
        about: goes into the manifest; values of JSON.

    Raises:
        CheckpointError: it cannot be written.
    """
    uninterrupted(partial(_write, Path(path), dict(sorted(members.items())), about))


def _write(path: Path, members: Mapping[str, bytes | Path], about: Mapping[str, Any]) -> None:
    files = dict[str, Any]()
    for name, content in members.items():
        with _opened(content) as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]
            files[name] = {"size": file.seek(0, os.SEEK_END), "sha256": digest}
    manifest: dict[str, Any] = {"version": VERSION, **about, "files": files}
    manifest["signature"] = sign(canonical(manifest))
    text = json.dumps(manifest, indent=2, sort_keys=True).encode() + b"\n"
    with write_atomically(path) as target, zipfile.ZipFile(target, "w") as archive:
        for name, content in ((MANIFEST, text), *members.items()):
            info = zipfile.ZipInfo(name, _TIME)
            info.create_system, info.external_attr = 3, 0o644 << 16  # as on Unix, wherever it is written
            info.file_size = len(text) if name == MANIFEST else files[name]["size"]
            with _opened(content) as source, archive.open(info, "w") as member:
                while block := source.read(1 << 20):
                    member.write(block)


def _opened(content: bytes | Path) -> BinaryIO:
    return io.BytesIO(content) if isinstance(content, bytes) else content.open("rb")


def is_member_name(name: str) -> bool:
    """Whether an archive can hold a member of this name.

    Example:
        >>> is_member_name("test/figures/roc.json"), is_member_name("../a"), is_member_name("my notes.txt")
        (True, False, False)
    """
    return _NAME.fullmatch(name) is not None


def is_archive(path: Path) -> bool:
    """Whether a file begins as an archive does, though it may be damaged."""
    try:
        with open_regular(path) as file:
            return file.read(_HEAD + len(MANIFEST)).endswith(MANIFEST.encode())
    except OSError:
        return False


class Archive:
    """An archive that is open for reading and has its checksums.

    Attributes:
        path: the file.
        manifest: what it says about itself.
        is_own: this user wrote it.
    """

    def __init__(self, path: Path, opened: zipfile.ZipFile, manifest: Mapping[str, Any]) -> None:
        self.path, self.manifest, self._opened = path, manifest, opened
        unsigned = {name: value for name, value in manifest.items() if name != "signature"}
        self.is_own = is_signed(canonical(unsigned), manifest.get("signature"))

    def __contains__(self, name: str) -> bool:
        return name in self.manifest["files"]

    def read(self, name: str) -> bytes:
        """The content of a member."""
        return self._opened.read(name)

    def tensors(self, name: str = WEIGHTS) -> dict[str, Tensor]:
        """The tensors of a safetensors file.

        Raises:
            CheckpointError: it is not in the format.
        """
        with self._opened.open(name) as file:
            return tensors_in(file, self.manifest["files"][name]["size"], f"{name} in {self.path}")


@contextmanager
def open_archive(path: str | os.PathLike[str]) -> Iterator[Archive]:
    """An archive, after its members were compared with their checksums.

    Raises:
        CheckpointError: the file cannot be read, is no archive of functrain, or is damaged.
    """
    path = Path(path)
    if path.is_file() and not is_archive(path):
        raise CheckpointError(f"{path} is not an archive of 'functrain export' (RUN OUT.zip)")
    try:
        file = open_regular(path)
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror or error}") from error
    with file:
        try:
            opened = zipfile.ZipFile(file)
            manifest = uninterrupted(partial(_manifest, opened, os.fstat(file.fileno()).st_size))
        except (zipfile.BadZipFile, OSError, ValueError, KeyError, TypeError, RuntimeError, EOFError) as error:
            raise _damaged(path, error) from error
        yield Archive(path, opened, manifest)


def _damaged(path: Path, error: Exception) -> CheckpointError:
    reason = "its end is missing" if "not a zip file" in str(error) else str(error) or type(error).__name__
    return CheckpointError(f"{path} is damaged: {reason}")


def _manifest(archive: zipfile.ZipFile, size: int) -> Mapping[str, Any]:
    """The manifest. All that the file holds is compared with it.

    Raises:
        ValueError and others: the archive is damaged, or not one that functrain writes.
    """
    infos = archive.infolist()
    _refuse_strange(infos, size)
    manifest = json.loads(archive.read(MANIFEST))
    if not isinstance(manifest, dict) or type(manifest.get("version")) is not int:
        raise ValueError(f"{MANIFEST} does not say which version of the format it has")
    if manifest["version"] > VERSION:
        raise ValueError(f"it has version {manifest['version']} of the format, and this functrain reads {VERSION}")
    expected, found = {MANIFEST, *manifest["files"]}, {info.filename for info in infos}
    if expected != found:
        raise ValueError(f"{MANIFEST} does not list what it holds: {', '.join(sorted(expected ^ found))}")
    for name, record in manifest["files"].items():
        with archive.open(name) as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]
        if (archive.getinfo(name).file_size, digest) != (record["size"], record["sha256"]):
            raise ValueError(f"{name} does not have the checksum that {MANIFEST} gives")
    return manifest


def _refuse_strange(infos: list[zipfile.ZipInfo], size: int) -> None:
    """Refuse what functrain does not write: names that lead elsewhere, compression, members over members."""
    if len(infos) > _MOST_MEMBERS or sum(info.file_size for info in infos) > size:
        raise ValueError("its members have more bytes than the file, or are too many")
    for info in infos:
        if not is_member_name(info.filename):
            raise ValueError(f"the name of its member {info.filename!r} is not a plain one")
        if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1:
            raise ValueError(f"its member {info.filename} is compressed or encrypted")
        if info.filename == MANIFEST and info.file_size > _LARGEST_MANIFEST:
            raise ValueError(f"{MANIFEST} has {info.file_size:,} bytes")
    if len({info.filename for info in infos}) < len(infos):
        raise ValueError("two of its members have one name")
