"""A pseudo-terminal that shows what it is sent, and what runs send to it."""

import contextlib
import fcntl
import os
import pty
import re
import struct
import termios
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

import functrain as ft
from functrain.loop.output import progress

RECORD = {"kind": "epoch", "epoch": 12, "step": 204, "samples": 12936, "train_loss": 0.52331, "train_accuracy": 1.0}
RECORD |= {"eval_loss": 0.53881, "eval_accuracy": 0.99444}
METRICS = {"loss": torch.tensor(0.5191), "accuracy": torch.tensor(0.98437), "grad_norm": torch.tensor(1.0)}
METRICS |= {"lr": torch.tensor(9.5e-3), "skipped": torch.tensor(0.0)}


class Screen:
    """What a terminal shows of the control codes that the display uses; as wide as it is told."""

    def __init__(self, width: int) -> None:
        self.width, self.rows, self.row, self.column = width, [""], 0, 0

    def feed(self, text: str) -> None:
        for code, count, letter, plain in re.findall(r"(\x1b\[\??([\d;]*)([A-Za-z]))|([^\x1b])", text):
            if plain:
                self._put(plain)
            elif letter == "A":
                self.row -= int(count or 1)
            elif letter == "J":
                del self.rows[self.row + 1 :]
                self.rows[self.row] = self.rows[self.row][: self.column]
            elif letter == "K":
                self.rows[self.row] = ""
            else:
                assert letter in "mhl", code

    def _put(self, character: str) -> None:
        if character == "\r":
            self.column = 0
            return
        if character == "\n" or self.column == self.width:
            self.row, self.column = self.row + 1, 0
            self.rows += [""] * (self.row + 1 - len(self.rows))
        if character != "\n":
            line = self.rows[self.row].ljust(self.column)
            self.rows[self.row] = line[: self.column] + character + line[self.column + 1 :]
            self.column += 1

    def lines(self) -> list[str]:
        return [row.rstrip() for row in self.rows if row.strip()]


class Terminal:
    """A pseudo-terminal in the place of standard error."""

    def __init__(self) -> None:
        self._reader, self._writer = pty.openpty()
        os.set_blocking(self._reader, False)
        self.stderr = os.fdopen(self._writer, "w", encoding="utf-8")
        self._stdin = os.dup(0)
        os.dup2(self._writer, 0)  # where rich looks first for the width
        self.screen = Screen(80)
        self.text = ""

    def resize(self, width: int) -> None:
        fcntl.ioctl(self._writer, termios.TIOCSWINSZ, struct.pack("HHHH", 24, width, 0, 0))
        self.screen.width = width

    def lines(self) -> list[str]:
        """What is on the screen."""
        self.read()
        return self.screen.lines()

    def read(self) -> None:
        """Take what was written; a terminal that is not read soon lets its writer wait."""
        self.stderr.flush()
        with contextlib.suppress(BlockingIOError):
            while True:
                text = os.read(self._reader, 65536).decode()
                self.screen.feed(text)
                self.text += text

    def hang_up(self) -> None:
        """Nobody reads it any more, and writing to it is an error."""
        os.close(self._reader)
        self._reader = -1

    def close(self) -> None:
        os.dup2(self._stdin, 0)
        os.close(self._stdin)
        with contextlib.suppress(OSError):
            self.stderr.close()
        if self._reader >= 0:
            os.close(self._reader)


def make_state(**counters: Any) -> ft.TrainState:
    state = ft.init_state(nn.Linear(1, 1), ft.regression(), ft.optim.sgd(0.1))
    return state.replace(**counters)


def train(terminal: Terminal, bar: progress.Display, steps: range, forward: Callable[[float], None]) -> None:
    for step in steps:
        forward(1.0)
        bar.step(make_state(epoch=step // 17, samples_seen=64 * step), METRICS)
        terminal.read()
