"""GPT-2 124M on a GPU: tokens a second, MFU, peak memory, resume.   Usage: python -m benchmarks.gpu [--out FILE] ...

functrain's donated step, a loop by hand with torch.compile on model + loss and fused AdamW, and JAX where it is
installed, each in a process of its own: same size, AdamW, autocast, tokens that lie on the device. Then a run that
is stopped and resumed in deterministic mode is compared with one that was not, bit for bit.

Without a GPU it says so and ends with 0. To try it out: --device cpu --layers 2 --steps 3
"""

import argparse
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import functrain as ft
from benchmarks.gpt import GPT, Size, flops_per_token, next_token_loss, random_text
from benchmarks.machine import cpu, said, write
from functrain.diagnostics.flops import peak_flops
from functrain.diagnostics.peak_memory import PeakMemory

LR = 6e-4  # as nanoGPT's
WARM_UP = 3
LIMIT = 150  # seconds for each way: what hangs must not take the others' time on a machine that is lent
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}


@dataclass(frozen=True)
class Task:
    """What is trained, on what."""

    size: Size
    batch: int
    precision: str
    device: torch.device
    steps: int
    backend: str

    def model(self) -> GPT:
        torch.manual_seed(0)
        return GPT(self.size).to(self.device)

    def text(self) -> tuple[Tensor, Tensor]:
        torch.manual_seed(1)
        return random_text(self.size, self.batch, self.device)

    def wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


Step = Callable[[], Any]


def functrain_step(task: Task, mode: str) -> Step:
    state = ft.init_state(
        task.model(), ft.supervised(next_token_loss), ft.optim.adamw(LR), precision=task.precision, device=task.device
    )
    step, text = ft.compile(ft.train_step, donate=True, mode=mode, backend=task.backend), task.text()

    def one_step() -> Tensor:
        nonlocal state
        state, metrics = step(state, text)
        return metrics["loss"]

    return one_step


def by_hand(task: Task) -> Step:
    model, (tokens, following) = task.model(), task.text()
    optimizer = torch.optim.AdamW(model.parameters(), lr=LR, fused=True)
    mixed = task.precision != "fp32"

    def forward(x: Tensor, y: Tensor) -> Tensor:
        with torch.autocast(task.device.type, DTYPES[task.precision], enabled=mixed):
            return next_token_loss(model(x), y)

    compiled = torch.compile(forward, backend=task.backend)

    def one_step() -> Tensor:
        loss = compiled(tokens, following)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss.detach()

    return one_step


def in_jax(task: Task) -> Step:
    import jax
    import jax.numpy as jnp

    from benchmarks.peers import jax_loop

    size = task.size
    dtype = {"bf16": jnp.bfloat16, "fp16": jnp.float16, "fp32": jnp.float32}[task.precision]
    params, buffers, apply = jax_loop.gpt(size.layers, size.width, size.heads, size.tokens, size.vocabulary, dtype)
    optimizer, step = jax_loop.make_step(apply, LR)
    carry = (params, buffers, optimizer.init(params), jax.random.key(0))
    text = tuple(jnp.asarray(part.cpu().numpy()) for part in task.text())
    rows = jnp.arange(task.batch)

    def one_step() -> Any:
        nonlocal carry
        carry, loss = step(carry, text, rows)
        return jax.block_until_ready(loss)

    return one_step


FUNCTRAIN = "functrain: compiled step, donated"
GRAPH = "functrain: the same as a CUDA graph"
BY_HAND = "torch by hand: torch.compile on model + loss"
JAX = "jax.jit + optax, donated"
WAYS: dict[str, Callable[[Task], Step]] = {
    FUNCTRAIN: lambda task: functrain_step(task, "default"),
    GRAPH: lambda task: functrain_step(task, "reduce-overhead"),
    BY_HAND: by_hand,
    JAX: in_jax,
}
# name of the goal, the way that functrain is compared with, the least ratio of tokens a second
GOALS = (("at least 1.05x torch.compile by hand", BY_HAND, 1.05), ("at least JAX", JAX, 1.0))
CEILING_SHARE = 0.5  # of `ceiling`


