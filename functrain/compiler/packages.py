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
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from functrain.compiler import summation
from functrain.compiler.constants import constants_as_operations
from functrain.compiler.decompositions import Table, inductors_table
from functrain.compiler.early_updates import update_early
from functrain.compiler.patches import COMPILING, write_order
from functrain.compiler.patches.patch import Patch, PatchWarning, applied
from functrain.compiler.preparation import fewer_collections, prepare
from functrain.compiler.request import Program
from functrain.foundation.errors import FunctrainError
from functrain.foundation.scratch import ScratchFolder


class Loaded(NamedTuple):
    """A program, and the names of the patches that were in force when it was compiled."""

    run: Program
    patches: str


_NAME = "model"
# Operations from which on the calls of a program are compiled without optimization: 9 in place of 17 s for the 2,200 of
# a transformer, whose step takes 130 ms. For the 1,200 of the digits network with four metrics it would save 2 s, and
# make each step of 4.4 ms 2 % longer.
_MANY = 2_000
_PATCHES = "functrain_patches"  # among the metadata of a package
_NO_COMPILER = (
    "compiling a step needs a C++ compiler, and none was found: install g++ or clang (or name one in the environment "
    "variable CXX), or run without compiling (compile=False; in a config compile: false)"
)


def make(graph: torch.fx.GraphModule, examples: list[Tensor], mode: str, path: Path) -> Sequence[Patch]:
    """Compile a flat graph without autograd for inputs like `examples`, and write it to `path`.

    A compilation that fails with patches is tried once without them; then settings of inductor's avoid the fault that
    the patch `write_order` mends.

    Returns:
        The patches that it was compiled with; of these, the ones that fit this release of torch were in force.

    Raises:
        FunctrainError: if there is no working C++ compiler.
    """
    with _without_torchs_warnings():
        importlib.import_module("torch._inductor.compile_fx")
        try:
            _compile(graph, examples, mode, path, COMPILING)
            return COMPILING
        except Exception as error:
            if _compiler_is_missing(error):
                raise FunctrainError(_NO_COMPILER) from error
            first = error
        try:
            _compile(graph, examples, mode, path, ())
        except Exception as error:
            raise _explained(error) from None
    warnings.warn(
        "the step was compiled without functrain's patches of torch's compiler, since with them compiling failed "
        f"({type(first).__name__}: {_first_line(first)}). The program is right, and may be slower. The patches are "
        f"{', '.join(patch.name for patch in COMPILING)}",
        PatchWarning,
        stacklevel=2,
    )
    return ()


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), "")


def _compiler_is_missing(error: Exception) -> bool:
    from torch._inductor.exc import InvalidCxxCompiler

    return any(isinstance(cause, InvalidCxxCompiler) for cause in _causes(error))


def _explained(error: Exception) -> Exception:
    """The error, or one that says what to do if the C++ compiler failed."""
    from torch._inductor.exc import CppCompileError

    for cause in _causes(error):
        if isinstance(cause, CppCompileError):
            explained = FunctrainError(
                f"the C++ compiler failed on the compiled step: {cause}. Without compiling "
                "(compile=False; in a config compile: false) it would run"
            )
            explained.__cause__ = error
            return explained
    return error


@contextlib.contextmanager
def _without_torchs_warnings() -> Iterator[None]:
    """Leave out what torch says about its own old parts."""
    with warnings.catch_warnings():
        for category in (DeprecationWarning, FutureWarning):
            warnings.simplefilter("ignore", category)
        yield


def cpp_compiler() -> str:
    """The command of the C++ compiler that compiles steps.

    Raises:
        FunctrainError: there is none, so that compiling a step could not end.
    """
    with _without_torchs_warnings():
        from torch._inductor.cpp_builder import get_cpp_compiler
        from torch._inductor.exc import InvalidCxxCompiler

    try:
        return get_cpp_compiler()
    except (InvalidCxxCompiler, OSError) as error:
        raise FunctrainError(_NO_COMPILER) from error


@contextlib.contextmanager
def table(mode: str, device: torch.device) -> Iterator[Table]:
    """What the compiler of packages breaks operations down into; what it will wait for begins meanwhile."""
    with _without_torchs_warnings():
        importlib.import_module("torch._inductor.compile_fx")
        threading.Thread(target=prepare, args=[device.type], daemon=True).start()
    with inductors_table(_options(mode, device)) as found:
        yield found


def _compile(
    graph: torch.fx.GraphModule, examples: list[Tensor], mode: str, path: Path, patches: Sequence[Patch]
) -> None:
    from torch._inductor import aot_compile
    from torch._inductor.package import package_aoti

    device = examples[0].device
    with torch.no_grad(), fewer_collections(), applied(patches, device) as patched:
        threading.Thread(target=prepare, args=[device.type], daemon=True).start()
        options = _options(mode, device) | dict(patched.options)
        if write_order.PATCH.name not in patched.names:
            options |= write_order.avoided(device)
        if len(graph.graph.nodes) > _MANY:
            options["aot_inductor.compile_wrapper_opt_level"] = "O0"
        options["aot_inductor.metadata"] = {_PATCHES: ", ".join(patched.names)}
        files = aot_compile(graph, tuple(examples), options=options)
    package_aoti(str(path), files)  # type: ignore[arg-type]


def _options(mode: str, device: torch.device) -> dict[str, Any]:
    """Inductor's that a program needs to be right."""
    from torch._inductor import list_mode_options

    options: dict[str, Any] = {} if mode == "default" else list_mode_options(mode)
    options.pop("triton.cudagraphs", None)  # a package has none of its own
    options |= {"aot_inductor.package": True, "post_grad_custom_pre_pass": _rewrite, **summation.OPTIONS}
    options["size_asserts"] = False  # of inputs, off when a program runs: the runner has looked
    if device.type == "cpu":
        # Random numbers as torch draws them, and in the order of the model's calls: a step's bits with dropout are then
        # those of the step without compiling. (On a GPU inductor's own draws are part of its kernels, and faster.)
        options["fallback_random"] = True
    return options


def _rewrite(graph: torch.fx.Graph) -> None:
    """Our passes; inductor calls this before its own."""
    constants_as_operations(graph)
    summation.order_sums(graph)
    update_early(graph)


def load(path: Path, device: torch.device) -> Loaded:
    """The program in a package, and the patches that were in force when it was compiled.

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
        return _loaded(load(str(path), *how))
    weakref.finalize(loader, folder.remove)  # on a GPU kernels are read from it when they are first used
    return _loaded(loader)


def _loaded(loader: Any) -> Loaded:
    return Loaded(loader.boxed_run, loader.get_metadata().get(_PATCHES, ""))


def _causes(error: BaseException | None) -> list[BaseException]:
    found: list[BaseException] = []
    while error is not None and error not in found:
        found.append(error)
        found.extend(e for e in (getattr(error, "inner_exception", None),) if e is not None)
        error = error.__cause__ or error.__context__
    return found
