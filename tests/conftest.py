"""For all tests: one thread, seeded random numbers, no deadlines, compiled steps and the key kept here, bits compared.

One thread each, as `pytest -n 2` on two cores has no more to give; and for tiny tensors a second one is no gain: on a
busy machine waiting for it takes 25 ms an operation.
"""

import os
import signal
from pathlib import Path

import pytest
import torch
from hypothesis import settings

from functrain.foundation import trees

torch.set_num_threads(1)
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell that starts the tests in the background ignores it
_KEPT = Path(__file__).parents[1] / ".pytest_cache"
os.environ.setdefault("FUNCTRAIN_CACHE_DIR", str(_KEPT / "functrain"))
os.environ["XDG_STATE_HOME"] = str(_KEPT / "state")
# No deadline: torch imports parts of itself at the first call of a function. The same examples each time, so that what
# passed once passes in CI; `make test-all` looks for new ones.
settings.register_profile("functrain", deadline=None, max_examples=25, derandomize=True)
settings.register_profile("explore", deadline=None, max_examples=100)
settings.load_profile("functrain")


def pytest_runtest_setup(item):
    if item.get_closest_marker("gpu") and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")


@pytest.fixture(autouse=True)
def _seeded_and_alone():
    torch.manual_seed(0)
    yield
    if torch.get_num_threads() != 1:  # a configuration may set more, on which a step's last bits depend
        torch.set_num_threads(1)


def _bits(tree):
    """Every leaf with its name, type, shape and bits: equal exactly when nothing has changed."""
    return [
        (path, leaf.dtype, tuple(leaf.shape), leaf.detach().clone().reshape(-1).view(torch.uint8).numpy().tobytes())
        if isinstance(leaf, torch.Tensor)
        else (path, leaf)
        for path, leaf in trees.leaves_with_paths(tree)
    ]


@pytest.fixture(scope="session")
def bits():
    return _bits
