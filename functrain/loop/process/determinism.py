"""torch's deterministic algorithms for the length of a run."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from functrain.data.randomness import Randomness
from functrain.foundation.errors import FunctrainError

CUBLAS = "CUBLAS_WORKSPACE_CONFIG"
CUBLAS_VALUES = (":4096:8", ":16:8")  # those that NVIDIA names as reproducible


@contextmanager
def deterministic_run(device: torch.device) -> Iterator[None]:
    """Only deterministic kernels within; everything as it was afterwards, the global random generators included.

    cuBLAS reads its variable when it first multiplies in a process: where that was before, the variable must have been
    set by whoever started the process.

    Args:
        device: where the run computes.

    Raises:
        FunctrainError: on a CUDA device, if the user's `CUBLAS_WORKSPACE_CONFIG` is not a reproducible one.

    Example:
        >>> with deterministic_run(torch.device("cpu")):
        ...     torch.are_deterministic_algorithms_enabled()
        True
        >>> torch.are_deterministic_algorithms_enabled()
        False

    References:
        https://docs.pytorch.org/docs/stable/notes/randomness.html
    """
    cublas, cudnn = os.environ.get(CUBLAS), torch.backends.cudnn
    if device.type == "cuda" and cublas is not None and cublas not in CUBLAS_VALUES:
        raise FunctrainError(
            f"deterministic=True needs {CUBLAS} to be {' or '.join(CUBLAS_VALUES)}, or not to be set; it is {cublas!r}"
        )
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    flags = cudnn.deterministic, cudnn.benchmark
    with Randomness().preserved():
        try:
            os.environ.setdefault(CUBLAS, CUBLAS_VALUES[0])
            torch.use_deterministic_algorithms(True)
            cudnn.deterministic, cudnn.benchmark = True, False
            yield
        finally:
            torch.use_deterministic_algorithms(before[0], warn_only=before[1])
            cudnn.deterministic, cudnn.benchmark = flags
            if cublas is None:
                os.environ.pop(CUBLAS, None)
