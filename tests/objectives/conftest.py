"""Every test of this folder starts from the same random numbers."""

import pytest
import torch


@pytest.fixture(autouse=True, scope="session")
def _one_thread():
    """For tiny tensors a second thread is no gain, and on a busy machine waiting for it takes 25 ms an operation."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)
