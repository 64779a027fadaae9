"""Checks of the disk that runs are written to, and of the caches."""

import getpass
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from functrain.app.doctor.finding import Finding
from functrain.foundation.file_locks import try_lock
from functrain.foundation.scratch import scratch_folder
from functrain.foundation.signature import sign

LITTLE = 2e9  # bytes of free space
SLOW = 20e6  # bytes a second: a checkpoint of 1 GB takes a minute
BLOCK, BLOCKS = 4 << 20, 8
WRITING_SECONDS, COUNTING_SECONDS = 5.0, 3.0


def check_disk(run_dir: Path) -> Iterator[Finding]:
    """Whether the disk of a run's directory has room, is fast enough, and has locks."""
    place = next(each for each in (run_dir.absolute(), *run_dir.absolute().parents) if each.exists())
    if not place.is_dir():
        yield Finding("disk", "broken", f"{run_dir}: {place} is a file", "choose another directory with --run-dir")
        return
    try:
        with scratch_folder(place, ".doctor-") as folder:
            speed, has_locks = _speed(folder / "block"), _has_locks(folder / "lock")
    except OSError as error:
        fix = "choose another directory with --run-dir, or make room"
        yield Finding("disk", "broken", f"{place} cannot be written to: {error.strerror}", fix)
        return
    yield judged_disk(place, shutil.disk_usage(place).free, speed, has_locks)


def judged_disk(place: Path, free: float, speed: float, has_locks: bool) -> Finding:
    """The finding.

    Args:
        place: the directory.
        free: bytes.
        speed: of writing, in bytes a second.
        has_locks: two processes cannot write to one run there.
    """
    found = f"{place}: {free / 1e9:.1f} GB free, {speed / 1e6:.0f} MB/s"
    if free < LITTLE:
        return Finding("disk", "warning", f"{found}: little room", "functrain clean, or another --run-dir")
    if speed < SLOW:
        return Finding(
            "disk", "warning", f"{found}: slow", "save less often (checkpoint.save_every), or another --run-dir"
        )
    if not has_locks:
        fix = "start one process only for each run directory, or choose a disk that has locks"
        return Finding("disk", "warning", f"{found}; it has no file locks: two runs could write to one directory", fix)
    return Finding("disk", "ok", found)


def _speed(path: Path) -> float:
    """Bytes a second, to the disk itself."""
    block, written, begin = os.urandom(BLOCK), 0, time.perf_counter()
    with path.open("wb") as file:
        while written < BLOCK * BLOCKS and time.perf_counter() - begin < WRITING_SECONDS:
            file.write(block)
            file.flush()
            os.fsync(file.fileno())
            written += BLOCK
    return written / max(time.perf_counter() - begin, 1e-9)


def _has_locks(path: Path) -> bool:
    with path.open("wb") as file:
        return bool(try_lock(file.fileno()))


def check_caches() -> Iterator[Finding]:
    """Where compiled programs are kept, how large that is, and whether functrain takes them from there."""
    from functrain.compiler.store import DIRECTORY_VARIABLE, default_store

    store = default_store()
    name, fix = "compiled programs", f"name a directory of yours in the environment variable {DIRECTORY_VARIABLE}"
    problem = store.problem()
    if problem:
        yield Finding(name, "warning", f"are not kept: {problem}", fix)
    else:
        yield Finding(name, "ok", f"{store.directory}: {_size(store.directory)} of at most {store.limit / 1e9:g} GB")
    torchs = os.environ.get("TORCHINDUCTOR_CACHE_DIR") or str(Path(tempfile.gettempdir(), f"torchinductor_{_user()}"))
    yield Finding("torch's cache", "ok", f"{torchs}: {_size(Path(torchs))}")


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        return "unknown"


def _size(folder: Path | None) -> str:
    """The size of all files, or of those that are counted in some seconds."""
    total, end = 0, time.perf_counter() + COUNTING_SECONDS
    for root, _, names in os.walk(folder or ""):
        for name in names:
            try:
                total += os.lstat(os.path.join(root, name)).st_size
            except OSError:
                continue  # another process has removed it
        if time.perf_counter() > end:
            return f"more than {total / 1e6:,.1f} MB"
    return f"{total / 1e6:,.1f} MB"


def check_key() -> Iterator[Finding]:
    """Whether functrain can sign runs, so that it knows them again."""
    if sign("doctor") is not None:
        yield Finding("signatures", "ok", "functrain knows your runs again")
        return
    fix = "make ~/.local/state/functrain (or $XDG_STATE_HOME/functrain) yours alone; else your own runs need --trust"
    yield Finding("signatures", "warning", "your key for them can be neither read nor written", fix)
