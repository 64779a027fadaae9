"""The digest of a state after some updates, by optimizer and strategy.

Usage: digests_process.py OUT RANKS [BACKEND [OPTIMIZER ...]]

The ranks are forks of this process: it imports once what all of them need.
"""

import json
import sys
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn

import functrain as ft
from functrain import optim
from functrain.distributed.shards import Sharding
from functrain.foundation.trees import nbytes

WINDOW, SHORT = 4, 3  # micro-batches of a window, and of the second one
OPTIMIZERS = ("adamw", "sgd", "muon", "adafactor", "lamb", "schedule_free_adamw")


def make_state(optimizer: str, **options: object) -> ft.TrainState:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(6, 17), nn.BatchNorm1d(17), nn.Tanh(), nn.Dropout(0.2), nn.Linear(17, 17), nn.Tanh(), nn.Linear(17, 3)
    )
    made = optim.REGISTRY[optimizer](0.01)
    return ft.init_state(
        model, ft.classification(), made, accumulate=WINDOW, ema_decay=0.9, clip_norm=0.1, metrics=["f1"], **options
    )


def batches() -> list[tuple[torch.Tensor, torch.Tensor]]:
    generator = torch.Generator().manual_seed(0)
    sizes = [3, 2, 5, 4] * 3
    return [
        (torch.randn(size, 6, generator=generator), torch.randint(0, 3, (size,), generator=generator)) for size in sizes
    ]


def train(state: ft.TrainState, step: object, rank: int, ranks: int) -> tuple[ft.TrainState, dict[str, torch.Tensor]]:
    """All windows, the second one short: with four ranks, the last has nothing in it."""
    share, data = WINDOW // ranks, batches()
    for window in range(len(data) // WINDOW):
        length = SHORT if window == 1 else WINDOW
        own = [number for number in range(rank * share, (rank + 1) * share) if number < length]
        if not own:
            state, metrics = step(state, None, end_window=True)
        for number in own:
            ends = number == own[-1] and len(own) < share
            state, metrics = step(state, data[window * WINDOW + number], end_window=ends)
    return state, metrics


def digests(rank: int, ranks: int, backend: str | None, optimizers: Sequence[str]) -> dict[str, str]:
    found = {}
    for optimizer in optimizers:
        for strategy, offload in [*((each, None) for each in ft.distributed.STRATEGIES), ("zero3", "cpu")]:
            step = ft.compile(ft.train_step, backend=backend, donate=True) if backend else ft.train_step
            state = ft.shard(make_state(optimizer), strategy=strategy, reduction="exact", offload_optimizer=offload)
            state, metrics = train(state, step, rank, ranks)
            numbers = [metrics[name].item() for name in ("loss", "grad_norm", "f1")]
            found[f"{optimizer} {strategy} {offload}"] = (
                f"{ft.digest(state)} {state.batch_idx} {state.samples_seen} {numbers}"
            )
    return found


def fast_params(rank: int, ranks: int) -> dict[str, list[float]]:
    """Parameters after updates by fast sums, each rank with its rows of each micro-batch, by strategy."""
    found = {}
    for strategy in ft.distributed.STRATEGIES:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 3))
        made = ft.init_state(
            model, ft.classification(), optim.adamw(0.01), accumulate=WINDOW, precision="fp64", clip_norm=0.1
        )
        state = ft.shard(made, strategy=strategy)
        for inputs, targets in batches():
            state, metrics = ft.train_step(state, (inputs[rank::ranks], targets[rank::ranks]))
        flat = torch.cat([param.reshape(-1) for param in ft.unshard(state).params.values()])
        found[strategy] = [*flat.tolist(), metrics["loss"].item(), metrics["grad_norm"].item()]
    return found


@contextmanager
def peak_of_gathered(found: list[int]) -> Iterator[None]:
    """Note after each gathering the bytes of all whole leaves that were gathered within and are still there."""
    held: list[torch.UntypedStorage] = []
    gather = Sharding._gathered

    def noting(self: Sharding, *arguments: object) -> list[torch.Tensor]:
        whole = gather(self, *arguments)
        held[:] = [each for each in held if torch._C._storage_Use_Count(each._cdata) > 1]  # one use is of this list
        held.extend(leaf.untyped_storage() for leaf in whole)
        found.append(sum(each.nbytes() for each in held))
        return whole

    Sharding._gathered = noting
    try:
        yield
    finally:
        Sharding._gathered = gather


