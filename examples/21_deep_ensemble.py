"""A deep ensemble in one run: eight networks at once.   Usage: python examples/21_deep_ensemble.py [folder]

Eight networks of one form, each with a seed of its own, are one state. One fit trains them in one step, each as it
would train alone. Their mean prediction is better than theirs are on average.
"""

import sys

import torch
from torch import nn
from torch.utils.data import Subset

import functrain as ft

MEMBERS = 8


def member(seed):
    """The state of one network."""
    torch.manual_seed(seed)
    layers = [nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10)]
    return ft.init_state(nn.Sequential(*layers), ft.classification(), ft.optim.adamw(1e-2), seed=seed)


def train(folder=None, seed=0, epochs=40):
    """What the ensemble and its members come to on the test digits, trained on the first 200 of the others."""
    few, test = Subset(ft.data.digits("train"), range(200)), ft.data.Loader(ft.data.digits("test"), 64)
    train = ft.data.Loader(few, 20, shuffle=True)
    stacked = ft.stack([member(MEMBERS * seed + number) for number in range(MEMBERS)])
    result = ft.fit(stacked, train, epochs=epochs, run_dir=folder, compile=False, progress=False)
    return ft.evaluate_ensemble(result.state, test)


def row(name, found):
    """A line of the table."""
    return f"{name:8} accuracy {found['accuracy']:.1%}, loss {found['loss']:.3f}"


if __name__ == "__main__":
    found = train(sys.argv[1] if len(sys.argv) > 1 else "deep_ensemble")
    for number, one in enumerate(found.members):
        print(row(f"member {number}", one))
    print(row("ensemble", found.ensemble))
    print(", ".join(f"{name} {value:.3f}" for name, value in found.uncertainty.items()))
