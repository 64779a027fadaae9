"""Keeps inductor from giving a place in memory to values that nobody uses any more.

Before a tensor is overwritten inductor gives all that was computed from it a place in memory, then schedules it. In a
donated step that is each intermediate value of each parameter's update, most of which nobody uses any more: they are no
longer among the interpreter's values.
"""

import contextlib
import importlib
from typing import Any

from functrain.compiler.patches.patch import Patch, replaced
from functrain.foundation.trees import leaves


def _enter() -> contextlib.AbstractContextManager[Any]:
    graph = importlib.import_module("torch._inductor.graph").GraphLowering
    mark = graph.mark_buffer_mutated

    def mark_for_live_readers(self: Any, name: str) -> None:
        if name in self.name_to_users:
            live = {id(value) for value in leaves(list(self.env.values()))}
            self.name_to_users[name] = [user for user in self.name_to_users[name] if id(user) in live]
        mark(self, name)

    return replaced(graph, "mark_buffer_mutated", mark_for_live_readers)


PATCH = Patch(
    name="dead_values",
    does="gives a place in memory only to those readers of an overwritten tensor that are used later",
    gain="49 to 37 s of a transformer's compilation: 81 scheduled nodes in place of 141 for a network of 4 parameters",
    checked=("2.11", "2.13", "2.15"),
    needed="tests/compiler/patches/test_patches.py: five places for `overwritten` without it",
    enter=_enter,
)
