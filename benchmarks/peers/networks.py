"""What is trained: four networks, and data for them in memory. Imports NumPy; torch when a model is made."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

LR = 1e-3  # AdamW's other settings are torch's defaults, for all
BETAS, EPS, WEIGHT_DECAY = (0.9, 0.999), 1e-8, 1e-2

Arrays = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Network:
    """A network and the work of one round.

    Attributes:
        title: for people.
        batch: examples in a batch.
        steps: updates in a round, an epoch of so many batches.
        model: makes the torch module.
        data: makes inputs and targets of so many examples.
        tokens: the targets are sequences.
    """

    title: str
    batch: int
    steps: int
    model: Callable[[], Any]
    data: Callable[[int], Arrays]
    tokens: bool = False

    def arrays(self) -> Arrays:
        return self.data(self.batch * self.steps)


def _tiny() -> Any:
    from torch import nn

    return nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))


def _digits() -> Any:
    from functrain.models import DigitsCNN

    return DigitsCNN()


def _transformer() -> Any:
    from benchmarks.gpt import GPT, Size

    return GPT(Size(layers=4, width=192, heads=6, tokens=128, vocabulary=256))


def _wide() -> Any:
    from torch import nn

    layers = [nn.Linear(2048, 2048) for _ in range(8)]
    return nn.Sequential(*(module for layer in layers for module in (layer, nn.ReLU())))[:-1]


def _vectors(width: int, classes: int) -> Callable[[int], Arrays]:
    def make(count: int) -> Arrays:
        generator = np.random.default_rng(0)
        return (
            generator.standard_normal((count, width), dtype=np.float32),
            generator.integers(0, classes, count),
        )

    return make


def _images(count: int) -> Arrays:
    inputs, targets = _vectors(64, 10)(count)
    return inputs.reshape(count, 1, 8, 8), targets


def _text(count: int) -> Arrays:
    text = np.random.default_rng(0).integers(0, 256, (count, 129))
    return np.ascontiguousarray(text[:, :-1]), np.ascontiguousarray(text[:, 1:])


NETWORKS = {
    "tiny": Network("tiny (64-64-64-10, batch 32)", 32, 500, _tiny, _vectors(64, 10)),
    "digits": Network("digits CNN (batch 32)", 32, 60, _digits, _images),
    "transformer": Network("4-layer transformer (batch 8, 128 tokens, d=192)", 8, 8, _transformer, _text, tokens=True),
    "wide": Network("8 x Linear(2048) (batch 32)", 32, 8, _wide, _vectors(2048, 2048)),
}
