"""What the bits of a run depend on besides its state. Imports torch.

A checkpoint carries this fingerprint; at a resume the differences say why the run may not continue bit for bit.
"""

import os
import platform
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

REASONS: Mapping[str, str] = {
    "torch": "kernels may round differently in another version of torch",
    "numpy": "preprocessing may differ in another version of NumPy",
    "device": "kernels of another device round differently",
    "cpu_capability": "vectorised kernels sum in another order on another instruction set",
    "threads": "sums are split among another number of threads",
    "deterministic": "torch.use_deterministic_algorithms selects other kernels",
    "float32_matmul_precision": "matrix products are computed in another precision",
    "compile": "compiled and eager steps, and other backends, order their sums differently",
    "machine": "another processor architecture has other kernels",
}


def fingerprint(device: torch.device, compiled: str) -> dict[str, Any]:
    """The environment at this moment.

    Args:
        device: where the state lives.
        compiled: how steps run: "eager", or "backend/mode".

    Returns:
        JSON-able values: those in `REASONS`, and a few for people.
    """
    return {
        "torch": torch.__version__,
        "numpy": np.__version__,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "float32_matmul_precision": torch.get_float32_matmul_precision(),
        "compile": compiled,
        "machine": platform.machine(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
    }


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Why a run that began in one environment is not bit-for-bit in another, a sentence each.

    Example:
        >>> differences({"threads": 2}, {"threads": 4})
        ['threads was 2 and is 4: sums are split among another number of threads']
    """
    return [
        f"{name} was {before[name]} and is {now[name]}: {reason}"
        for name, reason in REASONS.items()
        if name in before and name in now and before[name] != now[name]
    ]
