"""Memory that is freed stays with the process within `kept_heap`, and goes back to the system after it."""

import ctypes
import platform
import subprocess
import sys

import pytest
import torch

from functrain.loop.process import heap

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc's allocator is asked to keep it")

# Resident MiB in a process of its own, within and after `kept_heap`, above what a trimmed heap had before: 128 MiB
# were freed. Not above what glibc kept by itself: that is all of it where a small block lies behind the large ones.
PROGRAM = """
import ctypes, torch
from functrain.loop.process.heap import kept_heap

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096 / 2**20

def use():
    blocks = [torch.ones(4 << 20) for _ in range(8)]
    del blocks

use()
ctypes.CDLL(None).malloc_trim(0)
before = resident()
with kept_heap(torch.device("cpu")):
    use()
    within = resident()
print(within - before, resident() - before)
"""


def test_what_is_freed_stays_within_and_goes_back_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in heap.USERS_OWN:
        monkeypatch.delenv(name, raising=False)
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    within, after = map(float, done.stdout.split())
    assert within > 100
    assert after < 20


@pytest.mark.parametrize(
    ("device", "environment", "asked"), [("cpu", {}, 4), ("meta", {}, 0), ("cpu", {"MALLOC_TRIM_THRESHOLD_": "9"}, 0)]
)
def test_another_device_and_the_users_own_settings_are_left_alone(
    monkeypatch: pytest.MonkeyPatch, device: str, environment: dict[str, str], asked: int
) -> None:
    for name in heap.USERS_OWN:
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    calls: list[object] = []

    class Libc:
        gnu_get_libc_version = None
        mallopt = malloc_trim = staticmethod(lambda *arguments: calls.append(arguments))

    monkeypatch.setattr(ctypes, "CDLL", lambda _name: Libc)
    with heap.kept_heap(torch.device(device)):
        pass
    assert len(calls) == asked
