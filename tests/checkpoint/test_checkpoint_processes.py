"""What is on the disk when a process ends, in order or not."""

import os
import random
import signal
import subprocess
import sys
import time

import torch

from functrain.checkpoint import Checkpointer

ENDING = """
import sys
from functrain.checkpoint import Checkpointer
assert not {"jax", "orbax", "ml_dtypes"} & set(sys.modules)
import torch
checkpointer = Checkpointer(sys.argv[1])
checkpointer.save({"params": {"w": torch.full((1_000_000,), 3.0)}}, step=3)
"""

SAVING = """
import sys, torch
from functrain.checkpoint import Checkpointer
checkpointer = Checkpointer(sys.argv[1], keep=2)
for step in range(10_000):
    checkpointer.save({"params": {"w": torch.full((500_000,), float(step))}, "step": step}, step=step)
    if step:
        print(step - 1, flush=True)
"""


def test_a_process_that_ends_without_close_loses_nothing(tmp_path):
    subprocess.run([sys.executable, "-W", "error", "-c", ENDING, str(tmp_path)], check=True, timeout=120)
    restored = Checkpointer(tmp_path).restore({"params": {"w": torch.empty(1_000_000, device="meta")}})
    assert restored.tree["params"]["w"].eq(3).all()
    assert sorted(os.listdir(tmp_path)) == ["last", "step-00000003"]


def test_after_kill_9_the_newest_committed_checkpoint_is_whole(tmp_path):
    rng = random.Random(0)
    like = {"params": {"w": torch.empty(500_000, device="meta")}, "step": 0}
    for kill in range(2):
        directory = tmp_path / str(kill)
        process = subprocess.Popen([sys.executable, "-c", SAVING, str(directory)], stdout=subprocess.PIPE, text=True)
        with process:
            while int(process.stdout.readline()) < 2:
                pass
            time.sleep(rng.uniform(0.0, 0.3))
            process.send_signal(signal.SIGKILL)
            committed = [int(line) for line in process.stdout.read().split()]
        with Checkpointer(directory, keep=2) as checkpointer:
            tree, info = checkpointer.restore(like)
            assert info.step >= max([2, *committed])
            assert tree["params"]["w"].eq(info.step).all()
            assert tree["step"] == info.step
            checkpointer.save(tree, step=info.step + 1)
        assert not [name for name in os.listdir(directory) if name.startswith(".")]
