"""What a state in shards costs: the time of an update, and what a rank keeps, beside torch's DDP and FSDP2.

    python -m benchmarks.sharding [RANKS]

Ranks are processes on this machine, joined by gloo, with one thread each. All ways train one network on the same
micro-batches, eight of 16 examples an update, shared out among the ranks, and take turns in one run. Times are medians
over the updates of rank 0: of the clock, and of its CPU, which other programs disturb less. All run with the heap that
`fit` has.
"""

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

import functrain as ft
from benchmarks.machine import cpu, load
from functrain.foundation.trees import nbytes
from functrain.loop.process.heap import kept_heap

WIDTH, DEPTH, WINDOW, EXAMPLES, ROUNDS = 1024, 4, 8, 16, 32
Update = Callable[[], Any]


def network() -> nn.Module:
    """The network of all ways: 4.2 million parameters."""
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for _ in range(DEPTH):
        layers += [nn.Linear(WIDTH, WIDTH), nn.Tanh()]
    return nn.Sequential(*layers, nn.Linear(WIDTH, 10))


def batches(rank: int, ranks: int) -> list[tuple[Tensor, Tensor]]:
    """This rank's micro-batches of an update."""
    generator = torch.Generator().manual_seed(0)
    every = [
        (torch.randn(EXAMPLES, WIDTH, generator=generator), torch.randint(0, 10, (EXAMPLES,), generator=generator))
        for _ in range(WINDOW)
    ]
    share = WINDOW // ranks
    return every[rank * share : (rank + 1) * share]


def ours(strategy: str, reduction: str, rank: int, ranks: int) -> tuple[Update, int]:
    """An update of functrain's compiled step, and the bytes that a rank keeps."""
    own = batches(rank, ranks)
    # With fast sums a rank has its part of each micro-batch: here as many examples, in as few passes.
    accumulate = WINDOW if reduction == "exact" else len(own)
    state = ft.init_state(network(), ft.classification(), ft.optim.adamw(1e-3), accumulate=accumulate)
    state = ft.shard(state, strategy=strategy, reduction=reduction)
    step = ft.compile(ft.train_step, donate=True)
    kept = nbytes((state.params, state.opt_state))

    def update() -> None:
        nonlocal state
        for batch in own:
            state, _ = step(state, batch)

    return update, kept


def theirs(wrap: Callable[[nn.Module], nn.Module], rank: int, ranks: int) -> tuple[Update, int]:
    """An update of a loop by hand with accumulation, its network compiled."""
    own, model = batches(rank, ranks), wrap(network())
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.01, fused=True)
    compiled = torch.compile(model)

    def update() -> None:
        optimizer.zero_grad()
        for number, (inputs, targets) in enumerate(own):
            sync = number == len(own) - 1
            if hasattr(model, "set_requires_gradient_sync"):
                model.set_requires_gradient_sync(sync)
            elif hasattr(model, "require_backward_grad_sync"):
                model.require_backward_grad_sync = sync
            (nn.functional.cross_entropy(compiled(inputs), targets) / len(own)).backward()
        optimizer.step()

    update()
    held = [t for s in optimizer.state.values() for t in s.values() if isinstance(t, Tensor) and t.ndim]
    return update, sum(_local(t).nbytes for t in [*model.parameters(), *held])


def _local(tensor: Any) -> Tensor:
    found: Tensor = tensor.to_local() if hasattr(tensor, "to_local") else tensor
    return found


def _fully_sharded(model: nn.Module) -> nn.Module:
    for layer in model.children():
        if isinstance(layer, nn.Linear):
            fully_shard(layer)
    fully_shard(model)
    return model


def ways(rank: int, ranks: int) -> Iterator[tuple[str, Update, int]]:
    """Names, updates and bytes."""
    yield ("torch DDP, compiled", *theirs(DistributedDataParallel, rank, ranks))
    for reduction in ("fast", "exact"):
        for strategy in ("ddp", "zero1", "zero3"):
            yield (f"{strategy}, {reduction}", *ours(strategy, reduction, rank, ranks))
    yield ("torch FSDP2, compiled", *theirs(_fully_sharded, rank, ranks))


def measure(rank: int, ranks: int) -> None:
    """Print the table, on rank 0."""
    found = list(ways(rank, ranks))
    times: dict[str, list[tuple[float, float]]] = {name: [] for name, *_ in found}
    for _ in range(ROUNDS):
        for name, update, _ in found:
            dist.barrier()
            began = time.perf_counter(), time.process_time()
            update()
            times[name].append((time.perf_counter() - began[0], time.process_time() - began[1]))
    if rank == 0:
        print(f"{ranks} ranks, {cpu()}, {load()}\n")
        print("| way | ms an update | ms of CPU | MB of parameters and optimizer on a rank |\n|---|---|---|---|")
        for name, _, kept in found:
            clock, own = (statistics.median(each) * 1e3 for each in zip(*times[name][2:], strict=True))
            print(f"| {name} | {clock:.0f} | {own:.0f} | {kept / 1e6:.1f} |")


def main(ranks: int) -> None:
    """Start the ranks as forks."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        children = []
        for rank in range(ranks):
            child = os.fork()
            if child == 0:
                dist.init_process_group("gloo", store=dist.FileStore(f"{folder}/s", ranks), rank=rank, world_size=ranks)
                with kept_heap(torch.device("cpu")):  # as within `fit`
                    measure(rank, ranks)
                sys.stdout.flush()
                os._exit(0)
            children.append(child)
        for child in children:
            os.waitpid(child, 0)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 2)
