"""A real training run for the tests that kill it.   Usage: training_process.py RUN_DIR KEY=VALUE ...

Random augmentation, BatchNorm, dropout, a schedule, clipping and an average of the parameters: whatever a resume
could get wrong. Each update sleeps a little, so that a signal finds the run in its middle.
"""

import json
import sys
import time
import warnings
from collections.abc import Iterator
from typing import Any

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


class StatefulLoader:
    """A loader with a state of its own: its order and its noise come from one generator."""

    def __init__(self, dataset: NoisyDigits, batch_size: int) -> None:
        self.dataset, self.batch_size = dataset, batch_size
        self.generator = torch.Generator().manual_seed(3)
        self.order: list[int] = []
        self.position = 0

    def __len__(self) -> int:
        return -(-len(self.dataset) // self.batch_size)

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        if not self.order:
            self.order = torch.randperm(len(self.dataset), generator=self.generator).tolist()
        while self.position < len(self.order):
            rows = self.order[self.position : self.position + self.batch_size]
            self.position += self.batch_size
            noise = 0.05 * torch.randn(len(rows), 1, 8, 8, generator=self.generator)
            yield self.dataset.images[rows] + noise, self.dataset.labels[rows]
        self.order, self.position = [], 0

    def state_dict(self) -> dict[str, Any]:
        return {"generator": self.generator.get_state(), "order": self.order, "position": self.position}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.generator.set_state(state["generator"])
        self.order, self.position = list(state["order"]), state["position"]


def make_loader(kind: str, workers: int) -> Any:
    if kind == "stateful":
        return StatefulLoader(NoisyDigits(), 24)
    if kind == "functrain":
        return ft.data.Loader(NoisyDigits(), 24, shuffle=True, num_workers=workers)
    return DataLoader(NoisyDigits(), batch_size=24, shuffle=True, num_workers=workers)


def make_optimizer(options: dict[str, Any]) -> Any:
    if options["schedule_free"]:
        return ft.optim.schedule_free_adamw(1e-2)
    return ft.optim.adamw(ft.schedules.cosine(1e-2, 60))


def main(run_dir: str, *arguments: str) -> None:
    options = {
        "compile": False, "backend": "inductor", "accumulate": 1, "workers": 0, "precision": "fp32", "epochs": 4,
        "tail": "extend", "sleep": 0.02, "save_every": 5, "donate": False,
        "loader": "plain", "overflow": False, "plateau": False, "schedule_free": False,
    } | {key: json.loads(value) for key, value in (argument.split("=") for argument in arguments)}  # fmt: skip
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Dropout(0.2), nn.Linear(144, 10)
    )
    state = ft.init_state(
        model,
        ft.classification(),
        make_optimizer(options),
        accumulate=options["accumulate"],
        precision=options["precision"],
        clip_norm=1.0,
        ema_decay=0.9,
    )

    @ft.on("process_batch")
    def sleep(event: ft.Event) -> None:
        print(event.state.step, event.state.batch_idx, flush=True)
        time.sleep(options["sleep"])

    @ft.on("process_batch")
    def overflow(event: ft.Event) -> ft.Event:
        """Inputs that are too large for float16 in every 9th update: it is refused, the loss scale halved."""
        inputs, *rest = event.batch
        return event.replace(batch=(inputs * 1e6 if event.state.step % 9 == 4 else inputs, *rest))

    rules = {"plateau": ft.optim.plateau(patience=0), "early_stopping": ft.optim.early_stopping(patience=3)}
    ft.fit(
        state,
        make_loader(options["loader"], options["workers"]),
        eval_loader=DataLoader(NoisyDigits(), batch_size=100),
        epochs=options["epochs"],
        run_dir=run_dir,
        compile=options["compile"],
        backend=options["backend"],
        donate=options["donate"],
        tail=options["tail"],
        save_every=options["save_every"],
        log_every=1,
        callbacks=[sleep, overflow] if options["overflow"] else [sleep],
        **(rules if options["plateau"] else {}),
    )


if __name__ == "__main__":
    warnings.simplefilter("error", ft.ResumeWarning)
    main(*sys.argv[1:])
