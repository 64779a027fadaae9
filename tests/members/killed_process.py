"""Trains 64 members in a run directory; the test kills it.   Usage: killed_process.py RUN_DIR"""

import sys

import torch
from member_helpers import member_state
from torch.utils.data import TensorDataset

import functrain as ft


def main(run_dir):
    """Train, or go on."""
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    data = TensorDataset(
        torch.randn(96, 6, generator=generator, dtype=torch.float64), torch.randint(3, (96,), generator=generator)
    )
    loader = ft.data.Loader(data, batch_size=8, shuffle=True)
    stacked = ft.stack([member_state(number) for number in range(64)], vectorize=True)
    ft.fit(
        stacked,
        loader,
        eval_loader=ft.data.Loader(data, batch_size=32),
        epochs=6,
        run_dir=run_dir,
        save_every=5,
        log_every=3,
        compile=False,
        progress=False,
    )


if __name__ == "__main__":
    main(sys.argv[1])
