"""Keeps the operations of a program in the order of the model's code, where inductor would move them for locality."""

from typing import Any

import torch

from functrain.compiler.patches.patch import Patch


def _options(_device: torch.device) -> dict[str, Any]:
    # Inductor's own order moves what a checkpointed module computes again to the front, where it lies in memory for as
    # long as if it had been kept.
    return {"reorder_for_locality": False}


PATCH = Patch(
    name="operation_order",
    does="switches off inductor's setting reorder_for_locality",
    gain="35 MiB in place of 52 for four blocks with activation checkpointing",
    checked=("2.11", "2.13", "2.15"),
    needed="python -m benchmarks.activation_checkpointing without it: checkpointing saves no compiled memory",
    options=_options,
)
