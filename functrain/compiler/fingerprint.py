"""What a compiled program depends on, as a key.

Two programs with one key are interchangeable, bit for bit; whatever could make a difference to the native code or
to its being right is part of the key: the graph with its constants, how the inputs lie in memory, torch, the
processor, the number of threads (compiled in) and the flags that select kernels.
"""

import hashlib
import os
import platform
import sys
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from functrain.compiler.patches import COMPILING, TRACING
from functrain.compiler.patches.patch import Patch
from functrain.foundation.tf32 import matmul_precision, tf32_flags


def program_key(
    computation: str, examples: list[Tensor], mode: str, *, donate: bool, patches: Sequence[Patch] = COMPILING
) -> str:
    """The key of a program for inputs like `examples`: 64 hexadecimal digits.

    Args:
        computation: a digest of what is computed: a `Recording`'s, or `graph_digest`.
        examples: tensors of the inputs' shapes, strides, dtypes and devices; their values do not matter.
        mode: inductor's.
        donate: whether the results are written into the inputs.
        patches: those that it is compiled with.
    """
    digest = hashlib.sha256()
    changed = [patch.name for patch in (*TRACING, *patches)]
    parts = (_own_code(), computation, mode, donate, changed, _inputs(examples), *_environment(examples), *_flags())
    for part in parts:
        digest.update(f"{part}\n".encode())
    return digest.hexdigest()


def form(name: str, examples: list[Tensor]) -> str:
    """What a program is for: a name, and a digest of how its inputs lie in memory."""
    return f"{name} {hashlib.sha256(_inputs(examples).encode()).hexdigest()[:16]}"


def graph_digest(module: torch.fx.GraphModule) -> str:
    """Digest of a flat graph, its constants and its branches."""
    digest = hashlib.sha256()
    for name, graph in module.named_modules():
        if isinstance(graph, torch.fx.GraphModule):
            digest.update(f"{name}\n{graph.code}\n".encode())
            _add_constants(digest, graph)
    return digest.hexdigest()


@lru_cache
def _own_code() -> str:
    """How programs are made, as this version of functrain does it."""
    sources = sorted(Path(__file__).parent.rglob("*.py"))
    return hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()


def _inputs(examples: list[Tensor]) -> str:
    return ";".join(f"{list(t.shape)}{t.stride()}{t.dtype}{t.device}" for t in examples)


def _add_constants(digest: "hashlib._Hash", graph: torch.fx.GraphModule) -> None:
    """Tensors that the graph holds, such as a model's plain tensor attributes."""
    for node in graph.graph.nodes:
        if node.op == "get_attr" and isinstance(value := getattr(graph, str(node.target), None), Tensor):
            digest.update(f"{node.target}{_inputs([value])}".encode())
            digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())


def _environment(examples: list[Tensor]) -> list[str]:
    return [
        torch.__version__,
        str(torch.version.git_version),
        platform.platform(),
        platform.machine(),
        torch.backends.cpu.get_cpu_capability(),
        _processor(),
        f"{torch.get_num_threads()} threads",
        *sorted({_gpu(t.device) for t in examples if t.device.type == "cuda"}),
    ]


@lru_cache
def _processor() -> str:
    """The instruction sets, where the system tells: a capability of torch's is coarser than what compilers use."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line for line in lines if line.startswith(("flags", "Features"))), platform.processor())


def _gpu(device: torch.device) -> str:
    return f"{torch.cuda.get_device_name(device)} {torch.cuda.get_device_capability(device)} {torch.version.cuda}"


def _flags() -> list[str]:
    return [
        f"deterministic={torch.are_deterministic_algorithms_enabled()}",
        f"matmul={matmul_precision()}",
        f"tf32={tf32_flags()}",
        f"cudnn={torch.backends.cudnn.enabled}{torch.backends.cudnn.benchmark}{torch.backends.cudnn.deterministic}",
        _inductor_settings(),
    ]


def _inductor_settings() -> str:
    """What differs from inductor's defaults. Importing inductor takes seconds; not imported, nothing was set."""
    environment = [
        f"{name}={value}"
        for name, value in sorted(os.environ.items())
        if name.startswith(("TORCHINDUCTOR_", "AOT_INDUCTOR_", "AOTINDUCTOR_")) and not name.endswith("_DIR")
    ]
    config = sys.modules.get("torch._inductor.config")
    assigned = [] if config is None else config.codegen_config().splitlines()
    return "\n".join([*environment, *(line for line in assigned if not _is_default(config, line))])


def _is_default(config: Any, assignment: str) -> bool:
    """Whether a line `torch._inductor.config.cpp.simdlen = None` says nothing: settings that were patched for a while
    are listed for ever after, and compiling patches some. (The metadata are what it writes down about a package.)
    """
    name, _, value = assignment.removeprefix(f"{config.__name__}.").partition(" = ")
    if name == "aot_inductor.metadata":
        return True
    entry = config._config.get(name)
    return entry is not None and repr(entry.default) == value