def there(way: str, device: torch.device) -> str | None:
    """Why a way cannot be measured here; None if it can."""
    if "CUDA graph" in way and device.type != "cuda":
        return "no GPU"
    if way.startswith("jax"):
        if importlib.util.find_spec("optax") is None:
            return "jax and optax are not installed"
        import jax

        if (jax.default_backend() == "gpu") != (device.type == "cuda"):
            return f"jax computes on {jax.default_backend()}"
    return None


def measure(task: Task, way: str) -> dict[str, Any]:
    """Seconds per step, peak bytes and the last loss; or why not."""
    missing = there(way, task.device)
    if missing is not None:
        return {"missing": missing}
    start = time.perf_counter()
    one_step = WAYS[way](task)
    one_step()
    task.wait()
    first = time.perf_counter() - start
    for _ in range(WARM_UP - 1):
        one_step()
    task.wait()
    peak, seconds, loss = PeakMemory(task.device), [], None
    for _ in range(task.steps):
        start = time.perf_counter()
        loss = one_step()
        task.wait()
        seconds.append(time.perf_counter() - start)
    used = _peak_of_jax() if way.startswith("jax") and task.device.type == "cuda" else peak.bytes()
    return {"seconds": seconds, "first": first, "peak": used, "loss": float(loss)}  # type: ignore[arg-type]


def _peak_of_jax() -> int | None:
    import jax

    stats = jax.local_devices()[0].memory_stats()
    return None if stats is None else stats["peak_bytes_in_use"]


def resume(task: Task) -> list[str]:
    """What differs between a run and one that was stopped halfway and resumed, in deterministic mode; nothing if all is
    well."""
    size, generator = task.size, torch.Generator().manual_seed(2)
    text = torch.randint(size.vocabulary, (6 * task.batch, size.tokens + 1), generator=generator)
    data = ft.data.Loader(ft.data.Arrays(text[:, :-1].contiguous(), text[:, 1:].contiguous()), task.batch)

    def run(folder: str, steps: int) -> ft.TrainState:
        state = ft.init_state(
            task.model(),
            ft.supervised(next_token_loss),
            ft.optim.adamw(LR),
            precision=task.precision,
            device=task.device,
        )
        options = {"compile": True, "backend": task.backend, "deterministic": True, "progress": False}
        return ft.fit(state, data, steps=steps, run_dir=folder, **options).state  # type: ignore[arg-type]

    with tempfile.TemporaryDirectory() as folder:
        whole = run(f"{folder}/whole", 8)
        run(f"{folder}/stopped", 4)
        resumed = run(f"{folder}/stopped", 8)
        return [str(difference) for difference in ft.diff_states(whole, resumed)]


def ceiling(task: Task, side: int = 8192) -> float:
    """The most operations a second that products of large matrices reach here."""
    side = side if task.device.type == "cuda" else 512
    first, second = (torch.randn(side, side, device=task.device, dtype=DTYPES[task.precision]) for _ in range(2))
    best = float("inf")
    for _ in range(20):
        start = time.perf_counter()
        first @ second
        task.wait()
        best = min(best, time.perf_counter() - start)
    return 2 * side**3 / best


def alone(what: str, options: list[str], environment: dict[str, str] | None = None) -> Any:
    """Measured in a process of its own; its last line, or the end of its complaint."""
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.gpu", "--alone", what, *options]
    try:
        result = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=LIMIT,
            env={**os.environ, "XLA_PYTHON_CLIENT_PREALLOCATE": "false"} | (environment or {}),
        )
    except subprocess.TimeoutExpired:
        return {"missing": f"not done after {LIMIT} s"}
    if result.returncode:
        return {"missing": f"failed: {result.stderr.strip().splitlines()[-1] if result.stderr.strip() else 'no word'}"}
    return json.loads(result.stdout.splitlines()[-1])


