"""Disks that are full, that are read-only, and that lose power: with real file systems where the system permits."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from functrain.checkpoint import Checkpointer

# A run on a disk of 24 MB, in a mount namespace of its own: nothing outside of the process sees it.
ON_A_SMALL_DISK = """
import os, subprocess, sys, warnings
from pathlib import Path
import torch
from functrain.checkpoint import Checkpointer, CheckpointWarning
from functrain.foundation.errors import CheckpointError

disk = Path(sys.argv[1])

def mount(*arguments):
    subprocess.run(["mount", *arguments, str(disk)], check=True)

def state(step):
    return {"params": {"w": torch.full((500_000,), float(step)), "b": torch.full((10,), float(step))}, "step": step}

def failure(act):
    try:
        act()
    except CheckpointError as error:
        return str(error)
    return None

mount("-t", "tmpfs", "-o", "size=24m", "none")
checkpointer = Checkpointer(disk / "checkpoints", keep=int(sys.argv[3]))
checkpointer.save(state(1), step=1)
checkpointer.wait()
"""

FULL = (
    ON_A_SMALL_DISK
    + """
filler = disk / "filler"
with filler.open("wb", buffering=0) as file:
    try:
        while True:
            file.write(bytes(100_000))
    except OSError:
        pass
if sys.argv[4] == "unseen":  # as under a quota, or when another process is quicker
    from types import SimpleNamespace
    os.statvfs = lambda path: SimpleNamespace(f_bavail=2**40, f_frsize=4096, f_files=0, f_favail=0)
with filler.open("ab") as file:
    file.truncate(file.tell() - int(sys.argv[2]))  # how far a save gets
for step in (2, 3):  # the second try fails like the first
    checkpointer.save(state(step), step=step)
    print(failure(checkpointer.wait))
assert sorted(os.listdir(disk / "checkpoints")) == ["last", "step-00000001"], os.listdir(disk / "checkpoints")
assert Checkpointer(disk / "checkpoints", read_only=True).restore(state(0)).tree["params"]["w"].eq(1).all()
filler.unlink()
checkpointer.save(state(4), step=4)
checkpointer.close()
assert checkpointer.names() == ["step-00000004"]
assert checkpointer.restore(state(0)).tree["params"]["w"].eq(4).all()
print("recovered")
"""
)

READ_ONLY = (
    ON_A_SMALL_DISK
    + """
mount("-o", "remount,ro")
for step in (2, 3):
    checkpointer.save(state(step), step=step)
    print(failure(checkpointer.wait))
assert checkpointer.restore(state(0)).tree["params"]["w"].eq(1).all()
mount("-o", "remount,rw")
checkpointer.save(state(4), step=4)
checkpointer.wait()
(disk / "checkpoints" / "step-00000004" / "functrain.json").write_bytes(b"")
mount("-o", "remount,ro")
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    assert checkpointer.restore(state(0)).info.step == 1
print(*caught[0].message.args)
"""
)

# Between the look whether there is room and orbax's own directories: orbax has threads that wait for those.
READ_ONLY_MEANWHILE = (
    ON_A_SMALL_DISK
    + """
from functrain.checkpoint import files
look = files.require_room

def look_too_early(*arguments):
    look(*arguments)
    mount("-o", "remount,ro")

files.require_room = look_too_early
for step in (2, 3):
    checkpointer.save(state(step), step=step)
    print(failure(checkpointer.wait))
