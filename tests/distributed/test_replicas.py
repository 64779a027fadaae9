"""Data parallelism with real processes: the update of the ranks is the update of one process."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

import functrain as ft
from functrain.distributed import World, all_ranks, any_rank, current_world, part_of, replicas
from functrain.distributed.world import aside
from functrain.foundation.errors import FunctrainError
from functrain.foundation.trees import leaves_with_paths
from functrain.loop.output.log_files import read_records
from functrain.metrics.totals import Totals

PROGRAM = Path(__file__).with_name("ranks_process.py")


def codes_of(*runs: str) -> list[list[int]]:
    """Runs one after the other; the exit codes of the ranks of each."""
    done = subprocess.run(
        [sys.executable, str(PROGRAM), *runs],
        env={**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_two_ranks_train_like_one_process_and_stop_and_resume_together(tmp_path: Path) -> None:
    spec = importlib.util.spec_from_file_location("ranks_process", PROGRAM)
    assert spec is not None
    assert spec.loader is not None
    program = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(program)
    alone = program.train(str(tmp_path / "alone"))

    # One rank alone is told to stop; both do, after the same step, and both go on.
    assert codes_of(f"2,{tmp_path / 'ranks'},5", f"2,{tmp_path / 'ranks'}") == [[143, 143], [0, 0]]
    digests = [(tmp_path / f"ranks-digest-{rank}").read_text() for rank in range(2)]
    assert digests == [read_records(tmp_path / "ranks" / "metrics.jsonl")[-1]["digest"]] * 2
    with ft.Checkpointer(tmp_path / "ranks" / "checkpoints") as checkpointer:
        together = checkpointer.restore(program.make_state()).tree
    for (path, left), (_, right) in zip(leaves_with_paths(alone.state), leaves_with_paths(together), strict=True):
        if isinstance(left, torch.Tensor) and left.is_floating_point():
            torch.testing.assert_close(left, right, rtol=1e-10, atol=1e-12, msg=path)
        else:
            assert torch.equal(left, right) if isinstance(left, torch.Tensor) else left == right, path


def test_ranks_agree_in_another_group_than_that_of_compiled_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """In one group gloo's thread, which lets go of a Python tensor, and a compiled step may wait for each other."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        before = dist.group.WORLD._get_sequence_number_for_group()
        assert any_rank(True, World(0, 2))
        assert all_ranks("here", World(0, 2))[0] == "here"
        assert aside() is aside()
        monkeypatch.setattr(replicas, "current_world", lambda: World(0, 2))
        sums = replicas.totals_over_ranks(Totals(torch.ones(2, 3), ("loss",), None)).sums
        assert torch.equal(sums, torch.ones(2, 3))
        assert dist.group.WORLD._get_sequence_number_for_group() == before
    finally:
        dist.destroy_process_group()


def test_compiled_runs_of_fast_sums_count_examples_once_and_go_on_with_their_bits(tmp_path: Path) -> None:
    """39 examples in an epoch, the last batch of which is filled up, and 8 that fill up the last window."""
    whole, stopped = tmp_path / "ddp", tmp_path / "stopped"
    runs = f"2,{tmp_path / 'zero2'},0,zero2", f"2,{whole},0,ddp", f"2,{stopped},5,ddp", f"2,{stopped},0,ddp"
    assert codes_of(*runs) == [[0, 0], [0, 0], [143, 143], [0, 0]]
    for name in ("zero2", "ddp", "stopped"):
        assert read_records(tmp_path / name / "metrics.jsonl")[-1]["samples"] == 3 * (39 + 8)
    digests = [Path(f"{folder}-digest-{rank}").read_text() for folder in (whole, stopped) for rank in range(2)]
    assert len(set(digests)) == 1


def test_a_batch_is_shared_out_evenly_or_refused() -> None:
    assert part_of((torch.arange(6),), World(2, 3))[0].tolist() == [2, 5]
    with pytest.raises(ValueError, match="a batch of 5 examples cannot be shared evenly by 2 ranks"):
        part_of(torch.arange(5), World(0, 2))


def test_processes_that_were_not_joined_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(FunctrainError, match="2 processes were started, but each would train alone"):
        current_world()


@pytest.mark.parametrize(
    ("gpus", "device", "backend"),
    [
        (True, None, "nccl"),
        (True, "cpu", "gloo"),
        (True, "cuda", "nccl"),
        (False, None, "gloo"),
        (False, "cpu", "gloo"),
    ],
)
def test_ranks_are_joined_by_what_their_device_can_do(gpus, device, backend, monkeypatch):
    joined, chosen = [], []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setattr(torch.distributed, "init_process_group", joined.append)
    monkeypatch.setenv("LOCAL_RANK", "3")
    ft.distributed.start(device)
    assert joined == [backend]
    assert chosen == ([3] if backend == "nccl" else [])


def test_a_sum_over_ranks_does_not_import_the_compiler() -> None:
    """A rank that loads its compiled steps has no need of it, and 1.5 s of CPU time less to do at its start."""
    program = (
        "import sys, torch, torch.distributed as dist\n"
        "from functrain.foundation.torch_internals import all_reduced\n"
        "dist.init_process_group('gloo', store=dist.HashStore(), rank=0, world_size=1)\n"
        "assert all_reduced(torch.ones(2), dist.group.WORLD).tolist() == [1, 1]\n"
        "assert 'torch._dynamo' not in sys.modules and 'sympy' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)
