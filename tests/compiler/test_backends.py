"""Backends and modes: what there is, what is missing, and inductor itself once."""

import gc
import tempfile

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import functrain as ft
from functrain.compiler import packages
from functrain.foundation.errors import FunctrainError


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "fast"}, "mode must be one of default, reduce-overhead, .*; got 'fast'"),
        ({"backend": "nvfuser"}, r"backend must be one of inductor, aot_eager, eager; got 'nvfuser'\. .*cudagraphs"),
        ({"backend": "aot_eager", "mode": "max-autotune"}, "is a mode of backend='inductor'; got backend='aot_eager'"),
    ],
)
def test_unknown_backends_and_modes_are_refused_at_once_with_those_there_are(options, message):
    with pytest.raises(ValueError, match=message):
        ft.compile(ft.train_step, **options)


@pytest.mark.parametrize("donate", [False, True])
def test_the_traced_graph_runs_as_it_is(donate, perceptron_state, vectors, assert_close):
    state = expected = perceptron_state(dropout=0.3, accumulate=2)
    step = ft.compile(ft.train_step, donate=donate, backend="eager")
    for seed in range(3):
        expected, _ = ft.train_step(expected, vectors(seed))
        state, _ = step(state, vectors(seed))
        assert_close(state, expected)


class Gate(nn.Linear):
    """The gradient of softplus lies in memory otherwise than torch's rules for tracing say (torch 2.13)."""

    def forward(self, x):  # x [B, T, D]
        gate = F.softplus(super().forward(x)).transpose(-1, -2)
        return (gate * torch.arange(1.0, 6.0)).sum(-1)


def gate_and_batch():
    state = ft.init_state(Gate(4, 2), ft.classification(), ft.optim.sgd(0.1), precision="fp64")
    return state, (torch.randn(3, 5, 4), torch.tensor([0, 1, 0]))


@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_a_wrong_layout_in_torchs_tracing_does_not_matter(backend, assert_close):
    state, batch = gate_and_batch()
    assert_close(ft.compile(ft.train_step, backend=backend)(state, batch)[0], ft.train_step(state, batch)[0])


def test_a_wrong_layout_in_torchs_tracing_is_refused_by_the_backend_that_trusts_it():
    state, batch = gate_and_batch()
    message = "backend='eager' cannot run this step: .* backend='inductor', or .*compile=False"
    with pytest.raises(FunctrainError, match=message):
        ft.compile(ft.train_step, backend="eager")(state, batch)
    ft.train_step(state, batch)


def state_for_inductor():
    return ft.init_state(nn.Linear(4, 3), ft.classification(), ft.optim.sgd(0.1))


def test_without_a_cpp_compiler_the_message_says_what_to_install(vectors, monkeypatch, tmp_path):
    import torch._inductor.config as inductor_config

    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    with (
        inductor_config.patch({"cpp.cxx": ("no-such-compiler",), "force_disable_caches": True}),
        pytest.raises(FunctrainError, match=r"needs a C\+\+ compiler.*install g\+\+ or clang.*compile=False"),
    ):
        ft.compile(ft.train_step)(state_for_inductor(), vectors())


def test_a_cpp_compiler_that_fails_is_quoted(vectors, monkeypatch):
    from torch._inductor import exc

    def failing(*args, **kwargs):
        raise RuntimeError("wrapped") from exc.CppCompileError(["g++", "-x"], "no space left on device")

    monkeypatch.setattr(torch._inductor, "aot_compile", failing)
    with pytest.raises(FunctrainError, match=r"(?s)C\+\+ compiler failed.*no space left.*compile=False"):
        ft.compile(ft.train_step)(state_for_inductor(), vectors())


class Picture(nn.Module):
    """Convolution, BatchNorm and dropout; with `gain` 0 what is dropped makes no difference."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.drop = nn.Dropout(0.5)
        self.head = nn.Linear(4, 3)
        self.register_buffer("gain", torch.tensor(0.0))

    def forward(self, x):
        h = F.relu(self.norm(self.conv(x))).mean((2, 3))
        return self.head(h + self.gain * self.drop(h))


def test_inductor_runs_a_convolution_with_batchnorm_and_dropout(bits, assert_close, tmp_path, monkeypatch):
    """One compilation for all of it: as eager to rounding, and with dropout the same bits from run to run."""
    state = first = ft.init_state(Picture(), ft.classification(), ft.optim.sgd(0.1, momentum=0.9))
    step = ft.compile(ft.train_step)
    batches = [(torch.randn(8, 1, 6, 6), torch.randint(3, (8,))) for _ in range(3)]
    expected = state
    for batch in batches:
        state, metrics = step(state, batch)
        expected, expected_metrics = ft.train_step(expected, batch)
        assert_close((state, metrics), (expected, expected_metrics), tolerance=2e-5)
    loud = first.replace(buffers={**first.buffers, "gain": torch.tensor(1.0)})
    generator = torch.get_rng_state()
    runs = [bits(step(loud, batches[0])) for _ in range(2)]
    assert runs[0] == runs[1]
    assert runs[0] != bits(step(loud.replace(key=1), batches[0]))
    assert torch.equal(torch.get_rng_state(), generator)
    assert dict(step.runner.compilations) == {"update": 1}
    # Loaded from the store, a program is unpacked where the next process sweeps, and its files go with it.
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    again = ft.compile(ft.train_step)
    assert bits(again(loud, batches[0])) == runs[0]
    [ours] = tmp_path.iterdir()
    # An earlier torch unpacks a program itself, in a folder of its own.
    unpacked = ["program"] if torch.__version__ >= (2, 13) else []
    assert [program.name.split("-")[0] for program in ours.iterdir()] == unpacked
    del again
    gc.collect()
    assert not list(ours.iterdir())


def test_without_room_in_the_temporary_folder_the_message_names_it(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "not there"))
    with pytest.raises(FunctrainError, match=r"cannot be unpacked.*not there.*TMPDIR"):
        packages.load(tmp_path / "program.pt2", torch.device("cpu"))
