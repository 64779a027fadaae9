"""Runs whose checkpoints are written in pieces.   Usage: pieces_process.py RANKS,RUN_DIR,STRATEGY,EPOCHS[,EVENT] ...

Events: "kill": rank 1 is killed while it writes its rows in epoch 2; "full": its disk is full then; "blind": it does
not see the run directory. A number: rank 1 is killed after so many seconds.
"""

import os
import signal
import sys
import threading
import time
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import functrain as ft
from functrain.checkpoint import row_store

WIDTH = 512  # a leaf of WIDTH rows of 64 numbers is large enough to be written in pieces


def make_state(width: int = WIDTH) -> ft.TrainState:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, width), nn.Tanh(), nn.Linear(width, 64), nn.Tanh(), nn.Linear(64, 3))
    return ft.init_state(model, ft.classification(), ft.optim.adamw(1e-2), accumulate=4, ema_decay=0.9)


def data() -> TensorDataset:
    generator = torch.Generator().manual_seed(0)
    return TensorDataset(torch.randn(32, 64, generator=generator), torch.randint(0, 3, (32,), generator=generator))


def fails_in_its_second_save(event: str) -> None:
    write, saves = row_store.write_rows, []

    def failing(directory: Path, found: object) -> None:
        saves.append(directory.parent.parent)
        if len(set(saves)) == 2:
            directory.mkdir(parents=True)
            (directory / "half").write_bytes(b"half")
            if event == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            raise OSError(28, os.strerror(28))
        write(directory, found)

    row_store.write_rows = failing


def train(run_dir: str, strategy: str, epochs: str, event: str = "") -> None:
    rank = dist.get_rank() if dist.is_initialized() else 0
    if rank == 1 and event in ("kill", "full"):
        fails_in_its_second_save(event)
    if rank == 1 and event == "blind":
        run_dir += "-of-rank-1"
    if rank == 1 and event[:1].isdigit():
        timer = threading.Timer(float(event), os.kill, (os.getpid(), signal.SIGKILL))
        timer.daemon = True
        timer.start()
    started = time.monotonic()
    try:
        ft.fit(
            ft.shard(make_state(), strategy=strategy, reduction="exact"),
            DataLoader(data(), batch_size=4, shuffle=True),
            epochs=int(epochs),
            run_dir=run_dir,
            compile=False,
            digest_every=1,
            progress=False,
            on_signal="return",
        )
    except BaseException:
        print(f"rank {rank} ended after {time.monotonic() - started:.1f} s", file=sys.stderr)
        raise


if __name__ == "__main__":
    from forked_ranks import main

    main(train)
