"""A real training run for the tests that kill it.   Usage: training_process.py RUN_DIR KEY=VALUE ...

Random augmentation, BatchNorm, dropout, a schedule, clipping, an average of the parameters, sums of several threads:
whatever a resume could get wrong. At its end it writes `result.json`: what `fit` returned.
"""

import faulthandler
import hashlib
import json
import math
import os
import random
import signal
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from faults import plant
from moments import BEGUN, Pause, aim_at, reach, watch
from torch import nn
from torch.utils.data import DataLoader, Dataset

import functrain as ft
from functrain.data.datasets import DIGITS_FILE
from functrain.foundation import trees
from functrain.loop.batches import windows_in

BATCH, EXAMPLES = 24, 230  # ten batches, the last one ragged, which fill no number of windows of 3
DIGITS = np.load(DIGITS_FILE)

DEFAULTS = {
    "run": "eager", "precision": "fp32", "accumulate": 1, "tail": "extend", "loader": "plain", "workers": 0,
    "optimizer": "adamw", "rules": False, "ema": True, "batchnorm": True, "dropout": True, "save_every": 4,
    "network": "convolution", "threads": 1, "epochs": 3, "draws": "torch", "aim": "", "fault": "",
}  # fmt: skip


def noise_of(draws: str, *shape: int) -> torch.Tensor:
    """Noise from one of the global generators."""
    if draws == "torch":
        return torch.randn(*shape)
    if draws == "numpy":
        return torch.from_numpy(np.random.randn(*shape)).float()
    return torch.tensor([random.gauss(0, 1) for _ in range(math.prod(shape))]).reshape(shape)


class NoisyDigits(Dataset):
    """Digits with noise drawn from one of the global generators at each read."""

    def __init__(self, count: int = EXAMPLES, draws: str = "torch") -> None:
        self.draws = draws
        self.images = torch.tensor(DIGITS["images"][:count] / 16, dtype=torch.float32).unsqueeze(1)
        self.labels = torch.tensor(DIGITS["classes"][:count], dtype=torch.long)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        return self.images[index] + 0.05 * noise_of(self.draws, 1, 8, 8), self.labels[index]


class StatefulLoader:
    """A loader with a state of its own, its order and its noise from one generator, where functrain does not find it.

    If the data set does not draw from torch, the noise is from the global generator that it draws from.
    As torchdata's: iter() starts a new pass, unless a state was loaded before.
    """

    def __init__(self, dataset: NoisyDigits, batch_size: int) -> None:
        self.dataset, self.batch_size = dataset, batch_size
        self.generators = [torch.Generator().manual_seed(3)]
        self.order: list[int] = []
        self.position = 0
        self.loaded = False

    def __len__(self) -> int:
        return -(-len(self.dataset) // self.batch_size)

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        if not self.loaded or not self.order:
            self.order, self.position = torch.randperm(len(self.dataset), generator=self.generators[0]).tolist(), 0
        self.loaded = False
        while self.position < len(self.order):
            rows = self.order[self.position : self.position + self.batch_size]
            self.position += self.batch_size
            if self.dataset.draws == "torch":
                noise = torch.randn(len(rows), 1, 8, 8, generator=self.generators[0])
            else:
                noise = noise_of(self.dataset.draws, len(rows), 1, 8, 8)
            yield self.dataset.images[rows] + 0.05 * noise, self.dataset.labels[rows]
        self.order = []

    def state_dict(self) -> dict[str, Any]:
        return {"generator": self.generators[0].get_state(), "order": self.order, "position": self.position}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.generators[0].set_state(state["generator"])
        self.order, self.position, self.loaded = list(state["order"]), state["position"], True


class Looked(nn.Module):
    """Each pixel's row of a table, as `table[rows]` and by `nn.Embedding`; four numbers for a pixel come of it.

    A batch adds 1,536 gradients of 32 numbers to 17 rows: from two threads, for one adds up to 32,768 numbers.
    """

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.randn(17, 32))
        self.embedding = nn.Embedding(17, 32)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        rows = (images.clamp(0, 1) * 16).long().flatten(1)
        looked = torch.tanh(self.table[rows] + self.embedding(rows)) * images.flatten(1)[..., None]
        return looked.unflatten(-1, (4, 8)).sum(-1).transpose(1, 2).unflatten(-1, (8, 8))


