"""One run at a time in a directory.

On one machine the truth is the operating system's lock on the file (`flock`): it goes with the process,
however that ends, so nothing a killed run leaves behind can block the next one. What is written in the
file says who holds it, and decides only where the system's lock cannot: between machines, and on file
systems without locks.
"""

import json
import os
import socket
import subprocess
import sys
import time
import warnings
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from functrain.foundation.errors import CheckpointError, CheckpointWarning, RunLockedError, RunLostError
from functrain.foundation.file_locks import try_lock
from functrain.foundation.lock_owner import LockOwner
from functrain.foundation.paths import absolute
from functrain.foundation.regular_files import require_regular

LOCK_FILE = ".functrain-lock"

# A child forked outside of Python keeps its parent's lock until it ends; data loading workers do so within seconds.
_ORPHAN_SECONDS = 10.0


class RunLock:
    """The right to write to a run's directory, held from `acquire` to `release`.

    A lock that its owner left behind is taken over: the process is gone (its pid may be another's by
    now), or it is an earlier start of the same scheduled job. `previous` then tells whose it was.

    Args:
        directory: the run's; made if it is not there. The lock is its file `.functrain-lock`.

    Attributes:
        previous: the owner that did not release the lock, or None.

    Example:
        >>> import tempfile
        >>> directory = tempfile.TemporaryDirectory()
        >>> with RunLock(directory.name):
        ...     RunLock(directory.name).acquire()
        Traceback (most recent call last):
        ...
        functrain.foundation.errors.RunLockedError: another run is writing to ...: process ... (this very process)...
        >>> directory.cleanup()
    """

    def __init__(self, directory: str | os.PathLike[str]) -> None:
        self.path = absolute(directory) / LOCK_FILE
        self.previous: LockOwner | None = None
        self._descriptor: int | None = None
        self._directory: os.stat_result | None = None

    def acquire(self) -> Self:
        """Take the lock; never waits for a living owner.

        Raises:
            RunLockedError: another run has it; the message says which, and what to do.
            CheckpointError: the directory cannot be written to.
        """
        if self._descriptor is not None:
            raise RuntimeError(f"this RunLock already holds {self.path}")
        deadline = time.monotonic() + _ORPHAN_SECONDS
        while True:
            try:
                if self._try(last_time=time.monotonic() > deadline):
                    return self
            except OSError as error:
                raise CheckpointError(
                    f"cannot lock the run directory {self.path.parent}: {error.strerror}; choose a directory that "
                    "can be written to"
                ) from error

    def check(self) -> None:
        """See that the lock is still there. If only its file was removed, take it again; takes a few microseconds.

        Raises:
            RunLostError: the directory was deleted, renamed or replaced.
            RunLockedError: another run has the directory now.
        """
        if self._descriptor is None or _is_current(self._descriptor, self.path):
            return
        directory = self.path.parent
        assert self._directory is not None
        try:
            is_there = os.path.samestat(os.stat(directory), self._directory)
        except OSError:
            is_there = False
        if not is_there:
            raise RunLostError(
                f"the run directory {directory} was deleted, renamed or replaced while this run was writing to it, so "
                "the run ends. If it was renamed, go on with its new name: training continues from its newest "
                "checkpoint. Without it, start again"
            )
        self.release()
        self.acquire()
        warnings.warn(
            f"the lock file {self.path} was removed while this run was writing to its directory. It is there again, "
            "and training goes on",
            CheckpointWarning,
            stacklevel=3,
        )

    def release(self) -> None:
        """Give the lock back. Without a lock, nothing happens."""
        descriptor, self._descriptor = self._descriptor, None
        _held.discard(self)
        if descriptor is None:
            return
        # Removed while the lock is still held, so it is ours; whoever waits for it looks again (`_is_current`).
        if _is_current(descriptor, self.path):
            try:
                self.path.unlink()
            except OSError:  # read-only by now, for example: an empty file names no owner
                os.ftruncate(descriptor, 0)
        os.close(descriptor)

    def __enter__(self) -> Self:
        return self.acquire()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.release()

    def _try(self, *, last_time: bool) -> bool:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
        keep = False
        try:
            require_regular(self.path, os.fstat(descriptor))  # reading a fifo would wait for ever
            taken = try_lock(descriptor)
            owner = _read_owner(descriptor)
            if taken is False:
                self._wait_or_refuse(owner, last_time)
            elif _is_current(descriptor, self.path):
                if owner is not None and _may_be_alive(owner, locked=taken is True):
                    raise RunLockedError(_refusal(self.path, owner), owner)
                _write_owner(descriptor)
                self._directory = os.stat(self.path.parent)
                self.previous, self._descriptor, keep = owner, descriptor, True
                _held.add(self)
        finally:
            if not keep:
                os.close(descriptor)
        return keep

    def _wait_or_refuse(self, owner: LockOwner | None, last_time: bool) -> None:
        """Somebody has the system's lock: its owner, or for a moment a child or a newcomer that has not signed."""
        alive = owner is not None and (owner.host != socket.gethostname() or _runs(owner))
        if alive or last_time:
            raise RunLockedError(_refusal(self.path, owner), owner)
        time.sleep(0.05)


