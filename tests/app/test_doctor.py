"""functrain doctor: what is wrong is found, in bounded time, and says what to do."""

import json
import os
import threading
from pathlib import Path

import pytest
import torch

from functrain.app.doctor import computing, report, software, storage
from functrain.app.doctor.finding import Check, Finding, findings
from functrain.compiler.store import Store


@pytest.fixture
def few(monkeypatch):
    """These checks in place of all."""

    def replace(*found):
        checks = [Check(each.check, lambda each=each: iter([each])) for each in found]
        monkeypatch.setattr(report, "checks", lambda _: checks)

    return replace


GOOD, WORSE, BAD = (
    Finding("a", "ok", "fine"),
    Finding("b", "warning", "slow", "wait"),
    Finding("c", "broken", "gone", "install it"),
)


def test_this_machine_passes_every_check(functrain, project, monkeypatch):
    monkeypatch.setattr(computing, "MEASURED_SECONDS", 0.01)
    threads = torch.get_num_threads()
    code, out, err = functrain("doctor", "--json")
    assert (code, err) == (0, "")
    found = json.loads(out)
    assert {each["check"] for each in found["findings"]} >= {
        "Python", "packages", "torch", "C++ compiler", "threads", "disk", "compiled programs", "signatures"
    }  # fmt: skip
    assert found["broken"] == 0
    assert torch.get_num_threads() == threads
    assert not (project / "runs").exists()


def test_findings_come_as_lines_with_what_to_do(functrain, few):
    few(GOOD, WORSE)
    assert functrain("doctor")[:2] == (0, "ok       a                  fine\nwarning  b                  slow\n\n"
                                          "what to do:\n  b: wait\n\n0 broken, 1 warning\n")  # fmt: skip
    few(GOOD)
    assert functrain("doctor")[1].endswith("\nall is well\n")


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_the_exit_code_is_1_if_something_is_broken(functrain, few, options):
    few(GOOD, WORSE, BAD)
    code, out, err = functrain("doctor", *options)
    assert (code, err) == (1, "")
    assert "install it" in out


def test_a_check_that_hangs_or_fails_is_a_finding():
    never = threading.Event()

    def hangs():
        yield GOOD
        never.wait()

    def fails():
        raise ZeroDivisionError("by zero\nand more")
        yield

    found = findings(Check("slow", hangs), seconds=0.05)
    assert found[-1][:3] == ("slow", "broken", "no answer in 0 s")
    never.set()
    assert findings(Check("wrong", fails)) == [
        Finding("wrong", "broken", "the check failed: ZeroDivisionError: by zero")
    ]


@pytest.mark.parametrize(
    ("threads", "processors", "slowdown", "status", "fix"),
    [
        (2, 2, 0.6, "ok", ""),
        (1, 2, 1.0, "ok", ""),
        (2, 2, 6.0, "warning", "training.threads=1 "),
        (8, 2, 0.9, "warning", "training.threads=2,"),
        (4, 0.5, 0.9, "warning", "training.threads=1,"),
    ],
)
def test_threads_are_judged_by_processors_and_by_a_measurement(threads, processors, slowdown, status, fix):
    found = computing.judged_threads(threads, processors, slowdown)
    assert (found.status, found.fix.startswith(fix)) == (status, True)


def test_the_processors_of_a_container_are_its_limit(tmp_path):
    limit, all_of_them = tmp_path / "cpu.max", computing.usable_processors(tmp_path / "none")
    for text, expected in (
        ("max 100000", all_of_them),
        ("50000 100000", 0.5),
        ("900000000 100000", all_of_them),
        ("", all_of_them),
    ):
        limit.write_text(text)
        assert computing.usable_processors(limit) == expected


@pytest.mark.parametrize(
    ("free", "speed", "locks", "words"),
    [
        (1e9, 1e9, True, "little room"),
        (9e9, 1e6, True, "slow"),
        (9e9, 1e9, False, "no file locks"),
        (9e9, 1e9, True, ""),
    ],
)
def test_a_disk_is_judged_by_room_speed_and_locks(free, speed, locks, words):
    found = storage.judged_disk(Path("/d"), free, speed, locks)
    assert found.status == ("warning" if words else "ok")
    assert words in found.found


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_disk_that_cannot_be_written_to_is_broken(tmp_path):
    tmp_path.chmod(0o500)
    (found,) = storage.check_disk(tmp_path / "runs")
    assert (found.status, found.found) == ("broken", f"{tmp_path} cannot be written to: Permission denied")
    tmp_path.chmod(0o700)


