"""What makes inductor's own work shorter without changing it: fewer garbage collections, trials made beforehand."""

import contextlib
import gc
import importlib
from collections.abc import Iterator
from typing import Any

from functrain.compiler.patches.instruction_set import best_instruction_set

_OBJECTS = 200_000  # new ones between two searches for garbage


@contextlib.contextmanager
def fewer_collections() -> Iterator[None]:
    """A compilation makes millions of objects that stay; looking for garbage among them took a sixth of its time."""
    thresholds = gc.get_threshold()
    gc.set_threshold(max(thresholds[0], _OBJECTS) if thresholds[0] else 0, *thresholds[1:])
    try:
        yield
    finally:
        gc.set_threshold(*thresholds)


def prepare(device_type: str) -> None:
    """What inductor does once per machine, and waits for: to be called in a thread while a graph is traced.

    Its trial compilation for vector instructions, and the headers, parsed. Whoever comes first, here or in inductor
    itself, makes them, one at a time under its file locks.
    """
    with contextlib.suppress(Exception):  # what is wrong, inductor meets and says again
        sets = importlib.import_module("torch._inductor.cpu_vec_isa")
        vec_isa = best_instruction_set() or sets.pick_vec_isa()
        if importlib.import_module("torch._inductor.config").aot_inductor.precompile_headers:
            _precompile_headers(vec_isa, device_type)


def _precompile_headers(vec_isa: Any, device_type: str) -> None:
    """As `AotCodeCompiler.compile` does, with the same flags."""
    cache = importlib.import_module("torch._inductor.codecache")
    cpp = importlib.import_module("torch._inductor.cpp_builder")
    how = {"vec_isa": vec_isa, "device_type": device_type, "aot_mode": True}
    command = cpp.CppBuilder(name="o", sources="i", BuildOption=cpp.CppTorchDeviceOptions(**how))
    hashed = repr(command.get_command_line())
    how |= {"use_mmap_weights": False, "use_mmap_weights_external": False, "use_relative_path": False}
    cache._precompile_header(
        cache._get_cpp_wrapper_header(device_type, aot_mode=True), hashed, min_optimize=True, **how
    )
    if (header := cache._get_cpp_prefix_header(device_type)) is not None:
        cache._precompile_header(header, hashed, **how)
