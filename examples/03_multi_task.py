"""Several tasks, one network: a weighted sum of losses, each logged.   Usage: python examples/03_multi_task.py [folder]

The digit and whether it is even, with weights learned by how uncertain each task is, and a penalty that warms up.
"""

import sys

import torch
from torch import nn

import functrain as ft


class TwoHeads(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(64, 128), nn.ReLU())
        self.digit, self.even = nn.Linear(128, 10), nn.Linear(128, 1)

    def forward(self, images):
        seen = self.body(images)
        return {"digit": self.digit(seen), "even": self.even(seen).squeeze(1)}


def both(image, digit):
    return image, {"digit": digit, "even": (digit % 2 == 0).float()}


def train(tasks=("digit", "even"), folder=None, seed=0):
    """The record of the last epoch, of a network that is trained for these tasks."""
    terms = {
        "digit": ft.term("cross_entropy", output="digit", target="digit"),
        "even": ft.term("binary_cross_entropy", output="even", target="even"),
    }
    objective = ft.weighted_sum(
        {**{task: terms[task] for task in tasks}, "l2": ft.l2_penalty("*.weight")},
        {**dict.fromkeys(tasks, "learned"), "l2": ft.schedules.linear(0.0, 100, end=1e-4)},
        metrics={
            "accuracy": lambda outputs, targets: (outputs["digit"].argmax(1) == targets["digit"]).float(),
            "even_accuracy": lambda outputs, targets: ((outputs["even"] > 0) == targets["even"]).float(),
        },
    )
    torch.manual_seed(seed)
    model = ft.LearnedWeights(TwoHeads(), tasks)
    loaders = {part: ft.data.Loader(ft.data.digits(part, seed=seed, transform=both), 64) for part in ("train", "test")}
    state = ft.init_state(model, objective, ft.optim.adamw(3e-3, weight_decay_mask=ft.optim.no_decay_1d), seed=seed)
    found = ft.fit(state, loaders["train"], eval_loader=loaders["test"], epochs=20, run_dir=folder, compile=False)
    return found.history[-1]


if __name__ == "__main__":
    last = train(folder=sys.argv[1] if len(sys.argv) > 1 else None)
    print(", ".join(f"{name} {last[f'eval_{name}']:.3g}" for name in ("digit", "even", "digit_weight", "even_weight")))
    print(f"even or odd {last['eval_even_accuracy']:.1%}, test accuracy {last['eval_accuracy']:.1%}")
