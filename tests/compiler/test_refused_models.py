"""A model that reads its tensors' values is refused with the user's line and the way out, and then trains eagerly."""

from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

import functrain as ft
from functrain.foundation.errors import TracingError

X = torch.randn(6, 5, 4, generator=torch.Generator().manual_seed(1))
LENGTHS = torch.tensor([5, 2, 3, 1, 5, 4])
CLASSES = torch.tensor([0, 11, 3, 5, 0, 7])


def squares(model, batch):
    outputs = model(*batch)
    return ft.Loss(outputs.square().sum(), float(len(outputs)))


class Packs(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.LSTM(4, 3, batch_first=True)

    def forward(self, x, lengths, classes):
        packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)  # Packs
        return pad_packed_sequence(self.net(packed)[0], batch_first=True)[0]


class AveragesAllBatches(nn.Module):
    def __init__(self):
        super().__init__()
        self.net, self.norm = nn.Linear(4, 3), nn.BatchNorm1d(5, momentum=None)

    def forward(self, x, lengths, classes):
        return self.net(self.norm(x))  # AveragesAllBatches


class AdaptiveSoftmax(nn.Module):
    def __init__(self):
        super().__init__()
        self.net, self.loss = nn.Linear(4, 8), nn.AdaptiveLogSoftmaxWithLoss(8, 12, [4, 8], div_value=2.0)

    def forward(self, x, lengths, classes):
        return self.loss(self.net(x[:, 0]), classes)[0][None]  # AdaptiveSoftmax


class ChecksLabels(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Linear(4, 3)

    def forward(self, x, lengths, classes):
        if classes.max() >= 12:  # ChecksLabels
            raise ValueError("too large a class")
        return self.net(x)


class Splits(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Linear(4, 3)

    def forward(self, x, lengths, classes):
        parts = x.flatten(0, 1)[: lengths.sum()].split(lengths.tolist())  # Splits
        return torch.stack([self.net(part).mean(0) for part in parts])


@pytest.mark.parametrize("kind", [Packs, AveragesAllBatches, AdaptiveSoftmax, ChecksLabels, Splits])
def test_it_is_refused_by_line_and_trains_without_compiling(kind):
    state = ft.init_state(kind(), squares, ft.optim.sgd(0.01), precision="fp64")
    batch = (X, LENGTHS, CLASSES)
    with pytest.raises(TracingError) as caught:
        ft.compile(ft.train_step, backend="eager")(state, batch)
    source = Path(__file__).read_text().splitlines()
    line = next(number for number, text in enumerate(source, 1) if text.endswith(f"# {kind.__name__}"))
    assert f"{__file__}, line {line}, " in str(caught.value)
    assert "compile=False" in str(caught.value)
    result = ft.fit(state, [batch] * 2, epochs=2, compile=False, progress=False)
    losses = [record["train_loss"] for record in result.history]
    assert result.state.step == 4
    assert losses[1] < losses[0]
