"""Several tasks, one network: a weighted sum of losses, each logged.   Usage: python examples/03_multi_task.py

The digit and whether it is even, with weights learned by how uncertain each task is, and a penalty that warms up.
"""

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


objective = ft.weighted_sum(
    {
        "digit": ft.term("cross_entropy", output="digit", target="digit"),
        "even": ft.term("binary_cross_entropy", output="even", target="even"),
        "l2": ft.l2_penalty("*.weight"),
    },
    {"digit": "learned", "even": "learned", "l2": ft.schedules.linear(0.0, 100, end=1e-4)},
    metrics={"accuracy": lambda outputs, targets: (outputs["digit"].argmax(1) == targets["digit"]).float()},
)
model = ft.LearnedWeights(TwoHeads(), ("digit", "even"))
loaders = {part: ft.data.Loader(ft.data.digits(part, transform=both), 64) for part in ("train", "test")}
state = ft.init_state(model, objective, ft.optim.adamw(3e-3, weight_decay_mask=ft.optim.no_decay_1d))
last = ft.fit(state, loaders["train"], eval_loader=loaders["test"], epochs=20, compile=False).history[-1]
print(", ".join(f"{name} {last[f'eval_{name}']:.3g}" for name in ("digit", "even", "digit_weight", "even_weight")))
print(f"test accuracy {last['eval_accuracy']:.1%}")
