"""Runs whose state is sharded.   Usage: sharded_process.py RANKS,RUN_DIR,STRATEGY[,SIGNAL,STEP] ..."""

import os

import torch
import torch.distributed as dist
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import functrain as ft


def make_state() -> ft.TrainState:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(6, 16), nn.BatchNorm1d(16), nn.Tanh(), nn.Dropout(0.1), nn.Linear(16, 16), nn.Tanh(), nn.Linear(16, 3)
    )
    return ft.init_state(
        model, ft.classification(), ft.optim.adamw(1e-2), accumulate=4, clip_norm=0.1, ema_decay=0.9, metrics=["f1"]
    )


def train(
    run_dir: str,
    strategy: str,
    signal_number: int = 0,
    stop_at: int = 0,
    stopping_rank: int = 1,
    *,
    offload: str | None = None,
    compiled: bool = True,
    epochs: int = 3,
) -> ft.FitResult:
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(117, 6, generator=generator)
    targets = torch.randint(0, 3, (117,), generator=generator)
    rank = dist.get_rank() if dist.is_initialized() else 0
    ranks = dist.get_world_size() if dist.is_initialized() else 1

    @ft.on("after_step")
    def stop(event: ft.Event) -> None:
        if event.state.step == stop_at and rank == stopping_rank % ranks:
            os.kill(os.getpid(), signal_number)

    data = TensorDataset(inputs, targets)
    return ft.fit(
        ft.shard(make_state(), strategy=strategy, reduction="exact", offload_optimizer=offload),
        DataLoader(data, batch_size=5, shuffle=True),
        eval_loader=DataLoader(data, batch_size=10),
        epochs=epochs,
        tail="short",
        run_dir=run_dir,
        compile=compiled,
        backend="aot_eager",
        callbacks=[stop],
        digest_every=1,
        save_every=2,
        progress=False,
    )


def train_on_rank(run_dir: str, strategy: str, signal_number: str = "0", stop_at: str = "0") -> None:
    train(run_dir, strategy, int(signal_number), int(stop_at))


if __name__ == "__main__":
    from forked_ranks import main

    main(train_on_rank)
