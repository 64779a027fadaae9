"""Setting TF32, and reading what is set, whichever of torch's two kinds of flags set it."""

import subprocess
import sys
from contextlib import suppress

import pytest
import torch

import functrain as ft
from functrain.foundation.tf32 import tf32, tf32_flags
from functrain.loop.resume.environment import differences

CUDA = torch.device("cuda")

NEW_FLAGS = """
import torch
torch.backends.cuda.matmul.fp32_precision = "tf32"
from functrain.compiler.fingerprint import program_key
from functrain.foundation.tf32 import matmul_precision, tf32, tf32_flags
from functrain.loop.resume.environment import fingerprint
assert matmul_precision() == "high" and tf32_flags()["products"]
assert fingerprint(torch.device("cpu"), "eager")["float32_matmul_precision"] == "high"
with_tf32 = program_key("", [torch.ones(1)], "default", donate=False)
with tf32(torch.device("cuda"), False):
    assert not tf32_flags()["products"]
    assert program_key("", [torch.ones(1)], "default", donate=False) != with_tf32
assert torch.backends.cuda.matmul.fp32_precision == "tf32"
"""


@pytest.mark.parametrize("before", [False, True])
@pytest.mark.parametrize("allowed", [False, True, None])
def test_within_it_is_as_asked_and_afterwards_as_before_even_after_an_error(before, allowed):
    saved = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = before
    try:
        with suppress(KeyError), tf32(CUDA, allowed):
            assert tf32_flags()["products"] is (before if allowed is None else allowed)
            assert allowed is None or tf32_flags()["convolutions"] is allowed
            assert torch.get_float32_matmul_precision() == ("high" if tf32_flags()["products"] else "highest")
            raise KeyError
        assert torch.backends.cuda.matmul.allow_tf32 is before
        assert torch.backends.cudnn.allow_tf32
    finally:
        torch.backends.cuda.matmul.allow_tf32 = saved


def test_tf32_on_a_cpu_is_refused_and_its_absence_is_not(loader_and_state):
    loader, state = loader_and_state
    with pytest.raises(ValueError, match="tf32=True needs a CUDA device, and the state is on 'cpu'"):
        ft.fit(state, loader, epochs=1, compile=False, progress=False, tf32=True)
    assert ft.fit(state, loader, epochs=1, compile=False, progress=False, tf32=False).state.step == 1


@pytest.fixture
def loader_and_state():
    state = ft.init_state(torch.nn.Linear(2, 1), ft.regression(), ft.optim.sgd(0.1))
    return [(torch.ones(4, 2), torch.zeros(4, 1))], state


def test_the_newer_flags_are_understood_and_put_back():
    """In a process of its own: the older ones cannot be read any more, once the newer ones are set."""
    result = subprocess.run([sys.executable, "-c", NEW_FLAGS], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_a_resume_with_other_flags_says_so():
    on, off = ({"tf32": {"products": flag, "convolutions": True}} for flag in (True, False))
    assert "TF32 rounds" in differences(on, off)[0]
    assert differences(on, on) == []


@pytest.mark.gpu
def test_on_a_gpu_tf32_rounds_products():
    a = torch.full((64, 64), 1 + 2**-12, device="cuda")
    with tf32(CUDA, False):
        exact = a @ a
    with tf32(CUDA, True):
        rounded = a @ a
    assert not torch.equal(exact, rounded) or torch.cuda.get_device_capability() < (8, 0)
