"""Memory that is freed stays with the process within `kept_heap`, and goes back to the system after it."""

import os
import platform
import subprocess
import sys

import pytest

from functrain.loop.process.heap import USERS_OWN

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc's allocator is asked to keep it")

# Resident MiB in a process of its own: after 128 MiB were freed without, within and after `kept_heap`, above the first.
PROGRAM = """
import torch
from functrain.loop.process.heap import kept_heap

def resident():
    blocks = [torch.ones(4 << 20) for _ in range(8)]
    del blocks
    return int(open("/proc/self/statm").read().split()[1]) * 4096 / 2**20

resident()
without = resident()
with kept_heap(torch.device({device!r})):
    resident()
    within = resident()
print(within - without, resident() - without)
"""


def resident(device: str = "cpu", **environment: str) -> tuple[float, float]:
    program = PROGRAM.format(device=device)
    inherited = {name: value for name, value in os.environ.items() if name not in USERS_OWN}
    done = subprocess.run(
        [sys.executable, "-c", program], env={**inherited, **environment}, capture_output=True, text=True, check=True
    )
    within, after = map(float, done.stdout.split())
    return within, after


def test_what_is_freed_stays_within_and_goes_back_at_the_end() -> None:
    within, after = resident()
    assert within > 100
    assert after < 20


@pytest.mark.parametrize(("device", "environment"), [("meta", {}), ("cpu", {"MALLOC_TRIM_THRESHOLD_": "131072"})])
def test_another_device_and_the_users_own_settings_are_left_alone(device: str, environment: dict[str, str]) -> None:
    within, _ = resident(device, **environment)
    assert within < 20
