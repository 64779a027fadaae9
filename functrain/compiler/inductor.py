"""Inductor in less time, and its programs for the CPU in less.

Most of a compilation is inductor's own Python and, after it, the C++ compiler. `hastened` takes out what the result
does not need (figures in docs/decisions.md). Each part changes a function of inductor's while a compilation runs; in
a release of torch that has no such function that part is left out, and compiling takes longer.
"""

import contextlib
import functools
import gc
import importlib
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from functrain.compiler import scalars, write_order
from functrain.foundation.trees import leaves

_one_at_a_time = threading.RLock()

_OBJECTS = 200_000  # new ones between two searches for garbage


@contextlib.contextmanager
def hastened() -> Iterator[None]:
    """Compile faster, and faster programs, inside the block; one thread at a time."""
    with _one_at_a_time, contextlib.ExitStack() as stack:
        stack.enter_context(_fewer_collections())
        for part in _PARTS:
            with contextlib.suppress(ImportError, AttributeError):  # another release's inductor
                stack.enter_context(part())
        yield


@contextlib.contextmanager
def _replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)


@contextlib.contextmanager
def _fewer_collections() -> Iterator[None]:
    """A compilation makes millions of objects that stay; looking for garbage among them took a sixth of its time."""
    thresholds = gc.get_threshold()
    gc.set_threshold(max(thresholds[0], _OBJECTS) if thresholds[0] else 0, *thresholds[1:])
    try:
        yield
    finally:
        gc.set_threshold(*thresholds)


def _rules_once() -> contextlib.AbstractContextManager[Any]:
    """The one table of dtype rules is filled anew at each operation of each kernel: fill it when rules are new."""
    table = importlib.import_module("torch._inductor.dtype_propagation").DtypePropagationOpsHandler
    rules = importlib.import_module("torch._inductor.utils").op_dtype_propagation_rules
    fill = table.__init__
    filled_with = 0

    def fill_if_new(self: Any) -> None:
        nonlocal filled_with
        if len(rules) != filled_with:
            fill(self)
            filled_with = len(rules)

    return _replaced(table, "__init__", fill_if_new)


def _no_input_checks() -> contextlib.AbstractContextManager[Any]:
    """No C++ function for each input that compares its shape: the runner has, and they are off when a program runs."""
    wrapper = importlib.import_module("torch._inductor.codegen.cpp_wrapper_cpu").CppWrapperCpu
    graph = importlib.import_module("torch._inductor.virtualized").V
    generate = wrapper.generate_input_output_runtime_checks

    def generate_none(self: Any) -> None:
        with _replaced(graph.graph, "graph_inputs", {}):
            generate(self)

    return _replaced(wrapper, "generate_input_output_runtime_checks", generate_none)


@contextlib.contextmanager
def _side_by_side() -> Iterator[None]:
    """Compile a program's calls ("wrapper") while its kernels compile; they meet where they are linked."""
    builder = importlib.import_module("torch._inductor.cpp_builder").CppBuilder
    build: Callable[[Any], None] = builder.build
    begun: list[Future[None]] = []

    with ThreadPoolExecutor(1, "functrain-compile") as pool:

        def build_beside(self: Any) -> None:
            target = self.get_target_file_path()
            if target.endswith(".wrapper.o"):
                begun.append(pool.submit(build, self))
                return
            if not target.endswith(".o"):
                while begun:
                    begun.pop().result()
            build(self)

        with _replaced(builder, "build", build_beside):
            yield


def whole_files() -> contextlib.AbstractContextManager[Any]:
    """Let what a C++ compiler writes appear by a rename, in `hastened` and in `prepare`.

    Inductor takes over what it finds. Half of a precompiled header, left by a compiler that was killed, would fail each
    later compilation, and half of the trial for vector instructions would make programs do without them.
    """
    builder = importlib.import_module("torch._inductor.cpp_builder").CppBuilder
    build: Callable[[Any], None] = builder.build

    def build_whole(self: Any) -> None:
        target, command = self.get_target_file_path(), self.get_command_line()
        part = f"{target}.{os.getpid()}"
        try:
            with _replaced(self, "get_command_line", lambda: command.replace(f"-o {target}", f"-o {part}")):
                build(self)
            if os.path.exists(part):
                os.replace(part, target)
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(part)

    return _replaced(builder, "build", build_whole)


def _one_instruction_set() -> contextlib.AbstractContextManager[Any]:
    """Try the vector instructions that will be used, not all that the processor has: each trial takes five seconds."""
    sets = importlib.import_module("torch._inductor.cpu_vec_isa")
    every = sets.valid_vec_isa_list

    @functools.cache
    def best_only() -> list[Any]:
        best = _best_instruction_set()
        return every() if best is None else [best]

    return _replaced(sets, "valid_vec_isa_list", best_only)


def _best_instruction_set() -> Any:
    """The first of inductor's list that works here; None where the user chooses, and on another processor than x86."""
    sets = importlib.import_module("torch._inductor.cpu_vec_isa")
    width = importlib.import_module("torch._inductor.config").cpp.simdlen
    if width is not None or "ATEN_CPU_CAPABILITY" in os.environ or not (has := set(sets.x86_isa_checker())):
        return None
    return next((best for best in sets.supported_vec_isa_list if set(str(best).split()) <= has and best), None)


def _dead_values_stay_dead() -> contextlib.AbstractContextManager[Any]:
    """Before a tensor is overwritten inductor gives all that was computed from it a place in memory, then schedules it.

    In a donated step that is each intermediate value of each parameter's update, most of which nobody uses any more:
    they are no longer among the interpreter's values. Leaving them out saves a quarter of a transformer's compilation.
    """
    graph = importlib.import_module("torch._inductor.graph").GraphLowering
    mark = graph.mark_buffer_mutated

    def mark_for_live_readers(self: Any, name: str) -> None:
        if name in self.name_to_users:
            live = {id(value) for value in leaves(list(self.env.values()))}
            self.name_to_users[name] = [user for user in self.name_to_users[name] if id(user) in live]
        mark(self, name)

    return _replaced(graph, "mark_buffer_mutated", mark_for_live_readers)


_PARTS = (
    _rules_once,
    _no_input_checks,
    _side_by_side,
    _one_instruction_set,
    _dead_values_stay_dead,
    scalars.computed_once,
    write_order.kept,
)


def prepare(device_type: str) -> None:
    """What inductor does once per machine, and waits for: to be called in a thread while a graph is traced.

    Its trial compilation for vector instructions, and the headers, parsed. Whoever comes first, here or in inductor
    itself, makes them, one at a time under its file locks.
    """
    with contextlib.suppress(Exception):  # what is wrong, inductor meets and says again
        sets = importlib.import_module("torch._inductor.cpu_vec_isa")
        vec_isa = _best_instruction_set() or sets.pick_vec_isa()
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