"""
)


# Of a disk that fills in the middle of a write tensorstore may tell orbax's event loop when that has been closed. It
# changes nothing, and whether it comes in time is chance.
TOLD_TOO_LATE = re.compile(
    r"(Exception ignored .*\n)?Traceback \(most recent call last\):\n(  .*\n)*RuntimeError: Event loop is closed\n"
)


def in_a_mount_namespace(script, *arguments, fills_while_writing=False):
    """Output lines of a script that may mount; the test is skipped where it may not."""
    probe = subprocess.run(["unshare", "-rm", "true"], capture_output=True, check=False)
    if probe.returncode:
        pytest.skip("needs the right to make a mount namespace")
    command = ["unshare", "-rm", sys.executable, "-W", "error::Warning", "-c", script, *map(str, arguments)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    said = TOLD_TOO_LATE.sub("", result.stderr) if fills_while_writing else result.stderr
    assert (result.returncode, said) == (0, "")
    return result.stdout.splitlines()


# So much is free when a save begins: nothing, room for the first files, room for nearly all.
@pytest.mark.parametrize(("free", "how"), [(100_000, "seen"), (0, "unseen"), (1_900_000, "unseen")])
def test_a_full_disk_costs_a_save_and_nothing_else(tmp_path, free, how):
    *errors, last = in_a_mount_namespace(FULL, tmp_path, free, 1, how, fills_while_writing=how == "unseen" and free)
    for step, line in zip((2, 3), errors, strict=True):
        assert re.fullmatch(
            rf"could not save checkpoint {tmp_path}/checkpoints/step-0000000{step}: \[Errno 28\] "
            "No space left on device(: '.*')?; the newest there is step-00000001",
            line,
        )
    assert last == "recovered"


def test_a_read_only_disk_costs_a_save_and_nothing_else(tmp_path):
    first, second, damaged = in_a_mount_namespace(READ_ONLY, tmp_path, 0, 2, "")
    for step, line in ((2, first), (3, second)):
        assert re.fullmatch(
            rf"could not save checkpoint {tmp_path}/checkpoints/step-0000000{step}: \[Errno 30\] "
            "Read-only file system.*; the newest there is step-00000001",
            line,
        )
    assert re.search(
        r"step-00000004 is damaged: .*; it could not be renamed \(\[Errno 30\] Read-only file system: .*\) "
        "and step-00000001 is used instead",
        damaged,
    )


def test_a_disk_that_becomes_read_only_within_a_save_does_not_keep_the_process_from_ending(tmp_path):
    first, second = in_a_mount_namespace(READ_ONLY_MEANWHILE, tmp_path, 0, 2, "")
    assert "step-00000002: [Errno 30] Read-only file system" in first
    assert "step-00000003: [Errno 30] Read-only file system" in second


def test_all_of_a_checkpoint_is_on_the_disk_before_its_name_is(tmp_path, monkeypatch):
    """Power may fail at any moment: nothing has a name that was not synced before, names are synced after."""
    synced, order = {}, []
    fsync, rename = os.fsync, os.rename

    def recording_fsync(descriptor):
        fsync(descriptor)
        path = os.readlink(f"/proc/self/fd/{descriptor}")
        synced[path] = os.fstat(descriptor).st_mtime_ns
        order.append(("sync", path))

    def recording_rename(source, target):
        if Path(target).name.startswith("step-"):
            for path in [Path(source), *Path(source).rglob("*")]:
                # The very bytes and entries that are there now, not earlier ones.
                assert synced.get(str(path)) == path.stat().st_mtime_ns, path
        rename(source, target)
        if Path(target).name.startswith(("step-", ".trash-")):
            order.append(("rename", str(target)))

    monkeypatch.setattr(os, "fsync", recording_fsync)
    monkeypatch.setattr(os, "rename", recording_rename)
    directory = tmp_path / "new" / "checkpoints"
    with Checkpointer(directory, keep=1) as checkpointer:
        checkpointer.save({"w": torch.ones(3)}, step=1)
        checkpointer.save({"w": torch.ones(3)}, step=2)
    renames = [place for place, (what, _) in enumerate(order) if what == "rename"]
    assert len(renames) == 3  # two checkpoints appear, one disappears
    assert all(order[place + 1] == ("sync", str(directory)) for place in renames)
    # Directories that were made have a synced entry above them.
    assert {("sync", str(tmp_path)), ("sync", str(tmp_path / "new"))} <= set(order)
