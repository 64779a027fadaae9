"""Predict in processes that are stopped at given moments, and print what they left: for test_killed_prediction.

Usage: python killed_predictions.py FOLDER. This process imports all that a prediction needs and forks the others.
"""

import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from killed_evaluations import digests, forked

from functrain.app.cli import main
from functrain.app.runs import predict, training  # noqa: F401 - for the processes to be forked
from functrain.checkpoint import orbax_io

CONFIG = """
model: {{name: "predicted_project:{task}"}}
data: {{name: "predicted_project:{task}_data", batch_size: 4}}
objective: {{name: {task}}}
optimizer: {{name: adamw, lr: 1e-2}}
training: {{epochs: 1}}
compile: false
"""

CODE = """
import torch

calls = 0
at_call = lambda number: None

class Counting(torch.nn.Module):
    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, inputs):
        global calls
        calls += 1
        at_call(calls)
        return self.network(inputs)

def drawn(shape, targets):
    generator = torch.Generator().manual_seed(0)
    return torch.utils.data.TensorDataset(torch.randn(8, *shape, generator=generator), targets)

def classification():
    return Counting(torch.nn.Linear(2, 3))

def classification_data(split):
    return drawn([2], torch.arange(8) % 3)

def segmentation():
    return Counting(torch.nn.Conv2d(1, 3, 1))

def segmentation_data(split):
    return drawn([1, 4, 4], torch.zeros(8, 4, 4, dtype=torch.int64))

def regression():
    return Counting(torch.nn.Linear(2, 101))

def regression_data(split):
    return drawn([2], torch.zeros(8, 101))
"""

INPUTS = {"classification": (100, 2), "segmentation": (70, 1, 4, 4), "regression": (70, 2)}
FILES = {"classification": 1, "segmentation": 70, "regression": 70}
MOMENTS = ({"call": 2}, {"replaced": 1}, {"replaced": 40}, {"half": 33})


def predicted(task: str, number: int = 0, call: int = 0, replaced: int = 0, half: int = 0) -> int:
    """`functrain predict`; the process sends itself a signal in the midst of it.

    Args:
        task: which run predicts.
        number: of the signal.
        call: at this call of the model.
        replaced: before this file is put in its place.
        half: when half of this file's bytes are written.
    """
    import predicted_project

    replace, write_bytes, counts = os.replace, Path.write_bytes, {"replaced": 0, "half": 0}

    def at(moment: str) -> bool:
        counts[moment] += 1
        return counts[moment] == {"replaced": replaced, "half": half}[moment]

    def at_call(calls: int) -> None:
        if calls == call:
            os.kill(os.getpid(), number)

    def counted_replace(source: str, target: str) -> None:
        if at("replaced"):
            os.kill(os.getpid(), number)
        replace(source, target)

    def halved(path: Path, content: bytes) -> int:
        if at("half"):
            write_bytes(path, content[: len(content) // 2])
            os.kill(os.getpid(), number)
        return write_bytes(path, content)

    predicted_project.at_call, os.replace, Path.write_bytes = at_call, counted_replace, halved
    return main(["predict", task, f"{task}.npy", "--trust", "--out", f"{task}-out"])


def stopped_and_finished(task: str, number: int) -> dict[str, object]:
    """What processes leave that are stopped by a signal, and what one leaves that is not."""
    kills = []
    for moment in MOMENTS:
        if task == "classification" and max(moment.values()) > 2:
            continue  # a single file
        code = forked(lambda moment=moment: predicted(task, number, **moment))
        shown, hidden = digests(Path(f"{task}-out"))
        kills.append({"moment": moment, "code": code, "shown": shown, "hidden": hidden})
    code = forked(lambda: predicted(task))
    shown, hidden = digests(Path(f"{task}-out"))
    return {"kills": kills, "code": code, "shown": shown, "hidden": hidden}


def removed(folder: Path) -> None:
    for path in sorted(folder.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()


def silently(work: Callable[[], object]) -> object:
    with open(os.devnull, "w") as nothing:
        sys.stdout, output = nothing, sys.stdout
        try:
            return work()
        finally:
            sys.stdout = output


def run(folder: str) -> None:
    os.chdir(folder)
    sys.path.insert(0, os.getcwd())
    torch.set_num_threads(1)  # a fork has no thread but one
    orbax_io.import_orbax()
    Path("predicted_project.py").write_text(CODE)
    for task, shape in INPUTS.items():
        Path(f"{task}.yaml").write_text(CONFIG.format(task=task))
        np.save(f"{task}.npy", np.random.default_rng(0).normal(size=shape).astype(np.float32))
        train = ["train", f"{task}.yaml", "--run-dir", task, "--no-progress"]
        codes = [silently(lambda train=train: forked(lambda: main(train)))]
        codes.append(silently(lambda task=task: forked(lambda: predicted(task))))
        expected, _ = digests(Path(f"{task}-out"))
        for number in (signal.SIGKILL, signal.SIGINT):
            removed(Path(f"{task}-out"))
            found = silently(lambda task=task, number=number: stopped_and_finished(task, number))
            about = {"task": task, "signal": int(number), "codes": codes, "files": FILES[task]}
            print(json.dumps({**about, "expected": expected, **found}))


if __name__ == "__main__":
    run(sys.argv[1])