def report(task: Task, options: list[str]) -> str:
    name = torch.cuda.get_device_name(task.device) if task.device.type == "cuda" else cpu()
    peak = peak_flops(name, task.precision, tf32=False)
    size = task.size
    parameters = sum(p.numel() for p in GPT(size).parameters())
    lines = [
        f"{date.today()}, {name}, torch {torch.__version__}, CUDA {torch.version.cuda}. GPT with "
        f"{parameters / 1e6:.0f}M parameters ({size.layers} layers, width {size.width}), batch {task.batch} x "
        f"{size.tokens} tokens, {task.precision}; {task.steps} steps, each waited for. Peak of the device: "
        f"{'not known' if peak is None else f'{peak / 1e12:.0f} TFLOP/s'}.",
        "",
        "| way | ms a step, min | median | tokens/s | MFU | peak memory, GB | first step, s | loss |",
        "|---|---|---|---|---|---|---|---|",
    ]
    found = {way: alone(way, options) for way in WAYS}
    lines += [f"| {way} | {_cells(task, found[way], peak)} |" for way in WAYS]
    if task.device.type == "cuda":
        lines += ["", *_goals(task, found, alone("ceiling", options))]
    differences = alone("resume", options, {"CUBLAS_WORKSPACE_CONFIG": ":4096:8"})
    if isinstance(differences, dict):
        said_of_resume = differences["missing"]
    else:
        said_of_resume = "bit for bit" if not differences else f"**differs**: {'; '.join(differences[:3])}"
    return "\n".join([*lines, "", f"Resume in deterministic mode, 4 + 4 steps against 8: {said_of_resume}."]) + "\n"


def _goals(task: Task, found: dict[str, Any], most: Any) -> list[str]:
    """A line for each goal: the better of functrain's two ways against the others and against the ceiling."""
    rates = {
        way: task.batch * task.size.tokens / statistics.median(each["seconds"])
        for way, each in found.items()
        if "missing" not in each
    }
    ours = max((rates[way] for way in (FUNCTRAIN, GRAPH) if way in rates), default=None)
    if ours is None:
        return ["Nothing of functrain was measured."]
    lines = [
        f"- {name}: {ours / rates[other]:.2f}x, {said(ours / rates[other] >= least)}"
        for name, other, least in GOALS
        if other in rates
    ]
    if isinstance(most, float):
        share = flops_per_token(task.size) * ours / most
        wanted = f"at least {CEILING_SHARE:.0%} of what products of large matrices reach ({most / 1e12:.1f} TFLOP/s)"
        lines.append(f"- {wanted}: {share:.0%}, {said(share >= CEILING_SHARE)}")
    return lines


def _cells(task: Task, found: dict[str, Any], peak: float | None) -> str:
    if "missing" in found:
        return f"{found['missing']} | | | | | |"
    best, median = min(found["seconds"]), statistics.median(found["seconds"])
    rate = task.batch * task.size.tokens / median
    mfu = "" if peak is None else f"{flops_per_token(task.size) * rate / peak:.1%}"
    memory = "" if found["peak"] is None else f"{found['peak'] / 1e9:.2f}"
    return (
        f"{best * 1e3:.1f} | {median * 1e3:.1f} | {rate:,.0f} | {mfu} | {memory} | {found['first']:.0f} | "
        f"{found['loss']:.3f}"
    )


PARTS: dict[str, Callable[[Task], Any]] = {"resume": resume, "ceiling": ceiling}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--precision", choices=DTYPES, default="bf16")
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--batch", type=int, help="default: 16, on a CPU 1")
    parser.add_argument("--tokens", type=int, help="default: 1024, on a CPU 64")
    for name in ("layers", "width", "heads", "vocabulary"):
        parser.add_argument(f"--{name}", type=int, default=getattr(Size, name))
    parser.add_argument("--backend", default="inductor")
    parser.add_argument("--out", type=Path, help="also write the table here")
    parser.add_argument("--alone", choices=[*WAYS, *PARTS], help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        print(
            "benchmarks.gpu: no CUDA device here, nothing was measured (--device cpu --layers 2 --steps 3 tries it out)"
        )
        return
    if arguments.steps < 1:
        parser.error("--steps must be at least 1")
    on_cpu = device.type == "cpu"
    tokens = arguments.tokens or (64 if on_cpu else 1024)
    size = Size(arguments.layers, arguments.width, arguments.heads, tokens, arguments.vocabulary)
    batch = arguments.batch or (1 if on_cpu else 16)
    task = Task(size, batch, arguments.precision, device, arguments.steps, arguments.backend)
    if arguments.alone:
        part = PARTS.get(arguments.alone)
        print(json.dumps(measure(task, arguments.alone) if part is None else part(task)))
        return
    text = report(task, sys.argv[1:])
    print(text)
    if arguments.out is not None:
        write(arguments.out, "GPT-2 on a GPU", "python -m benchmarks.gpu", __doc__, text)


if __name__ == "__main__":
    main()
