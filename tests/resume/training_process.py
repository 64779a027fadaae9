"""A real training run for the tests that kill it.   Usage: training_process.py RUN_DIR KEY=VALUE ...

Random augmentation, BatchNorm, dropout, a schedule, clipping and an average of the parameters: whatever a resume
could get wrong. Each update sleeps a little, so that a signal finds the run in its middle.
"""

import json
import sys
import time
import warnings

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, Dataset

import functrain as ft


class NoisyDigits(Dataset):
    """Digits with noise drawn from torch's global generator at each read."""

    def __init__(self) -> None:
        images, labels = load_digits(return_X_y=True)
        self.images = torch.tensor(images[:320] / 16, dtype=torch.float32).view(-1, 1, 8, 8)
        self.labels = torch.tensor(labels[:320])

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        return self.images[index] + 0.05 * torch.randn(1, 8, 8), self.labels[index]


def main(run_dir: str, *arguments: str) -> None:
    options = {
        "compile": False, "backend": "inductor", "accumulate": 1, "workers": 0, "precision": "fp32", "epochs": 4,
        "tail": "extend", "sleep": 0.02, "save_every": 5, "donate": False,
    } | {key: json.loads(value) for key, value in (argument.split("=") for argument in arguments)}  # fmt: skip
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Dropout(0.2), nn.Linear(144, 10)
    )
    state = ft.init_state(
        model,
        ft.classification(),
        ft.optim.adamw(ft.schedules.cosine(1e-2, 60)),
        accumulate=options["accumulate"],
        precision=options["precision"],
        clip_norm=1.0,
        ema_decay=0.9,
    )

    @ft.on("process_batch")
    def sleep(event: ft.Event) -> None:
        print(event.state.step, event.state.batch_idx, flush=True)
        time.sleep(options["sleep"])

    ft.fit(
        state,
        DataLoader(NoisyDigits(), batch_size=24, shuffle=True, num_workers=options["workers"]),
        eval_loader=DataLoader(NoisyDigits(), batch_size=100),
        epochs=options["epochs"],
        run_dir=run_dir,
        compile=options["compile"],
        backend=options["backend"],
        donate=options["donate"],
        tail=options["tail"],
        save_every=options["save_every"],
        log_every=1,
        callbacks=[sleep],
    )


if __name__ == "__main__":
    warnings.simplefilter("error", ft.ResumeWarning)
    main(*sys.argv[1:])
