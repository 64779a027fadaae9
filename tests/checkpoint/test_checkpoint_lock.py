"""One run at a time in a directory, with real processes."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager

import pytest

from functrain.checkpoint import LockOwner, RunLock, RunLockedError
from functrain.foundation import file_locks
from functrain.foundation import run_lock as lock
from functrain.foundation.errors import CheckpointError

HOLDING = """
import os, sys, time
from functrain.checkpoint import RunLock
held = RunLock(sys.argv[1]).acquire()
if sys.argv[2] == "fork":
    child = os.fork()
    if child == 0:
        time.sleep(60)
        os._exit(0)
    print(child, flush=True)
if sys.argv[2] == "leak":
    import subprocess
    child = subprocess.Popen(["sleep", "60"], pass_fds=[held._descriptor])
    print(child.pid, flush=True)
print("held", flush=True)
if sys.argv[2] != "end":
    time.sleep(60)
"""

CONTENDING = """
import os, sys, time
from functrain.checkpoint import RunLock, RunLockedError
log = os.open(sys.argv[2], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
children = []
for number in range(4):
    child = os.fork()
    if child:
        children.append(child)
        continue
    wins, end = 0, time.monotonic() + 20
    while wins < 15 and time.monotonic() < end:
        try:
            with RunLock(sys.argv[1]):
                os.write(log, f"{number} in\\n".encode())
                time.sleep(0.001)
                os.write(log, f"{number} out\\n".encode())
            wins += 1
        except RunLockedError:
            time.sleep(0.001)
    os._exit(wins < 15)
sys.exit(any(os.waitpid(child, 0)[1] for child in children))
"""


@contextmanager
def holder(directory, how="hold"):
    """A process that has the lock, and the pids of its children."""
    command = [sys.executable, "-c", HOLDING, str(directory), how]
    children = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            lines = [process.stdout.readline().strip() for _ in range(2 if how in ("fork", "leak") else 1)]
            assert "held" in lines
            children += [int(line) for line in lines if line != "held"]
            yield process
        finally:
            for pid in [process.pid, *children]:
                if process.poll() is None or pid != process.pid:
                    os.kill(pid, signal.SIGKILL)


def write_owner(directory, **changes):
    owner = {"pid": os.getpid(), "host": socket.gethostname(), "since": "2026-01-31T12:00:00+00:00"} | changes
    directory.mkdir(exist_ok=True)
    (directory / lock.LOCK_FILE).write_text(json.dumps(owner))
    return owner


def test_a_second_run_is_refused_and_told_who_has_the_directory(tmp_path):
    with holder(tmp_path) as process:
        with pytest.raises(RunLockedError) as error:
            RunLock(tmp_path).acquire()
        host = re.escape(socket.gethostname())
        message = (
            rf"another run is writing to {re.escape(str(tmp_path))}: process {process.pid} on host "
            rf"{host}, since 20\S+\+00:00\. Wait for it, end it, or use another run directory"
        )
        assert re.fullmatch(message, str(error.value))
        assert error.value.owner.pid == process.pid
        assert isinstance(error.value, CheckpointError)


def test_the_lock_of_a_killed_owner_is_gone_at_once(tmp_path):
    with holder(tmp_path) as process:
        process.kill()
        process.wait()
        start = time.monotonic()
        with RunLock(tmp_path) as ours:
            assert ours.previous.pid == process.pid
            assert ours.previous.host == socket.gethostname()
        assert time.monotonic() - start < 1
    assert os.listdir(tmp_path) == []


def test_a_forked_worker_does_not_keep_the_lock_of_its_killed_parent(tmp_path):
    with holder(tmp_path, "fork") as process:
        process.kill()
        process.wait()
        with RunLock(tmp_path) as ours:
            assert ours.previous.pid == process.pid


def test_a_process_left_behind_that_holds_the_lock_is_reported_as_such(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "_ORPHAN_SECONDS", 0.2)
    with holder(tmp_path, "leak") as process:
        process.kill()
        process.wait()
        with pytest.raises(RunLockedError, match=f"left a process behind .* started by process {process.pid} on host"):
            RunLock(tmp_path).acquire()
    with RunLock(tmp_path):
        pass


def test_a_process_that_ends_without_release_leaves_a_stale_lock(tmp_path):
    with holder(tmp_path, "end") as process:
        process.wait()
    with RunLock(tmp_path) as ours:
        assert ours.previous.pid == process.pid


def test_of_many_processes_one_at_a_time_has_the_lock(tmp_path):
    log = tmp_path / "log"
    command = [sys.executable, "-c", CONTENDING, str(tmp_path / "run"), str(log)]
    subprocess.run(command, check=True, timeout=60)
    lines = log.read_text().split("\n")[:-1]
    assert len(lines) == 2 * 4 * 15
    for entered, left in zip(lines[::2], lines[1::2], strict=True):
        assert entered.endswith("in")
        assert left == entered.replace("in", "out")
    assert os.listdir(tmp_path / "run") == []


def test_a_released_lock_leaves_nothing_and_can_be_taken_again(tmp_path):
    ours = RunLock(tmp_path / "new" / "run")
    for _ in range(2):
        with ours:
            assert os.listdir(tmp_path / "new" / "run") == [lock.LOCK_FILE]
            with pytest.raises(RuntimeError, match="already holds"):
                ours.acquire()
        assert os.listdir(tmp_path / "new" / "run") == []
        assert ours.previous is None
    ours.release()


def test_a_second_run_of_the_same_process_is_refused(tmp_path):
    with RunLock(tmp_path), pytest.raises(RunLockedError, match=rf"process {os.getpid()} .* \(this very process\)"):
        RunLock(tmp_path).acquire()


def test_another_machines_lock_is_respected_until_it_is_removed(tmp_path):
    write_owner(tmp_path, pid=17, host="node3")
    with pytest.raises(RunLockedError) as error:
        RunLock(tmp_path).acquire()
    assert str(error.value) == (
        f"another run is writing to {tmp_path}: process 17 on host node3, since 2026-01-31T12:00:00+00:00. Wait for "
        f"it, or use another run directory. Whether it still runs cannot be seen from {socket.gethostname()}; if it "
        f"does not, remove {tmp_path}/.functrain-lock"
    )
    (tmp_path / lock.LOCK_FILE).unlink()
    with RunLock(tmp_path) as ours:
        assert ours.previous is None


@pytest.mark.parametrize(
    ("job", "restart", "taken"), [("7", "1", True), ("7", "0", False), ("8", "1", False), ("", "", False)]
)
def test_a_requeued_job_takes_over_from_its_earlier_start_elsewhere(tmp_path, monkeypatch, job, restart, taken):
    monkeypatch.setenv("SLURM_JOB_ID", job)
    monkeypatch.setenv("SLURM_RESTART_COUNT", restart)
    write_owner(tmp_path, pid=17, host="node3", job="7/0")
    if taken:
        with RunLock(tmp_path) as ours:
            assert ours.previous.host == "node3"
    else:
        with pytest.raises(RunLockedError):
            RunLock(tmp_path).acquire()


@pytest.mark.parametrize("content", ["", "{", "[]", '{"pid": -1, "host": "a", "since": ""}', '{"host": "node3"}', "\0"])
def test_a_file_that_names_nobody_is_no_lock(tmp_path, content):
    (tmp_path / lock.LOCK_FILE).write_text(content)
    with RunLock(tmp_path) as ours:
        assert ours.previous is None


class TestWithoutLocksOfTheFileSystem:
    @pytest.fixture(autouse=True)
    def _no_flock(self, monkeypatch):
        def unsupported(descriptor, operation):
            raise OSError(95, "Operation not supported")

        monkeypatch.setattr(file_locks, "_system_lock", unsupported)

    def test_a_living_process_is_respected(self, tmp_path):
        with holder(tmp_path) as process:
            with pytest.raises(RunLockedError, match=f"process {process.pid} on host"):
                RunLock(tmp_path).acquire()
            process.kill()
            process.wait()
            with RunLock(tmp_path) as ours:
                assert ours.previous.pid == process.pid

    def test_a_later_process_of_the_same_pid_is_not_the_owner(self, tmp_path):
        start = lock._process_start(os.getpid())
        assert start
        write_owner(tmp_path, process_start=start)
        with pytest.raises(RunLockedError):
            RunLock(tmp_path).acquire()
        write_owner(tmp_path, process_start=start[:-1] + str((int(start[-1]) + 1) % 10))
        with RunLock(tmp_path) as ours:
            assert ours.previous.pid == os.getpid()

    def test_a_process_that_nobody_has_waited_for_is_gone(self):
        process = subprocess.Popen(["true"])
        while lock._process_start(process.pid) is not None:
            time.sleep(0.01)
        assert lock._process_start(process.pid) is None  # a zombie, which still has its pid
        process.wait()


def test_a_lock_got_on_a_file_that_its_owner_has_just_removed_is_tried_again(tmp_path, monkeypatch):
    first, flock = RunLock(tmp_path).acquire(), lock.try_lock
    monkeypatch.setattr(lock, "try_lock", lambda descriptor: (first.release(), flock(descriptor))[1])
    with RunLock(tmp_path), pytest.raises(RunLockedError):
        RunLock(tmp_path).acquire()


def test_a_directory_that_cannot_be_made_is_an_error_with_a_message(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(CheckpointError, match=r"cannot lock the run directory .*file: .*File exists"):
        RunLock(tmp_path / "file").acquire()


def test_an_owner_reads_as_a_person_would_write_it():
    assert str(LockOwner(17, "node3", "2026-01-31")) == "process 17 on host node3, since 2026-01-31"
