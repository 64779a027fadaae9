"""Keeps inductor from reading a tensor before it is written in place.

Inductor compiles a write in place (dropout's mask, `scatter_add`, a donated state) as an operation that other
operations wait for. When it fuses loops for a CPU it may find an operation's reads anew, and then forgets which of them
come after such a write. The operation may then run first and read what was there before. torch 2.13 has this fault
(pytorch/pytorch#185509: gradients were silently wrong), and so has 2.11; 2.15 has not.

`WITHOUT_FAULT` is the first release without the fault, and `avoided` what avoids it without this patch: fusing nothing.
"""

import contextlib
import importlib
import re
from typing import Any

import torch

from functrain.compiler.patches.patch import Patch, replaced

WITHOUT_FAULT = (2, 15)


def avoided(device: torch.device, version: str = torch.__version__) -> dict[str, Any]:
    """Settings of inductor's, in public, with which a release that has the fault gives right programs, but slow ones.

    Example:
        >>> avoided(torch.device("cpu"), "2.13.0+cpu"), avoided(torch.device("cpu"), "2.15.0")
        ({'max_fusion_size': 1}, {})
    """
    found = re.match(r"(\d+)\.(\d+)", version)
    if device.type != "cpu" or (found is not None and (int(found[1]), int(found[2])) >= WITHOUT_FAULT):
        return {}
    return {"max_fusion_size": 1}


def _enter() -> contextlib.AbstractContextManager[Any]:
    """Let what inductor reads anew still wait for the writes that it waited for before."""
    dependencies = importlib.import_module("torch._inductor.dependencies")
    node_class = importlib.import_module("torch._inductor.scheduler").SchedulerNode
    ordered_set = importlib.import_module("torch.utils._ordered_set").OrderedSet
    recompute = node_class.recompute_size_and_body

    def recompute_and_keep(self: Any, *args: Any, **kwargs: Any) -> None:
        added = (dependencies.WeakDep, dependencies.StarDep)  # by the scheduler; they stand in no loop
        waited_for = ordered_set(dep for dep in self.read_writes.reads if isinstance(dep, added))
        recompute(self, *args, **kwargs)
        self.set_read_writes(self.read_writes.with_read(waited_for).rename(self.mutation_renames))

    return replaced(node_class, "recompute_size_and_body", recompute_and_keep)


PATCH = Patch(
    name="write_order",
    does="lets operations that inductor fuses on a CPU still wait for the writes in place that they read",
    gain="right programs: LoRA of a small Llama read its dropout masks before they were drawn",
    checked=("2.11", "2.13", "2.15"),
    needed="tests/compiler/patches/test_write_order.py fails without it (2.11, 2.13; not 2.15)",
    enter=_enter,
)
