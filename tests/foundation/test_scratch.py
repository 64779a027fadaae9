"""Temporary folders: a living process keeps its own, and what a killed one left is removed by the next."""

import os
import signal
import subprocess
import sys
import tempfile

import pytest

from functrain.foundation import scratch
from functrain.foundation.scratch import ScratchFolder, scratch_folder

pytestmark = pytest.mark.skipif(not hasattr(os, "getuid"), reason="the system has no locks on folders")

OTHER = """
import runpy, sys, time
from pathlib import Path
scratch = runpy.run_path(sys.argv[1])
folders = [scratch["ScratchFolder"](Path(sys.argv[2]), "x-") for _ in range(2)]
print(*[folder.path for folder in folders], flush=True)
time.sleep(600)
"""


@pytest.fixture
def other(tmp_path):
    """Another process with two folders, and their paths."""
    command = [sys.executable, "-c", OTHER, scratch.__file__, str(tmp_path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    yield process, process.stdout.readline().split()
    process.kill()
    process.wait()
    process.stdout.close()


def test_the_folders_of_a_killed_process_are_removed_and_those_of_a_living_one_are_not(tmp_path, other):
    process, paths = other
    with scratch_folder(tmp_path, "x-") as mine:
        assert sorted(os.listdir(tmp_path)) == sorted([mine.name, *map(os.path.basename, paths)])
    assert sorted(os.listdir(tmp_path)) == sorted(map(os.path.basename, paths))
    (tmp_path / "x-a file").touch()
    (tmp_path / "x-a link").symlink_to(tmp_path)
    (tmp_path / "y-another's").mkdir()
    process.send_signal(signal.SIGKILL)
    process.wait()
    with scratch_folder(tmp_path, "x-") as mine:
        assert {path.name for path in tmp_path.iterdir()} == {mine.name, "x-a file", "x-a link", "y-another's"}


def test_a_folder_goes_with_the_object_that_has_it(tmp_path):
    folder = ScratchFolder(tmp_path)
    (folder.path / "inner").mkdir()
    del folder
    assert not os.listdir(tmp_path)


def test_a_forked_process_leaves_its_parents_folder_alone(tmp_path, monkeypatch):
    folder = ScratchFolder(tmp_path)
    monkeypatch.setattr(os, "getpid", lambda: 1)
    folder.remove()
    assert folder.path.is_dir()


def test_a_folder_that_another_process_sweeps_before_it_is_locked_is_made_again(tmp_path, monkeypatch):
    usual, made = tempfile.mkdtemp, []

    def swept(**options):
        made.append(usual(**options))
        if len(made) == 1:
            os.rmdir(made[0])
        return made[-1]

    monkeypatch.setattr(tempfile, "mkdtemp", swept)
    with scratch_folder(tmp_path) as path:
        assert [str(path)] == made[1:]
        assert path.is_dir()


def test_the_default_is_this_users_folder_in_the_systems_temporary_one(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with scratch_folder() as path:
        assert path.parent == tmp_path / f"functrain-{os.getuid()}"
        assert path.parent.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("kind", ["others can write to it", "a link", "a file"])
def test_a_folder_of_that_name_that_is_not_this_users_alone_is_left_alone(tmp_path, monkeypatch, kind):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    own = tmp_path / f"functrain-{os.getuid()}"
    theirs = tmp_path / "theirs"
    (theirs / "scratch-theirs").mkdir(parents=True)
    if kind == "a link":
        own.symlink_to(theirs)
    elif kind == "a file":
        own.touch()
    else:
        theirs.rename(own)
        own.chmod(0o777)
    with scratch_folder() as path:
        assert path.parent == tmp_path
        assert path.stat().st_mode & 0o777 == 0o700
    assert not path.exists()
    assert list(tmp_path.rglob("scratch-theirs"))
