"""A curriculum: data chosen by epoch.   Usage: python examples/11_curriculum.py [folder]

Is the number of ones in a row of 24 bits odd? A recurrent network that is trained on such rows does not find out. One
that begins with one bit, and gets rows with one bit more in each epoch, does. Both see as many rows.
"""

import sys

import torch
from torch import nn
from torch.utils.data import DataLoader, Sampler

import functrain as ft

LONGEST, ROWS = 24, 1024


class Parity(nn.Module):
    def __init__(self):
        super().__init__()
        self.recurrent, self.last = nn.GRU(1, 32, batch_first=True), nn.Linear(32, 1)

    def forward(self, rows):
        return self.last(self.recurrent(rows.unsqueeze(2))[0][:, -1])


class Curriculum(Sampler):
    """Draws as many rows in each epoch, of lengths up to `first + epoch`; `fit` tells it the epoch and seeds it."""

    def __init__(self, lengths, first):
        self.lengths, self.first = lengths, first

    def set_epoch(self, epoch):
        self.chosen = (self.lengths <= self.first + epoch).nonzero().squeeze(1)

    def __len__(self):
        return ROWS

    def __iter__(self):
        return iter(self.chosen[torch.randint(len(self.chosen), (ROWS,))].tolist())


def train(shortest, folder=None, seed=0):
    """The share of new rows of 24 bits that are answered right, after training that begins with `shortest` bits."""
    torch.manual_seed(seed)
    lengths = torch.randint(shortest, LONGEST + 1, (20 * ROWS,))
    bits = torch.randint(2, (len(lengths) + ROWS, LONGEST)).float()
    bits[: len(lengths)] *= torch.arange(LONGEST) >= LONGEST - lengths.unsqueeze(1)  # zeros before a short row
    odd = bits.sum(1, keepdim=True) % 2
    data, test = (ft.data.Arrays(bits[part], odd[part]) for part in (slice(len(lengths)), slice(len(lengths), None)))
    state = ft.init_state(Parity(), ft.binary_classification(), ft.optim.adam(5e-3), seed=seed, clip_norm=1.0)
    loader = DataLoader(data, 64, sampler=Curriculum(lengths, shortest))
    state = ft.fit(state, loader, epochs=50, run_dir=folder, compile=False).state
    return ft.evaluate(state, ft.data.Loader(test, 512, shuffle=False))["accuracy"]


if __name__ == "__main__":
    folder = sys.argv[1] if len(sys.argv) > 1 else "curriculum"
    for shortest in (1, LONGEST):
        print(f"rows of {shortest} to {LONGEST} bits: accuracy {train(shortest, f'{folder}/from-{shortest}'):.1%}")
