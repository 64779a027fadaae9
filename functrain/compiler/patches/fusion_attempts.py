"""Lets inductor try fewer fusions: each update with the next 8 that read the same numbers, not with the next 64."""

from typing import Any

import torch

from functrain.compiler.patches.patch import Patch


def _options(device: torch.device) -> dict[str, Any]:
    # All updates read the few numbers of a step (guard, rate), so inductor tries to fuse each with those that do. Those
    # that share more are neighbours. (On a GPU a kernel saved is a launch.)
    return {"max_fusion_buffer_group_pairwise_attempts": 8} if device.type == "cpu" else {}


PATCH = Patch(
    name="fusion_attempts",
    does="sets max_fusion_buffer_group_pairwise_attempts to 8 on a CPU (inductor's own is 64)",
    gain="53 to 49 s of a transformer's compilation, with as many kernels",
    checked=("2.11", "2.13", "2.15"),
    needed="python -m benchmarks.start without it: the first start is not slower",
    options=_options,
)
