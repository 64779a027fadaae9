"""Compiled updates of fast sums, whose collectives stand in their graphs.   Usage: graph_process.py OUT RANKS"""

import json
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn

import functrain as ft

WINDOW, ROWS = 4, 8
PARTS = {"even": (slice(4), slice(4, None)), "uneven": (slice(3), slice(3, None))}  # of two ranks


def windows():
    """Micro-batches of three windows; the second is short."""
    generator = torch.Generator().manual_seed(0)
    for length in (WINDOW, 2, WINDOW):
        yield [(torch.randn(ROWS, 6, generator=generator), torch.arange(ROWS) % 3) for _ in range(length)]


def trained(model, parts, rank, *, donate, **options):
    """What a compiled run comes to, on this rank's rows of each micro-batch."""
    made = ft.init_state(
        model, ft.classification(), ft.optim.adamw(0.01), accumulate=WINDOW, clip_norm=0.1, ema_decay=0.9, **options
    )
    state = ft.shard(made)
    step, programs = ft.compile(ft.train_step, backend="aot_eager", donate=donate), []
    step.runner.on_program = lambda what, digest: programs.append(f"{what} {digest}")
    for window in windows():
        for number, (inputs, targets) in enumerate(window):
            batch = inputs[parts[rank]], targets[parts[rank]]
            state, metrics = step(state, batch, end_window=number == len(window) - 1)
    flat = torch.cat([leaf.reshape(-1) for leaf in (*state.params.values(), *state.ema.params.values())])
    return {
        "numbers": [*flat.tolist(), metrics["loss"].item(), metrics["grad_norm"].item()],
        "seen": [state.step, state.batch_idx, state.samples_seen],
        "compilations": dict(step.runner.compilations),
        "programs": programs,
        "digest": ft.digest(state),
    }


def runs(rank, ranks):
    """By name: of halves and of uneven parts, donated or not, in float64; and with random draws and statistics."""
    found = {}
    for name, parts in PARTS.items():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 3))
        rows = [slice(None)] if ranks == 1 else parts
        found[name] = trained(model, rows, rank, donate=name == "even", precision="fp64")
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.Dropout(0.5), nn.Linear(16, 3))
    found["random"] = trained(model, [slice(None)] if ranks == 1 else PARTS["even"], rank, donate=True)
    return found


def write(out, ranks):
    rank = dist.get_rank() if ranks > 1 else 0
    Path(f"{out}.{ranks}.{rank}").write_text(json.dumps(runs(rank, ranks)))


if __name__ == "__main__":
    from forked_ranks import import_what_runs_need, run_ranks

    out = sys.argv[1]
    torch.set_num_threads(1)
    import_what_runs_need()
    codes = [code for ranks in map(int, sys.argv[2:]) for code in run_ranks(ranks, lambda: write(out, ranks))]  # noqa: B023 - it is called at once
    sys.exit(max(map(abs, codes)))
