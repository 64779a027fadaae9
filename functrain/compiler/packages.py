"""Inductor's ahead-of-time packages: making one and running one.

A package is a shared library that takes a list of tensors and gives a list of tensors. Loading one takes
milliseconds and imports no part of the compiler, where compiling takes half a minute and importing the compiler
alone takes two seconds.
"""

import contextlib
import importlib
import threading
import warnings
import weakref
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from functrain.compiler import summation
from functrain.compiler.constants import constants_as_operations
from functrain.compiler.inductor import hastened, prepare, whole_files
from functrain.foundation.errors import FunctrainError
from functrain.foundation.scratch import ScratchFolder

Program = Callable[[list[Tensor]], list[Tensor]]

_NAME = "model"
_NO_COMPILER = (
    "compiling a step needs a C++ compiler, and none was found: install g++ or clang (or name one in the environment "
    "variable CXX), or run without compiling (compile=False; in a config compile: false)"
)

# Elements of a loop below which one thread takes it: to wake the others takes longer. (With inductor's own bound, 512
# for each thread, a tiny network's program took a sixth longer on two threads than on one.)
_PARALLEL_FROM = 8192


def make(graph: torch.fx.GraphModule, examples: list[Tensor], mode: str, path: Path) -> None:
    """Compile a flat graph without autograd for inputs like `examples`, and write it to `path`.

    Raises:
        FunctrainError: if there is no working C++ compiler.
    """
    with _without_torchs_warnings(), whole_files():
        importlib.import_module("torch._inductor.compile_fx")
        threading.Thread(target=prepare, args=[examples[0].device.type], daemon=True).start()
        from torch._inductor.exc import CppCompileError, InvalidCxxCompiler

        try:
            _compile(graph, examples, mode, path)
        except Exception as error:
            for cause in _causes(error):
                if isinstance(cause, InvalidCxxCompiler):
                    raise FunctrainError(_NO_COMPILER) from error
                if isinstance(cause, CppCompileError):
                    raise FunctrainError(
                        f"the C++ compiler failed on the compiled step: {cause}. Without compiling "
                        "(compile=False; in a config compile: false) it would run"
                    ) from error
            raise


@contextlib.contextmanager
def _without_torchs_warnings() -> Iterator[None]:
    """Leave out what torch says about its own old parts."""
    with warnings.catch_warnings():
        for category in (DeprecationWarning, FutureWarning):
            warnings.simplefilter("ignore", category)
        yield


def check_compiler() -> None:
    """Refuse to begin what a machine without a C++ compiler cannot end.

    Raises:
        FunctrainError: if there is none.
    """
    with _without_torchs_warnings():
        from torch._inductor.cpp_builder import get_cpp_compiler
        from torch._inductor.exc import InvalidCxxCompiler

    try:
        get_cpp_compiler()
    except (InvalidCxxCompiler, OSError) as error:
        raise FunctrainError(_NO_COMPILER) from error


def _compile(graph: torch.fx.GraphModule, examples: list[Tensor], mode: str, path: Path) -> None:
    from torch._inductor import aot_compile
    from torch._inductor.package import package_aoti

    options = _options(mode, examples[0].device)
    with torch.no_grad(), hastened():
        files = aot_compile(graph, tuple(examples), options=options)
    package_aoti(str(path), files)  # type: ignore[arg-type]


def _options(mode: str, device: torch.device) -> dict[str, Any]:
    """Inductor's, where they are not its defaults."""
    from torch._inductor import config, list_mode_options

    options: dict[str, Any] = {} if mode == "default" else list_mode_options(mode)
    options.pop("triton.cudagraphs", None)  # a package has none of its own
    options |= {"aot_inductor.package": True, "post_grad_custom_pre_pass": _rewrite, **summation.OPTIONS}
    # Inductor's own order moves what a checkpointed module computes again to the front, where it lies in memory for as
    # long as if it had been kept (52 MiB against 35 for four blocks).
    options["reorder_for_locality"] = False
    options["size_asserts"] = False  # of inputs, off when a program runs: the runner has looked
    if device.type == "cpu":
        # Random numbers as torch draws them, and in the order of the model's calls: a step's bits with dropout are then
        # those of the step without compiling. (On a GPU inductor's own draws are part of its kernels, and faster.)
        options["fallback_random"] = True
        options["cpp.min_chunk_size"] = max(config.cpp.min_chunk_size, _PARALLEL_FROM // torch.get_num_threads())
        # All updates read the few numbers of a step (guard, rate), so inductor tries to fuse each with the next 64 that
        # do: an eighth of a compilation. Those that share more are neighbours. (On a GPU a kernel saved is a launch.)
        options["max_fusion_buffer_group_pairwise_attempts"] = 8
    return options


def _rewrite(graph: torch.fx.Graph) -> None:
    """Our passes; inductor calls this before its own."""
    constants_as_operations(graph)
    summation.order_sums(graph)


def load(path: Path, device: torch.device) -> Program:
    """The program in a package.

    Raises:
        FunctrainError: if the system's temporary folder has no room for it.
    """
    # The class behind torch._inductor.aoti_load_package, which would import all of inductor. One runner, used by
    # one thread at a time, as its call keeps Python's lock: the locks and events of the other mode are not needed.
    load = torch._C._aoti.AOTIModelPackageLoader
    how = (_NAME, True, 1, -1 if device.index is None else device.index)
    try:
        folder = ScratchFolder(prefix="program-")
        with zipfile.ZipFile(path) as package:
            package.extractall(folder.path)
    except OSError as error:
        raise FunctrainError(
            f"the compiled step cannot be unpacked in the system's temporary folder ({error}). Make room there, or "
            "name another folder in the environment variable TMPDIR"
        ) from error
    [unpacked] = folder.path.iterdir()
    try:
        loader = load(str(unpacked), *how)
    except RuntimeError:  # an earlier torch, which unpacks a package itself, into a folder that a killed process leaves
        folder.remove()
        return load(str(path), *how).boxed_run
    weakref.finalize(loader, folder.remove)  # on a GPU kernels are read from it when they are first used
    return loader.boxed_run


def _causes(error: BaseException | None) -> list[BaseException]:
    found: list[BaseException] = []
    while error is not None and error not in found:
        found.append(error)
        found.extend(e for e in (getattr(error, "inner_exception", None),) if e is not None)
        error = error.__cause__ or error.__context__
    return found
