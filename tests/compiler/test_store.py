"""The store of compiled programs: what goes in comes out, and nothing else does."""

import errno
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from functrain.compiler.store import DIRECTORY_VARIABLE, LIMIT_VARIABLE, Store, StoreWarning, default_store

KEY = "k" * 64


@pytest.fixture
def program(tmp_path):
    """Makes a file to be kept: `program(size)`."""

    def make(size=100, byte=b"x"):
        path = tmp_path / f"made-{size}-{byte.hex()}"
        path.write_bytes(byte * size)
        return path

    return make


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "cache" / "programs", limit=1000)


def test_what_was_put_is_found_under_its_key_alone(store, program):
    assert store.get(KEY) is None
    path = store.put(KEY, program())
    assert store.get(KEY) == path
    assert path.read_bytes() == b"x" * 100
    assert store.get("j" * 64) is None


@pytest.mark.parametrize("damage", ["flip", "truncate", "empty"])
def test_a_damaged_program_is_removed_and_never_loaded(damage, store, program):
    path = store.put(KEY, program())
    content = path.read_bytes()
    path.write_bytes({"flip": b"y" + content[1:], "truncate": content[:-1], "empty": b""}[damage])
    with pytest.warns(StoreWarning, match="was damaged; it is built anew"):
        assert store.get(KEY) is None
    assert not path.exists()


def test_the_programs_unused_for_longest_make_room(store, program):
    paths = [store.put(letter * 64, program(400, letter.encode())) for letter in "ab"]
    for age, path in enumerate(reversed(paths)):
        os.utime(path, (1000 - age, 1000 - age))
    assert store.get("a" * 64) == paths[0]  # used just now
    newest = store.put("c" * 64, program(400, b"c"))
    assert {path.name for path in store.directory.glob("*.pt2")} == {paths[0].name, newest.name}


def test_a_program_larger_than_the_limit_is_kept_alone(store, program):
    store.put("a" * 64, program(10))
    large = store.put("b" * 64, program(5000))
    assert [path.name for path in store.directory.glob("*.pt2")] == [large.name]


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="the system has no owners of files")
def test_a_directory_that_others_can_write_to_is_not_trusted(store, program):
    store.put(KEY, program())
    store.directory.chmod(0o777)
    assert store.get(KEY) is None  # one warning is enough: `put` follows
    with pytest.warns(StoreWarning, match=r"others can write to it.*chmod 700.*Training goes on") as caught:
        assert store.put(KEY, program()) is None
    assert len(caught) == 1


def test_where_nothing_can_be_kept_the_warning_says_so(tmp_path, program):
    in_the_way = tmp_path / "file"
    in_the_way.write_text("")
    with pytest.warns(StoreWarning, match=f"the next start will compile again.*{DIRECTORY_VARIABLE}"):
        assert Store(in_the_way / "programs", limit=1000).put(KEY, program()) is None


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES])
def test_a_full_or_read_only_disk_is_told_in_the_same_words_for_each_step(store, program, monkeypatch, number):
    def full(source, target):
        raise OSError(number, os.strerror(number), str(target))

    monkeypatch.setattr(shutil, "copy", full)
    with pytest.warns(StoreWarning, match=os.strerror(number)) as caught:
        assert [store.put(letter * 64, program()) for letter in "ab"] == [None, None]
    assert len({str(warning.message) for warning in caught}) == 1  # so that Python shows it once
    assert not list(store.directory.iterdir())


def test_a_program_on_a_file_system_that_has_become_read_only_is_used(store, program, monkeypatch):
    path = store.put(KEY, program())

    def read_only(path):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(os, "utime", read_only)
    assert store.get(KEY) == path


def test_without_a_home_directory_nothing_is_kept(monkeypatch, program):
    def homeless(path):
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv(DIRECTORY_VARIABLE, raising=False)
    monkeypatch.setattr(Path, "expanduser", homeless)
    store = default_store()
    assert store.get(KEY) is None
    with pytest.warns(StoreWarning, match=f"no home directory.*{DIRECTORY_VARIABLE}"):
        assert store.put(KEY, program()) is None


def test_many_writers_of_one_key_leave_one_whole_program(store, program):
    source = program(500)
    threads = [threading.Thread(target=store.put, args=(KEY, source)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert store.get(KEY).read_bytes() == source.read_bytes()
    assert len(list(store.directory.iterdir())) == 1


def test_one_process_at_a_time_has_a_turn_for_a_key(store, program):
    """So of several ranks one compiles, and the others find what it has kept."""
    compiled, waiting = [], threading.Barrier(4)

    def make():
        waiting.wait()
        with store.turn(KEY):
            if store.get(KEY) is None:
                compiled.append(store.put(KEY, program(500)))

    threads = [threading.Thread(target=make) for _ in range(4)]
    for thread in threads:
        thread.start()
    with store.turn("j" * 64):  # another key's turn keeps nobody waiting
        for thread in threads:
            thread.join()
    assert len(compiled) == 1
    assert [path.suffix for path in store.directory.iterdir()] == [".pt2"]


def test_a_process_that_ends_in_its_turn_keeps_nobody_waiting(store):
    program = (
        "import os, pathlib, sys\n"
        "from functrain.compiler.store import Store\n"
        "turn = Store(pathlib.Path(sys.argv[1]), limit=1).turn(sys.argv[2])\n"
        "turn.__enter__()\n"
        "os._exit(0)\n"
    )
    subprocess.run([sys.executable, "-c", program, str(store.directory), KEY], check=True, timeout=120)
    assert len(list(store.directory.iterdir())) == 1
    with store.turn(KEY):
        pass
    assert list(store.directory.iterdir()) == []


def test_without_a_place_for_programs_nobody_waits(tmp_path):
    (tmp_path / "file").touch()
    for place in (None, tmp_path / "file" / "programs"):
        with Store(place, limit=1000).turn(KEY), Store(place, limit=1000).turn(KEY):
            pass


def test_the_users_store_is_where_the_environment_says(monkeypatch, tmp_path):
    monkeypatch.setenv(DIRECTORY_VARIABLE, str(tmp_path))
    monkeypatch.setenv(LIMIT_VARIABLE, "0.5")
    store = default_store()
    assert (store.directory, store.limit) == (tmp_path / "programs", 500_000_000)
    monkeypatch.delenv(DIRECTORY_VARIABLE)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert default_store().directory == tmp_path / "xdg" / "functrain" / "programs"


def test_a_limit_that_is_no_number_is_refused(monkeypatch):
    monkeypatch.setenv(LIMIT_VARIABLE, "much")
    with pytest.raises(ValueError, match="must be a number of gigabytes, such as 4; got 'much'"):
        default_store()