def test_a_file_in_the_place_of_the_run_directory_is_broken(tmp_path):
    (tmp_path / "file").write_text("")
    (found,) = storage.check_disk(tmp_path / "file" / "runs")
    assert (found.status, "is a file" in found.found) == ("broken", True)


def test_the_disk_is_left_as_it_was(tmp_path):
    assert [each.check for each in storage.check_disk(tmp_path / "runs" / "deep")] == ["disk"]
    assert list(tmp_path.iterdir()) == []


FAKES = {
    "fails": ("echo 'x.cpp:1: error: no such thing' >&2; exit 1", "cannot compile a small program: x.cpp:1: error"),
    "is silent": ("exit 3", "cannot compile a small program: no message"),
    "makes nothing": ("exit 0", "cannot be loaded"),
    "hangs": ("exec sleep 60", "compiles a program of two lines for more than 1 s"),
}


@pytest.mark.parametrize("kind", FAKES)
def test_a_compiler_that_does_not_work_is_broken(tmp_path, monkeypatch, kind):
    script, words = FAKES[kind]
    fake = tmp_path / "c++"
    fake.write_text(f"#!/bin/sh\n{script}\n")
    fake.chmod(0o755)
    monkeypatch.setattr("functrain.compiler.packages.cpp_compiler", lambda: str(fake))
    monkeypatch.setattr(computing, "COMPILE_SECONDS", 1.0)
    (found,) = computing.check_compiler()
    assert (found.status, words in found.found) == ("broken", True), found
    assert "compile: false" in found.fix


def test_no_compiler_is_broken(monkeypatch):
    from functrain.compiler.packages import _NO_COMPILER
    from functrain.foundation.errors import FunctrainError

    def none():
        raise FunctrainError(_NO_COMPILER)

    monkeypatch.setattr("functrain.compiler.packages.cpp_compiler", none)
    (found,) = computing.check_compiler()
    assert found[:3] == ("C++ compiler", "broken", "none was found")
    assert found.fix.startswith("install g++ or clang")


def test_packages_that_are_old_or_missing_are_broken(monkeypatch):
    wanted = [
        "numpy>=1.26",
        "optree>=99",
        "no-such-package>=1",
        'neither-this>=2; extra == "plots"',
        'ruff>=99; extra == "dev"',
    ]
    monkeypatch.setattr(software, "requires", lambda _: wanted)
    broken, good = software.check_packages()
    assert broken.status == "broken"
    assert "is older than 99; no-such-package is not installed" in broken.found
    assert good.found.startswith("numpy ")
    assert good.found.endswith("; optional and not installed: neither-this")


def test_a_release_of_torch_that_was_not_tested_is_a_warning(monkeypatch):
    monkeypatch.setattr(torch, "__version__", "9.1.0")
    (found,) = software.check_torch()
    assert (found.status, "9.1.0" in found.found, "install torch 2.11 to 2.15" in found.fix) == ("warning", True, True)


def test_a_gpu_that_torch_cannot_use_is_a_warning(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    tool = tmp_path / "nvidia-smi"
    tool.write_text("")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    (found,) = computing.check_gpu()
    assert (found.status, "there seems to be one" in found.found) == ("warning", True)


def test_a_cache_that_keeps_nothing_says_why(tmp_path, monkeypatch):
    assert Store(tmp_path / "new", 1).problem() == ""
    assert Store(None, 1).problem().startswith("there is no home directory")
    (tmp_path / "file").write_text("")
    assert Store(tmp_path / "file" / "x", 1).problem() == f"{tmp_path}/file is a file"
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    assert "as others can write to it" in Store(tmp_path / "open", 1).problem()
    monkeypatch.setenv("FUNCTRAIN_CACHE_DIR", str(tmp_path / "file"))
    found = next(storage.check_caches())
    assert (found.status, "FUNCTRAIN_CACHE_DIR" in found.fix) == ("warning", True)


def test_a_key_that_cannot_be_kept_is_a_warning(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    (found,) = storage.check_key()
    assert (found.status, "--trust" in found.fix) == ("warning", True)
