"""The engine that makes ahead-of-time packages: one graph, kept in the user's store for the next start."""

import contextlib
import functools
from collections.abc import Callable, Sequence

import torch.distributed as dist

from functrain.compiler import backends, fingerprint, packages
from functrain.compiler.packages import Loaded
from functrain.compiler.patches.patch import Patch
from functrain.compiler.recording import Recording
from functrain.compiler.repeatability import record_twice
from functrain.compiler.request import Made, Request
from functrain.compiler.trace import Graph, trace
from functrain.foundation.errors import FunctrainError, TracingError


def make(request: Request) -> Made:
    """The program of a core: from the store, or traced and compiled."""
    core, inputs = request.core, request.inputs
    stores, recording = request.backend == "inductor", None

    def keys(digest: str) -> backends.Key:
        def key(patches: Sequence[Patch]) -> str:
            return fingerprint.program_key(digest, inputs, request.mode, donate=request.donate, patches=patches)

        return key

    @functools.cache
    def kept(digest: str) -> Loaded | None:
        return backends.kept(keys(digest), request.device)

    if stores:
        recording = record_twice(
            core,
            request.state,
            request.batch,
            inputs,
            key=request.key,
            known=lambda made: bool(kept(made.digest)),
        )
    if recording is not None and request.on_program is not None:
        request.on_program(fingerprint.form(f"{core.name} recorded", inputs), recording.digest)
    if recording is not None and (program := kept(recording.digest)):
        return _loaded(program, recording)
    if recording is None or not _several_ranks():
        return _made(request, recording, keys, kept)
    with backends.turn(keys(recording.digest)):  # one rank compiles, and the others load what it has put into the store
        if program := backends.kept(keys(recording.digest), request.device):
            return _loaded(program, recording)
        return _made(request, recording, keys, kept)


def _loaded(program: Loaded, recording: Recording) -> Made:
    return Made(program.run, recording.out, recording.random, _how(program))


def _several_ranks() -> bool:
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def _made(
    request: Request,
    recording: Recording | None,
    keys: Callable[[str], backends.Key],
    kept: Callable[[str], Loaded | None],
) -> Made:
    """The program, traced and compiled; without a recording the store may yet have it."""
    core, inputs, stores = request.core, request.inputs, request.backend == "inductor"
    if recording is not None:  # before the wait for the tracer; without a recording the store may yet have it
        packages.cpp_compiler()
    # Without a recording the graph's digest tells whether the store has it: importing the compiler may yet be saved.
    broken_down = contextlib.nullcontext() if recording is None else packages.table(request.mode, request.device)
    with broken_down as table:
        graph = trace(core, request.state, request.batch, inputs, donate=request.donate, table=table)
    digest = recording.digest if recording else ""
    if recording is None and (stores or request.on_program is not None):
        digest = fingerprint.graph_digest(graph.module)
    if recording is None and request.on_program is not None:
        request.on_program(fingerprint.form(f"{core.name} traced", inputs), digest)
    program = kept(digest) if stores else None
    if program is None:
        if stores and recording is None:
            packages.cpp_compiler()
        if request.on_compile is not None:
            request.on_compile(core.name)
        program = _built(graph, request, keys(digest))
    return Made(program.run, graph.out, graph.random, _how(program), bool(graph.unknown))


def _how(program: Loaded) -> str:
    return f"package, patches: {program.patches or 'none'}"


def _built(graph: Graph, request: Request, key: backends.Key) -> Loaded:
    symbols = bool(graph.unknown)
    try:
        return backends.build(
            graph.module, request.inputs, backend=request.backend, mode=request.mode, key=key, symbols=symbols
        )
    except FunctrainError:
        raise
    except Exception as error:
        if not symbols:
            raise
        raise TracingError(
            f"the backend {request.backend!r} cannot compile the step: the sizes of some tensors depend on values "
            f"(first at {graph.unknown}), which not all operations allow. Take all elements and torch.where in "
            "place of a mask as index, or run without compiling (compile=False; in a config compile: "
            "false)"
        ) from error
