"""Distillation: a small network imitates a large one.   Usage: python examples/16_distillation.py [folder]

The teacher is the moving average (EMA) of the large network's parameters and BatchNorm statistics. The average is a
leaf of the training state, so it is saved, resumed and evaluated like the parameters.
"""

import sys

import torch

import functrain as ft
from functrain.models import DigitsCNN


def trained(model, objective, data, seed, run_dir):
    loader = ft.data.Loader(data, 64)
    schedule = ft.schedules.cosine(1e-2, total_steps=20 * len(loader), warmup_steps=40)
    optimizer = ft.optim.adamw(schedule, weight_decay=0.05, weight_decay_mask=ft.optim.no_decay_1d)
    average = ft.optim.ema(0.98, warmup=True, average_buffers=True)
    state = ft.init_state(model, objective, optimizer, seed=seed, ema=average)
    return ft.fit(state, loader, epochs=20, run_dir=run_dir, compile=False).state


def train(folder=None, seed=0):
    """The states of the teacher and of the student, and the test accuracy of both."""
    data = {part: ft.data.digits(part, seed=seed) for part in ("train", "test")}
    in_order = {part: ft.data.Loader(data[part], 128, shuffle=False) for part in data}
    torch.manual_seed(seed)
    large, small = DigitsCNN(channels=32, dropout=0.4), DigitsCNN(channels=8, dropout=0.0)
    learned = ft.classification(label_smoothing=0.1)
    teacher = trained(large, learned, data["train"], seed, folder and f"{folder}/teacher")
    taught = ft.data.Arrays(data["train"].tensors[0], ft.predict(teacher, in_order["train"], ema=True))
    imitation = ft.supervised("distillation", options={"temperature": 4.0})
    student = trained(small, imitation, taught, seed, folder and f"{folder}/student")
    states, labels = {"teacher": teacher, "student": student}, data["test"].tensors[1]
    answers = {name: ft.predict(state, in_order["test"], ema=True).argmax(1) for name, state in states.items()}
    return states, {name: (found == labels).double().mean().item() for name, found in answers.items()}


if __name__ == "__main__":
    states, accuracy = train(sys.argv[1] if len(sys.argv) > 1 else "distillation")
    for name, state in states.items():
        count = sum(parameter.numel() for parameter in state.params.values())
        print(f"{name}: {count:,} parameters, test accuracy {accuracy[name]:.1%}")