def _is_current(descriptor: int, path: Path) -> bool:
    """Whether the open file is still the one at `path`: its owner removes it when done."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except (FileNotFoundError, NotADirectoryError):
        return False


def _may_be_alive(owner: LockOwner, *, locked: bool) -> bool:
    """Whether the owner named in a file that is not locked (or cannot be) may still run."""
    if owner.host == socket.gethostname():
        return not locked and _runs(owner)
    # Locks need not reach other machines. A job that was started again is not running elsewhere, though.
    job, _, restart = _job().partition("/")
    owner_job, _, owner_restart = owner.job.partition("/")
    return not (job and job == owner_job and restart != owner_restart)


def _runs(owner: LockOwner) -> bool:
    """Whether the very process still runs on this machine, and not a later one of the same pid."""
    start = _process_start(owner.pid)
    return start is not None and (not owner.process_start or start == owner.process_start)


def _process_start(pid: int) -> str | None:
    """When a process began; None if there is none, "" if the system does not say."""
    if sys.platform == "win32":
        return ""  # os.kill would end the process there
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        pass  # it runs, and is another user's
    except OSError:
        return ""
    if os.path.exists("/proc/self/stat"):
        try:
            # After the command's name, which may hold anything, field 3 is the state and 22 the start in clock
            # ticks since the boot.
            fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
            boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        except OSError:
            return ""
        return None if fields[0] in "ZX" else f"{boot}/{fields[19]}"
    shown = subprocess.run(["ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return shown.stdout.strip()


def _job() -> str:
    number = os.environ.get("SLURM_JOB_ID", "")
    return f"{number}/{os.environ.get('SLURM_RESTART_COUNT', '0')}" if number else ""


def _read_owner(descriptor: int) -> LockOwner | None:
    try:
        os.lseek(descriptor, 0, os.SEEK_SET)
        record: Any = json.loads(os.read(descriptor, 4096))
        owner = LockOwner(**record)
    except (ValueError, TypeError):
        return None  # empty, or half written by a process that was killed
    well_formed = type(owner.pid) is int and owner.pid > 0 and isinstance(owner.host, str)
    return owner if well_formed else None


def _write_owner(descriptor: int) -> None:
    owner = LockOwner(
        pid=os.getpid(),
        host=socket.gethostname(),
        since=datetime.now(UTC).isoformat(timespec="seconds"),
        process_start=_process_start(os.getpid()) or "",
        job=_job(),
    )
    os.ftruncate(descriptor, 0)
    os.lseek(descriptor, 0, os.SEEK_SET)
    os.write(descriptor, json.dumps(asdict(owner)).encode() + b"\n")
    os.fsync(descriptor)


def _refusal(path: Path, owner: LockOwner | None) -> str:
    if owner is None:
        return f"another run is writing to {path.parent}: {path} is locked. Wait for it, or use another run directory"
    if owner.host != socket.gethostname():
        return (
            f"another run is writing to {path.parent}: {owner}. Wait for it, or use another run directory. Whether it "
            f"still runs cannot be seen from {socket.gethostname()}; if it does not, remove {path}"
        )
    if not _runs(owner):
        return (
            f"a run that has ended left a process behind that holds {path.parent}: it was started by {owner}. "
            f"End that process ('fuser {path}' names it) and start again"
        )
    which = " (this very process)" if owner.pid == os.getpid() else ""
    return f"another run is writing to {path.parent}: {owner}{which}. Wait for it, end it, or use another run directory"


# A forked child (a data loading worker) shares its parent's lock and would keep it after the parent was killed.
_held: set[RunLock] = set()


def _forget_in_child() -> None:
    for lock in list(_held):
        descriptor, lock._descriptor = lock._descriptor, None
        if descriptor is not None:
            os.close(descriptor)  # closing does not unlock: the parent's own descriptor stays open
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_in_child)