def make_loader(kind: str, workers: int, draws: str) -> Any:
    dataset = NoisyDigits(draws=draws)
    if kind == "stateful":
        return StatefulLoader(dataset, BATCH)
    if kind == "functrain":
        return ft.data.Loader(dataset, BATCH, shuffle=True, num_workers=workers)
    return DataLoader(dataset, batch_size=BATCH, shuffle=True, num_workers=workers)


def make_state(options: dict[str, Any]) -> ft.TrainState:
    first, wide = {"convolution": (nn.Conv2d(1, 4, 3), 144), "tables": (Looked(), 256)}[options["network"]]
    layers = [first, nn.BatchNorm2d(4) if options["batchnorm"] else nn.Identity(), Pause(), nn.ReLU()]
    model = nn.Sequential(*layers, nn.Flatten(), nn.Dropout(0.2 if options["dropout"] else 0.0), nn.Linear(wide, 10))
    return ft.init_state(
        model,
        ft.classification(),
        {
            "adamw": lambda: ft.optim.adamw(ft.schedules.cosine(1e-2, 60)),
            "schedule-free": lambda: ft.optim.schedule_free_adamw(1e-2),
        }[options["optimizer"]](),
        accumulate=options["accumulate"],
        precision=options["precision"],
        clip_norm=1.0,
        ema_decay=0.9 if options["ema"] else None,
    )


@ft.on("process_batch")
def overflow(event: ft.Event) -> ft.Event:
    """Inputs that are too large for float16 in every 9th update: it is refused, the loss scale halved."""
    inputs, *rest = event.batch
    return event.replace(batch=(inputs * 1e6 if event.state.step % 9 == 4 else inputs, *rest))


def main(run_dir: str, *arguments: str) -> None:
    faulthandler.register(signal.SIGUSR2)  # where it hangs, if it does
    options = DEFAULTS | {key: json.loads(value) for key, value in (text.split("=") for text in arguments)}
    torch.set_num_threads(options["threads"])
    moment, _, count = options["aim"].rpartition(":")
    if moment:
        aim_at(moment, int(count))
    reach(BEGUN)
    batches = windows_in(-(-EXAMPLES // BATCH), options["accumulate"], options["tail"])
    callbacks = watch((options["epochs"] - 1, batches - 1))
    if options["fault"]:
        plant(options["fault"])
    torch.manual_seed(0)
    state = make_state(options)
    rules = {  # nothing is good enough for these: the rate is reduced after epoch 2 and 3, and 3 is the last
        "plateau": ft.optim.plateau(patience=0, threshold=0.99),
        "early_stopping": ft.optim.early_stopping(patience=2, min_delta=10.0),
    }
    run, _, donated = options["run"].partition(" ")
    result = ft.fit(
        state,
        make_loader(options["loader"], options["workers"], options["draws"]),
        eval_loader=DataLoader(NoisyDigits(100, options["draws"]), batch_size=40),
        epochs=options["epochs"] + options["rules"],
        run_dir=run_dir,
        compile=run != "eager",
        backend={"eager": "inductor", "traced": "eager", "compiled": "inductor"}[run],
        donate=bool(donated),
        tail=options["tail"],
        save_every=options["save_every"] or None,
        keep=2,
        log_every=1,
        tensorboard=True,
        callbacks=[*callbacks, *([overflow] if options["precision"] == "fp16" else [])],
        **(rules if options["rules"] else {}),
    )
    digests = {path: digest(leaf) for path, leaf in trees.leaves_with_paths(result.state)}
    whole = {"stopped_by": result.stopped_by, "history": result.history, "state": digests}
    unfinished = Path(run_dir) / ".result"
    unfinished.write_text(json.dumps(whole))
    unfinished.rename(Path(run_dir) / "result.json")  # there means: the run is over


def digest(leaf: Any) -> str:
    if isinstance(leaf, torch.Tensor):
        data = leaf.detach().clone().reshape(-1).view(torch.uint8).numpy().tobytes()
        return f"{leaf.dtype} {tuple(leaf.shape)} {hashlib.sha256(data).hexdigest()}"
    return repr(leaf)


def begin(run_dir: str, *arguments: str) -> None:
    """Train in a process of its own, with its own process group, as a shell starts it."""
    if os.getpgid(0) != os.getpid():
        os.setpgid(0, 0)
    warnings.simplefilter("error", ft.ResumeWarning)
    main(run_dir, *arguments)


if __name__ == "__main__":
    begin(*sys.argv[1:])
