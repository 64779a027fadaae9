"""The ranks of data-parallel runs, as forks of one process that has imported what all of them need.

For the programs in this folder, which get their runs as arguments of the form RANKS,ARGUMENT,ARGUMENT,...
"""

import importlib
import json
import os
import sys
import tempfile
import traceback
from collections.abc import Callable
from datetime import timedelta

import torch
import torch.distributed as dist

from functrain.checkpoint import orbax_io

_IMPORTED_BY_A_RUN = (
    "torch.fx.experimental.proxy_tensor",
    "torch._functorch.aot_autograd",
    "functrain.compiler.packages",
)


def run_ranks(ranks: int, function: Callable[[], None]) -> list[int]:
    """Run a function on each rank, in a process of its own; the exit codes.

    One rank alone is no group of processes.
    """
    with tempfile.TemporaryDirectory() as folder:
        children = started(ranks, function, folder)
        return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]


def started(ranks: int, function: Callable[[], None], folder: str) -> list[int]:
    """Start a function on each rank; the numbers of the processes, which meet in a folder of theirs."""
    threads = len(os.listdir("/proc/self/task")) if os.path.isdir("/proc/self/task") else 1
    assert threads == 1, f"a parent with {threads} threads must not fork"
    children = []
    for rank in range(ranks):
        child = os.fork()
        if child == 0:
            _as_rank(f"{folder}/store", rank, ranks, function)
        children.append(child)
    return children


def _as_rank(store: str, rank: int, ranks: int, function: Callable[[], None]) -> None:
    code = 1
    try:
        if ranks > 1:
            # A rank that is killed while the others join a group with it is noticed after this time alone.
            found, limit = dist.FileStore(store, ranks), timedelta(seconds=100)
            dist.init_process_group("gloo", store=found, rank=rank, world_size=ranks, timeout=limit)
        function()
        if ranks > 1:
            dist.destroy_process_group()
        code = 0
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def import_what_runs_need() -> None:
    """So that no rank has to."""
    orbax_io.import_orbax()
    for name in _IMPORTED_BY_A_RUN:
        importlib.import_module(name)


def main(train: Callable[..., None]) -> None:
    """Train the runs of the command line, one after the other; print the exit codes of all ranks."""
    torch.set_num_threads(1)
    import_what_runs_need()
    codes = []
    for run in sys.argv[1:]:
        ranks, *arguments = run.split(",")
        codes.append(run_ranks(int(ranks), lambda: train(*arguments)))  # noqa: B023 - it is called at once
    print(json.dumps(codes))
