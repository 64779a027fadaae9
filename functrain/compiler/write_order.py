"""Keeps inductor from reading a tensor before it is written in place.

Inductor compiles a write in place (dropout's mask, `scatter_add`, a donated state) as an operation that other
operations wait for. When it fuses loops for a CPU it may find an operation's reads anew, and then forgets which of them
come after such a write. The operation may then run first and read what was there before. torch 2.13 has this fault
(pytorch/pytorch#185509: gradients were silently wrong).
"""

import contextlib
import importlib
from collections.abc import Iterator
from typing import Any


@contextlib.contextmanager
def kept() -> Iterator[None]:
    """Within, what inductor reads anew still waits for the writes that it waited for before.

    This changes a method of inductor's: `inductor.hastened` sees to it that one thread at a time does.

    Raises:
        ImportError, AttributeError: in a release of torch that has no such method.
    """
    dependencies = importlib.import_module("torch._inductor.dependencies")
    node_class = importlib.import_module("torch._inductor.scheduler").SchedulerNode
    ordered_set = importlib.import_module("torch.utils._ordered_set").OrderedSet
    recompute = node_class.recompute_size_and_body

    def recompute_and_keep(self: Any, *args: Any, **kwargs: Any) -> None:
        added = (dependencies.WeakDep, dependencies.StarDep)  # by the scheduler; they stand in no loop
        waited_for = ordered_set(dep for dep in self.read_writes.reads if isinstance(dep, added))
        recompute(self, *args, **kwargs)
        self.set_read_writes(self.read_writes.with_read(waited_for).rename(self.mutation_renames))

    node_class.recompute_size_and_body = recompute_and_keep
    try:
        yield
    finally:
        node_class.recompute_size_and_body = recompute
