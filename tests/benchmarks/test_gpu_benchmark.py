"""The parts of benchmarks/gpu.py, on a CPU and small: it must work at once where there is a GPU for it."""

import sys
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

ROOT = Path(__file__).parents[2]


@pytest.fixture
def gpu(monkeypatch):
    """The module; the folder of benchmarks is no installed package."""
    monkeypatch.syspath_prepend(ROOT)
    from benchmarks import gpu

    return gpu


@pytest.fixture
def task(gpu):
    size = gpu.Size(layers=2, width=32, heads=2, tokens=8, vocabulary=64)
    return gpu.Task(size, batch=2, precision="fp32", device=torch.device("cpu"), steps=2, backend="aot_eager")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_a_gpu_it_says_so_and_ends_well(gpu, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["gpu.py"])
    gpu.main()
    assert "no CUDA device here, nothing was measured" in capsys.readouterr().out


def test_both_torch_ways_train_alike(gpu, task):
    """In float32, where one way's rounding stays below what the losses show."""
    ours, by_hand = (gpu.measure(task, way) for way in (gpu.FUNCTRAIN, "torch by hand: torch.compile on model + loss"))
    assert len(ours["seconds"]) == len(by_hand["seconds"]) == 2
    assert ours["loss"] == pytest.approx(by_hand["loss"], rel=1e-5)
    assert gpu.measure(task, "functrain: the same as a CUDA graph") == {"missing": "no GPU"}


def test_a_stopped_run_resumes_bit_for_bit(gpu, task):
    assert gpu.resume(task) == []


def test_the_formula_for_operations_counts_what_torch_counts(gpu):
    size = gpu.Size(layers=2, width=32, heads=2, tokens=16, vocabulary=64)
    tokens, following = gpu.random_text(size, 3)
    with FlopCounterMode(display=False) as counter:
        gpu.next_token_loss(gpu.GPT(size)(tokens), following).backward()
    attention = 12 * size.layers * size.width * size.tokens  # which torch does not count on a CPU
    assert counter.get_total_flops() == (gpu.flops_per_token(size) - attention) * tokens.numel()
