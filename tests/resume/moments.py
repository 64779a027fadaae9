"""Moments of a training process at which a test may kill it: this process says that it is there, and waits.

Nothing in functrain knows of this: `watch` puts wrappers around functions of functrain in the process at hand. One that
functrain no longer has is an AttributeError, not a moment that silently never comes.
"""

import os
import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn

import functrain as ft
from functrain.checkpoint import files, orbax_io
from functrain.compiler import backends, runner
from functrain.loop.output import records
from functrain.loop.resume import opening, saving
from functrain.step import Evaluation

BEGUN = "the script has begun"  # where the clock of kills at a random time starts
# What can be aimed at, and up to which time it is reached that a kill may come.
FIRST = {"the first micro-batch": 1, "before the first checkpoint is begun": 1, "compiling": 2}
WHILE_TRAINING = {
    "between two micro-batches": 9,
    "in a step, its forward pass": 9,
    "in a step, its program run": 9,
    "inside an accumulation window": 5,
    "evaluating": 4,
    "in a log record": 5,
    "at an epoch's end": 1,
    "at an epoch's beginning": 1,
    "while a checkpoint is written": 2,
    "checkpoint written, not renamed": 2,
    "checkpoint renamed": 2,
    "while a checkpoint is deleted": 1,
    "while links are set": 3,
    "while reading a checkpoint": 1,
    "log being cut back": 1,
}
LAST = {"the last micro-batch": 1, "training done, last save": 1}
MOMENTS = FIRST | WHILE_TRAINING | LAST
OF_A_BATCH = {
    "the first micro-batch",
    "the last micro-batch",
    "inside an accumulation window",
    "between two micro-batches",
}

_lock = threading.Lock()  # some moments come in the writer's thread
_aim: dict[str, int] = {}  # the moment aimed at, and how often it is still to come


def aim_at(moment: str, count: int) -> None:
    """From the `count`-th time on that this process comes to that moment, it waits there."""
    assert moment in MOMENTS or moment == BEGUN, f"there is no moment {moment!r}"
    _aim[moment] = count


def reach(moment: str) -> None:
    """The process is there. If that is what was aimed at it says so, and waits to be killed or told to go on.

    The word goes to descriptor 1 and the answer comes from descriptor 0, whatever Python made of stdin and stdout.
    """
    if moment not in _aim:
        return
    with _lock:
        _aim[moment] -= 1
        if _aim[moment] != 0:
            return
    os.write(1, b"reached\n")
    os.read(0, 1)


class Pause(nn.Module):
    """Gives its input back; when trained eagerly, a moment in the middle of the step."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        reach("in a step, its forward pass" if self.training else "evaluating")
        return x


def watch(last_batch: tuple[int, int]) -> list[Any]:
    """Put the wrappers in; the callbacks that `fit` needs besides.

    The one that sees each batch only if its moments are aimed at: without it, a call may do several updates.

    Args:
        last_batch: epoch and number of the last micro-batch.
    """

    def around(owner: Any, name: str, *, before: str = "", after: str = "") -> None:
        wrapped = getattr(owner, name)

        def wrapper(*args: Any, **kwargs: Any) -> Any:
            reach(before)
            result = wrapped(*args, **kwargs)
            reach(after)
            return result

        setattr(owner, name, wrapper)

    around(runner._Program, "__call__", after="in a step, its program run")
    around(backends, "build", before="compiling")
    around(Evaluation, "each", before="evaluating")
    around(files, "make_directory", before="before the first checkpoint is begun")
    around(orbax_io, "save_items", before="while a checkpoint is written", after="while a checkpoint is written")
    around(files, "commit", before="checkpoint written, not renamed", after="checkpoint renamed")
    around(files, "point_link", before="while links are set")
    around(opening, "restore", before="while reading a checkpoint", after="log being cut back")
    around(records, "_csv_lines", before="in a log record")
    around(saving.Saver, "finish", before="training done, last save")
    files.shutil = SimpleNamespace(rmtree=_in_two_parts(files.shutil.rmtree))  # type: ignore[assignment]

    @ft.on("process_batch")
    def batch(event: ft.Event) -> None:
        state = event.state
        if state.step == state.micro_step == 0:
            reach("the first micro-batch")
        if (state.epoch, state.batch_idx) == last_batch:
            reach("the last micro-batch")
        reach("inside an accumulation window" if state.micro_step else "between two micro-batches")

    @ft.on("after_epoch")
    def end(event: ft.Event) -> None:
        reach("at an epoch's end")

    @ft.on("before_epoch")
    def begin(event: ft.Event) -> None:
        reach("at an epoch's beginning")

    return [batch, end, begin] if OF_A_BATCH & _aim.keys() else [end, begin]


def _in_two_parts(rmtree: Callable[..., None]) -> Callable[..., None]:
    def remove(path: Any) -> None:
        some = [os.path.join(root, name) for root, _, names in os.walk(path) for name in names][::2]
        for file in some:
            os.unlink(file)
        reach("while a checkpoint is deleted")
        rmtree(path)

    return remove
