"""Data-parallel runs.   Usage: ranks_process.py RANKS,RUN_DIR[,STOP_AT[,STRATEGY]] ..."""

import os
import signal
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import functrain as ft


def make_state() -> ft.TrainState:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 3))
    return ft.init_state(
        model, ft.classification(), ft.optim.adamw(1e-2), precision="fp64", accumulate=2, clip_norm=0.1, ema_decay=0.9
    )


def train(run_dir: str, stop_at: int = 0, stopping_rank: int = 1, strategy: str = "") -> ft.FitResult:
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(39, 6, generator=generator)
    targets = torch.randint(0, 3, (39,), generator=generator)
    rank = dist.get_rank() if dist.is_initialized() else 0

    @ft.on("after_step")
    def stop(event: ft.Event) -> None:
        if event.state.step == stop_at and rank == stopping_rank:
            os.kill(os.getpid(), signal.SIGTERM)

    data = TensorDataset(inputs, targets)
    return ft.fit(
        ft.shard(make_state(), strategy=strategy) if strategy else make_state(),
        DataLoader(data, batch_size=8, shuffle=True),
        eval_loader=DataLoader(data, batch_size=10),
        epochs=3,
        run_dir=run_dir,
        compile=True,
        backend="aot_eager",
        callbacks=[stop],
        progress=False,
    )


def train_on_rank(run_dir: str, stop_at: str = "0", strategy: str = "") -> None:
    result = train(run_dir, int(stop_at), strategy=strategy)
    Path(f"{run_dir}-digest-{dist.get_rank()}").write_text(ft.digest(result.state))


if __name__ == "__main__":
    from forked_ranks import main

    main(train_on_rank)
