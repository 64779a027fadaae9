"""Checks of the C++ compiler, threads and GPU."""

import ctypes
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median

from functrain.app.doctor.finding import Finding
from functrain.foundation.errors import FunctrainError
from functrain.foundation.scratch import scratch_folder

SOURCE = '#include <vector>\nextern "C" int answer() { return static_cast<int>(std::vector<int>(42).size()); }\n'
ANSWER = 42
COMPILE_SECONDS = 40.0
MEASURED_SECONDS, ROUNDS = 0.2, 3  # of each number of threads
SLOWER = 1.5  # times one thread's time, from which on more threads are a loss; less may be chance
EAGER = "or train with compile: false"


def check_compiler() -> Iterator[Finding]:
    """Whether a C++ compiler makes a library that can be loaded."""
    from functrain.compiler.packages import cpp_compiler

    name = "C++ compiler"
    try:
        command = cpp_compiler()
    except FunctrainError as error:
        yield Finding(name, "broken", "none was found", str(error).partition("found: ")[2] or str(error))
        return
    where = shutil.which(command) or command
    with scratch_folder() as folder:
        problem = _compiled(command, folder)
        if problem:
            fix = f"install g++ or clang, or name one in the environment variable CXX; {EAGER}"
            yield Finding(name, "broken", f"{where} {problem}", fix)
            return
        try:
            right = ctypes.CDLL(str(folder / "answer.so")).answer() == ANSWER
        except OSError as error:
            fix = f"name a folder that programs may run in: TMPDIR=...; {EAGER}"
            yield Finding(name, "broken", f"what {where} makes in {folder.parent} cannot be loaded: {error}", fix)
            return
    yield Finding(name, "ok" if right else "broken", where if right else f"{where} makes programs that compute wrong")


def _compiled(command: str, folder: Path) -> str:
    """Compile a small library with OpenMP, as torch's compiler does; returns what went wrong."""
    (folder / "answer.cpp").write_text(SOURCE)
    options = ["-shared", "-fPIC", "-O1", *([] if sys.platform == "darwin" else ["-fopenmp"])]
    arguments = [command, *options, str(folder / "answer.cpp"), "-o", str(folder / "answer.so")]
    try:
        done = subprocess.run(arguments, capture_output=True, text=True, timeout=COMPILE_SECONDS, errors="replace")
    except subprocess.TimeoutExpired:
        return f"compiles a program of two lines for more than {COMPILE_SECONDS:.0f} s"
    except OSError as error:
        return f"cannot be run: {error.strerror}"
    if done.returncode == 0:
        return ""
    lines = [line for line in done.stderr.splitlines() if "error" in line] or done.stderr.splitlines() or ["no message"]
    return f"cannot compile a small program: {lines[0].strip()[:200]}"


def check_threads() -> Iterator[Finding]:
    """Whether torch's threads have processors, and save time at this moment."""
    import torch

    threads, processors = torch.get_num_threads(), usable_processors()
    alone, together = measured(threads)
    yield judged_threads(threads, processors, together / alone)


def judged_threads(threads: int, processors: float, slowdown: float) -> Finding:
    """The finding.

    Args:
        threads: that torch computes with.
        processors: that this process may use.
        slowdown: the time of a computation with these threads, divided by that with one.
    """
    found = f"{threads}, for {processors:g} processor{'' if processors == 1 else 's'}"
    name, one = "threads", "training.threads=1 (in Python torch.set_num_threads(1))"
    if threads > processors:
        fix = f"training.threads={max(1, int(processors))}, or the environment variable OMP_NUM_THREADS"
        return Finding(name, "warning", f"{found}: more threads than processors wait for each other", fix)
    if threads > 1 and slowdown >= SLOWER:
        found += f"; at the moment a small computation takes {slowdown:.1f} times as long as with one thread"
        return Finding(name, "warning", f"{found}: other processes use the processors", f"{one}, or wait for them")
    return Finding(name, "ok", found)


def usable_processors(limit: Path = Path("/sys/fs/cgroup/cpu.max")) -> float:
    """Those that this process may run on; a container's limit counts."""
    count = float(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    try:
        quota, period = limit.read_text().split()
        return min(count, int(quota) / int(period))
    except (OSError, ValueError):  # no container, or "max"
        return count


def measured(threads: int) -> tuple[float, float]:
    """Seconds of a small computation with one thread, and with so many."""
    import torch

    matrix, usual = torch.randn(192, 192), torch.get_num_threads()
    times: dict[int, list[float]] = {1: [], threads: []}
    try:
        for _ in range(ROUNDS):  # in turns, as the load changes
            for count in times:
                torch.set_num_threads(count)
                end = time.perf_counter() + MEASURED_SECONDS
                while (begin := time.perf_counter()) < end:
                    (matrix @ matrix).relu().sum().item()
                    times[count].append(time.perf_counter() - begin)
    finally:
        torch.set_num_threads(usual)
    return median(times[1]), median(times[threads])


def check_gpu() -> Iterator[Finding]:
    """Whether there is a GPU, and computes."""
    import torch

    if not torch.cuda.is_available():
        if Path("/dev/nvidia0").exists() or shutil.which("nvidia-smi"):
            fix = "install a torch with CUDA for this driver (pytorch.org/get-started)"
            why = (
                "its driver does not answer"
                if torch.version.cuda
                else f"torch {torch.__version__} is built without CUDA"
            )
            yield Finding("GPU", "warning", f"there seems to be one, but {why}", fix)
        else:
            yield Finding("GPU", "ok", "none; training runs on the CPU")
        return
    for index in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(index)
        found = f"{torch.cuda.get_device_name(index)}, {free / 1e9:.1f} of {total / 1e9:.1f} GB free"
        ones = torch.ones(64, 64, device=f"cuda:{index}")
        right = bool(((ones @ ones) == 64).all())
        yield Finding(f"GPU {index}", "ok" if right else "broken", found if right else f"{found}; it computes wrong")
