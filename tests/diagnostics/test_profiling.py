"""Where the time goes: what is measured, of how much, and that nothing is changed by it."""

import json

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import functrain as ft
from functrain.diagnostics import profiling
from functrain.diagnostics.flops import PEAKS, TERA, count_flops, peak_flops
from functrain.diagnostics.profiling import Phase, Profile
from functrain.foundation.errors import FunctrainError

PHASES = {"data", "step", "metrics", "checkpoint", "checkpoint on disk"}


def make_state(**options):
    return ft.init_state(
        nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3)), ft.classification(), ft.optim.adamw(), **options
    )


def batches(*sizes):
    return [(torch.randn(size, 6), torch.randint(3, (size,))) for size in sizes]


def test_a_profile_measures_each_phase_and_changes_no_state(bits, tmp_path):
    state, data = make_state(), batches(4, 4, 4)
    before = bits(state)
    found = ft.profile(state, data, steps=5, out=tmp_path, backend="aot_eager")
    assert bits(state) == before
    assert found.phases.keys() == PHASES
    assert {name: found.phases[name].times for name in ("data", "step", "metrics")} == dict.fromkeys(
        ("data", "step", "metrics"), 5
    )
    assert all(0 < phase.minimum <= phase.median for phase in found.phases.values())
    assert found.samples_per_update == 4
    assert found.state_bytes > 0
    assert json.loads(json.dumps(found.as_dict()))["mfu"] is None
    # The checkpoint that was timed is gone.
    assert [path.name for path in tmp_path.iterdir()] == ["trace.json"]
    names = {event.get("name") for event in json.loads((tmp_path / "trace.json").read_text())["traceEvents"]}
    assert {"data", "step", "metrics"} <= names


@pytest.mark.parametrize(("accumulate", "micro_batch"), [(1, None), (2, None), (1, 2)])
def test_operations_are_those_of_the_matrix_products_however_an_update_is_cut_up(accumulate, micro_batch):
    state = make_state(accumulate=accumulate)
    found = ft.profile(state, batches(4, 4), steps=1, compile=False, micro_batch=micro_batch)
    rows = 4 * accumulate
    # Forward and the weights' gradients of both layers, and the gradient of the second layer's input.
    assert found.flops_per_update == 2 * rows * (2 * 6 * 5 + 3 * 5 * 3)
    assert found.samples_per_update == rows
    assert found.trace is None


def test_attention_on_the_cpu_counts():
    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(()))

        def forward(self, x):
            return F.scaled_dot_product_attention(self.scale * x, x, x)

    state = ft.init_state(Attention(), ft.regression(), ft.optim.sgd(0.1))
    x = torch.randn(2, 3, 8, 4)
    forward = 2 * 2 * (2 * 3) * 8 * 8 * 4
    # The backward pass computes the scores again: five products of the forward pass's two.
    assert count_flops(state, (x, x)) == forward + forward // 2 * 5


def test_short_windows_and_epochs_are_measured_as_they_are_trained():
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(*batches(12)[0]), batch_size=4)
    short = ft.profile(make_state(accumulate=2), loader, steps=2, compile=False, tail="short")
    dropped = ft.profile(make_state(accumulate=2), loader, steps=2, compile=False, tail="drop")
    assert (short.samples_per_update, dropped.samples_per_update) == (6, 8)


def test_utilisation_is_the_operations_of_the_step_over_the_peak():
    phases = {name: Phase.of([seconds]) for name, seconds in (("data", 0.1), ("step", 0.4))}
    found = Profile(phases, 1.0, 32.0, 10, None, 2_000_000, 1e7, {})
    assert found.samples_per_second == 64
    assert found.flops_per_second == 5e6
    assert found.mfu == 0.5


@pytest.mark.parametrize(
    ("name", "precision", "tf32", "peak"),
    [
        ("NVIDIA H200", "bf16", False, 989.4),
        ("NVIDIA H100 80GB HBM3", "fp16", False, 989.4),
        ("NVIDIA H100 PCIe", "bf16", False, 756.0),
        ("NVIDIA A100-SXM4-80GB", "fp32", True, 156.0),
        ("NVIDIA A100-SXM4-80GB", "fp32", False, 19.5),
        ("NVIDIA A10", "bf16", False, 125.0),
        ("NVIDIA A100-SXM4-40GB MIG 1g.5gb", "bf16", False, None),
        ("Tesla T4", "bf16", False, None),
        ("NVIDIA L40", "bf16", False, None),
        ("cpu", "fp32", False, None),
    ],
)
def test_a_peak_is_stated_only_where_it_is_known(name, precision, tf32, peak):
    assert peak_flops(name, precision, tf32=tf32) == (None if peak is None else peak * TERA)


def test_every_peak_is_found_under_its_own_name():
    for name, peaks in PEAKS.items():
        for precision, peak in peaks.items():
            wanted = "fp32" if precision == "tf32" else precision
            assert peak_flops(f"NVIDIA {name}", wanted, tf32=precision == "tf32") == peak * TERA


def test_what_cannot_be_profiled_is_refused(monkeypatch):
    state = make_state(accumulate=2)
    with pytest.raises(ValueError, match="steps must be a whole number of updates, 1 or more; got 0"):
        ft.profile(state, batches(4), steps=0)
    with pytest.raises(ValueError, match="backend must be one of"):
        ft.profile(state, batches(4), backend="nope")
    with pytest.raises(FunctrainError, match="the training data are empty"):
        ft.profile(state, [], compile=False)
    half, _ = ft.train_step(state, batches(4)[0])
    with pytest.raises(ValueError, match="1 micro-batches into an update"):
        ft.profile(half, batches(4), compile=False)
    monkeypatch.setattr(profiling, "current_world", lambda: ft.distributed.World(0, 2))
    with pytest.raises(FunctrainError, match="one process"):
        ft.profile(state, batches(4), compile=False)


@pytest.mark.gpu
def test_on_a_gpu_memory_is_what_torch_allocated():
    found = ft.profile(make_state(device="cuda"), batches(4), steps=2, backend="aot_eager")
    assert found.peak_bytes >= found.state_bytes
