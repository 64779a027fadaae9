"""A worker that the system kills for lack of memory: what is told and saved, and that a resume has the same bits."""

import os
import re
import signal
import subprocess
import sys
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
from functrain.foundation.errors import DataError

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


SCRIPT = """
import sys, torch, functrain as ft
from torch.utils.data import DataLoader, TensorDataset

state = ft.init_state(torch.nn.Linear(4, 3), ft.classification(), ft.optim.sgd(0.1))
data = TensorDataset(torch.ones(8, 4), torch.arange(8) % 3)
loader = DataLoader(data, 4, num_workers=2, multiprocessing_context=sys.argv[1])
ft.fit(state, loader, epochs=1, compile=False, progress=False)
"""


@pytest.mark.slow
@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_a_script_that_trains_when_workers_import_it_says_what_it_lacks(tmp_path, method):
    (tmp_path / "script.py").write_text(SCRIPT)
    command = [sys.executable, str(tmp_path / "script.py"), method]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert ended.returncode == 1
    assert "imports this script, and the script trains when it is imported" in ended.stderr
    last = ended.stderr.strip().splitlines()[-1]
    assert re.search(r'WorkerLostError: a worker process .* `if __name__ == "__main__":`', last)


def test_fit_refuses_a_script_that_a_worker_imports():
    code = "import functrain as ft\nft.fit(None, None)"
    with pytest.raises(DataError, match='under `if __name__ == "__main__":`'):
        exec(compile(code, "script.py", "exec"), {"__name__": "__mp_main__"})
    with pytest.raises(TypeError):  # elsewhere it is as ever: here, for wrong arguments
        exec(compile(code, "script.py", "exec"), {"__name__": "module"})


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
