"""Keeps inductor from putting the updates of large parameters into one loop, where a program has them early.

Updates share a few numbers of the step (rate, count), which is enough for inductor to fuse them, and to fuse what
computes these numbers with what needs all gradients. The first gradient then lies in memory until the last one's is
there.
"""

import contextlib
import importlib
from typing import Any

from functrain.compiler.patches.patch import Patch, replaced

EARLY = "functrain_early_updates"  # in a graph's meta: its updates are where their gradients are known
LARGE = 2**20  # bytes that a loop writes
FEW = 4096  # bytes that two loops both read


def _enter() -> contextlib.AbstractContextManager[Any]:
    choices = importlib.import_module("torch._inductor.choices").InductorChoices
    scheduler_module = importlib.import_module("torch._inductor.scheduler")
    virtualized = importlib.import_module("torch._inductor.virtualized").V
    written, can_fuse = scheduler_module.BaseSchedulerNode.get_write_buffer_sizes, choices.can_fuse

    def products(scheduler: Any, node: Any) -> frozenset[str]:
        """The products, convolutions and the like that a loop needs."""
        extern = scheduler_module.ExternKernelSchedulerNode
        return frozenset(name for name in node.ancestors if isinstance(scheduler.name_to_fused_node.get(name), extern))

    def can_fuse_at_once(scheduler: Any, node1: Any, node2: Any, shared_data_score: int) -> Any:
        little = shared_data_score < FEW and virtualized.graph.module.meta.get(EARLY)
        large = little and max(written(node1), written(node2)) >= LARGE
        if large or (little and products(scheduler, node1) != products(scheduler, node2)):
            return False
        return can_fuse(scheduler, node1, node2, shared_data_score)

    return replaced(choices, "can_fuse", staticmethod(can_fuse_at_once))


PATCH = Patch(
    name="updates_apart",
    does="fuses loops that share no more than a few numbers only if they need the same gradients and are small",
    gain="19 MiB above the state in place of 132, 8 x Linear(2048) with refuse_nonfinite=False",
    checked=("2.13",),
    needed="python -m benchmarks.memory without it: refuse_nonfinite=False saves nothing",
    enter=_enter,
)
