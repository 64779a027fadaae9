"""A worker that the system kills for lack of memory: what is told and saved, and that a resume has the same bits."""

import os
import signal
import time
from pathlib import Path

import pytest
import torch
from loop_helpers import assert_same_bits
from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, get_worker_info

import functrain as ft
from functrain.checkpoint import read_info
from functrain.data import Loader, as_stream
from functrain.data.worker_loss import WorkerLostError, losses_at_draws

pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="the system has no signals")


class Deadly(Dataset):
    """The worker that reads sample `deadly` is killed, the first time."""

    def __init__(self, folder, deadly):
        self.marker, self.deadly = Path(folder, "killed"), deadly
        self.inputs = torch.randn(12, 4, generator=torch.Generator().manual_seed(1))

    def __len__(self):
        return 12

    def __getitem__(self, index):
        if index == self.deadly and get_worker_info() and not self.marker.exists():
            self.marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return self.inputs[index] + 0.1 * torch.randn(4), index % 3


@pytest.mark.parametrize("where", ["training", "several updates in a call", "evaluation"])
def test_the_state_is_saved_and_a_resume_has_the_same_bits(tmp_path, where):
    def run(run_dir, deadly):
        with torch.random.fork_rng():
            torch.manual_seed(1)
            model = nn.Linear(4, 3)
        state = ft.init_state(model, ft.classification(), ft.optim.adamw(1e-2))
        workers = {"num_workers": 1, "prefetch_factor": 1}
        evaluation = where == "evaluation"
        return ft.fit(
            state,
            Loader(Deadly(tmp_path, None if evaluation else deadly), 4, **workers),
            eval_loader=Loader(Deadly(tmp_path, deadly if evaluation else None), 4, shuffle=False, **workers),
            epochs=2,
            run_dir=run_dir,
            compile=where == "several updates in a call",
            backend="eager",
            progress=False,
        )

    expected = run(tmp_path / "whole", None)
    with pytest.raises(WorkerLostError, match=r"worker process of the loader ended: .*pid.* Step \d+ is saved") as lost:
        run(tmp_path / "lost", 7)
    assert "num_workers" in str(lost.value)
    assert read_info(tmp_path / "lost/checkpoints/last").status == "INTERRUPTED"
    resumed = run(tmp_path / "lost", 7)
    assert_same_bits(resumed.state, expected.state)
    assert resumed.history == expected.history


def kill(pid):
    """Returns when the process has ended and handlers have run."""
    os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + 60
    while os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is None:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    time.sleep(0.01)


class Pids(IterableDataset):
    def __iter__(self):
        return iter([torch.tensor(os.getpid()) for _ in range(9)])


def test_a_loss_waits_for_the_next_draw_while_a_run_trains():
    with losses_at_draws():
        batches = as_stream(DataLoader(Pids(), 1, num_workers=1, prefetch_factor=1), 0).batches(0)
        pid = int(next(batches))
        kill(pid)  # torch's handler would raise here
        with pytest.raises(WorkerLostError, match=rf"worker \(pid {pid}\) is killed by signal: Killed.*dmesg"):
            list(batches)


def test_outside_of_training_torch_raises_as_ever():
    batches = as_stream(DataLoader(Pids(), 1, num_workers=1, prefetch_factor=1), 0).batches(0)
    pid = int(next(batches))
    with pytest.raises(RuntimeError, match="killed by signal"):
        kill(pid)
