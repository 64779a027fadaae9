"""What the checkpoint tests share, the module that writes foreign files included. Imports torch only."""

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))


def _bits(tensor):
    """dtype, shape and bytes of a tensor, without the code under test."""
    flat = tensor.detach().resolve_conj().resolve_neg().contiguous().reshape(-1)
    return tensor.dtype, tuple(tensor.shape), flat.view(torch.uint8).numpy().tobytes()


@pytest.fixture(scope="session")
def bits():
    return _bits


@pytest.fixture
def state():
    """A small state with everything that has ever gone wrong in it."""
    weight = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    return {
        "params": {
            "conv.weight": weight,
            "conv": {"weight": weight[:, :2]},
            "head/w": weight,
            "none": torch.zeros(0, 5),
        },
        "optimizer": ({"mu": torch.ones(3, dtype=torch.bfloat16)}, torch.tensor(7)),
        "progress": {
            "step": 3,
            "key": 2**64 - 1,
            "lr": 0.1,
            "best": float("nan"),
            "name": "run",
            "stop": False,
        },
        "ema": None,
        "plateau": {},
    }