def block_digests(rank: int, ranks: int) -> dict[str, str | float]:
    """Of zero3 with and without blocks, and the most that a pass has gathered, over the bytes of all parameters."""
    found: dict[str, str | float] = {}
    for blocks in ((), "layers.*"):
        torch.manual_seed(0)
        layers = [nn.Sequential(nn.Linear(64, 64), nn.GELU(), nn.Dropout(0.1)) for _ in range(8)]
        model = nn.Sequential(OrderedDict(layers=nn.Sequential(*layers), head=nn.Linear(64, 3)))
        made = ft.init_state(model, ft.classification(), optim.adamw(0.01), accumulate=WINDOW, clip_norm=0.1)
        state, whole = ft.shard(made, strategy="zero3", reduction="exact", blocks=blocks), nbytes(made.params)
        generator, share, gathered = torch.Generator().manual_seed(0), WINDOW // ranks, [0]
        for _ in range(3):
            window = [(torch.randn(4, 64, generator=generator), torch.arange(4) % 3) for _ in range(WINDOW)]
            with peak_of_gathered(gathered):
                for batch in window[rank * share : (rank + 1) * share]:
                    state, _ = ft.train_step(state, batch)
        found[f"peak {blocks}"] = max(gathered) / whole
        found[f"digest {blocks}"] = ft.digest(state)
    return found


def synchronised(rank: int, ranks: int) -> dict[str, list[float]]:
    """Parameters and statistics after updates with SyncBatchNorm, each rank with its uneven rows of a batch."""
    found = {}
    for strategy, accumulate, backend in (("ddp", 1, None), ("ddp", 1, "aot_eager"), ("zero3", 2, "aot_eager")):
        torch.manual_seed(0)
        norm = nn.SyncBatchNorm if ranks > 1 else nn.BatchNorm1d
        # A bias before such a layer has a gradient of 0, whose roundings Adam would blow up.
        first, second = nn.Linear(6, 16, bias=False), nn.Linear(16, 3, bias=False)
        model = nn.Sequential(first, norm(16), nn.Tanh(), second, norm(3, momentum=None))
        made = ft.init_state(
            model, ft.classification(), optim.adamw(0.01), precision="fp64", accumulate=accumulate, ema_decay=0.9
        )
        state = ft.shard(made, strategy=strategy)
        step = ft.compile(ft.train_step, backend=backend) if backend and ranks > 1 else ft.train_step
        generator = torch.Generator().manual_seed(0)
        for _ in range(4):
            inputs, targets = torch.randn(8, 6, generator=generator), torch.arange(8) % 3
            rows = slice(None) if ranks == 1 else (slice(3), slice(3, None))[rank]
            state, metrics = step(state, (inputs[rows], targets[rows]))
        whole = ft.unshard(state)
        leaves = [*whole.params.values(), *whole.buffers.values(), metrics["loss"], metrics["grad_norm"]]
        found[f"{strategy} {backend}"] = torch.cat([leaf.double().reshape(-1) for leaf in leaves]).tolist()
    return found


def write_digests(out: str, ranks: int, backend: str | None = None, *optimizers: str) -> None:
    rank = dist.get_rank() if ranks > 1 else 0
    Path(f"{out}.{rank}").write_text(json.dumps(digests(rank, ranks, backend, optimizers or OPTIMIZERS)))
    Path(f"{out}.fast.{rank}").write_text(json.dumps(fast_params(rank, ranks)))
    if ranks < 3:
        Path(f"{out}.synchronised.{rank}").write_text(json.dumps(synchronised(rank, ranks)))
    Path(f"{out}.blocks.{rank}").write_text(json.dumps(block_digests(rank, ranks)))


if __name__ == "__main__":
    from forked_ranks import run_ranks

    out, number, *rest = sys.argv[1:]
    torch.set_num_threads(1)
    codes = run_ranks(int(number), lambda: write_digests(out, int(number), *rest))
    sys.exit(max(map(abs, codes)))
