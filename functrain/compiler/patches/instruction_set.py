"""Tries the vector instructions that will be used, not all that the processor has: each trial takes five seconds."""

import contextlib
import functools
import importlib
import os
from typing import Any

from functrain.compiler.patches.patch import Patch, replaced


def _enter() -> contextlib.AbstractContextManager[Any]:
    sets = importlib.import_module("torch._inductor.cpu_vec_isa")
    every = sets.valid_vec_isa_list

    @functools.cache
    def best_only() -> list[Any]:
        best = best_instruction_set()
        return every() if best is None else [best]

    return replaced(sets, "valid_vec_isa_list", best_only)


def best_instruction_set() -> Any:
    """The first of inductor's list that works here; None where the user chooses, and on another processor than x86."""
    sets = importlib.import_module("torch._inductor.cpu_vec_isa")
    width = importlib.import_module("torch._inductor.config").cpp.simdlen
    if width is not None or "ATEN_CPU_CAPABILITY" in os.environ or not (has := set(sets.x86_isa_checker())):
        return None
    return next((best for best in sets.supported_vec_isa_list if set(str(best).split()) <= has and best), None)


PATCH = Patch(
    name="instruction_set",
    does="tries the widest vector instructions that work, and no others",
    gain="18 to 6 s of a first `make demo`",
    checked=("2.11", "2.13", "2.15"),
    needed="empty TORCHINDUCTOR_CACHE_DIR and compile without it: several trials are compiled",
    enter=_enter,
)
