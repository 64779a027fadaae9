"""Write the loop yourself over the pure step.   Usage: python examples/02_pure_step.py

A state is a value: keep two, compare them, go back to one. Here the run is repeated from a state that
was kept half-way, and arrives at the same bits.
"""

import torch
from sklearn.datasets import load_digits
from torch import nn

import functrain as ft

images, labels = load_digits(return_X_y=True)
order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))  # the file is sorted by writer
images, labels = torch.tensor(images / 16.0, dtype=torch.float32)[order], torch.tensor(labels)[order]

torch.manual_seed(0)
model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Dropout(0.1), nn.Linear(128, 10))
schedule = ft.schedules.cosine(1e-2, total_steps=300, warmup_steps=20)
state = ft.init_state(model, ft.classification(), ft.optim.adamw(schedule), clip_norm=1.0)
step = ft.compile(ft.train_step)


def run(state: ft.TrainState, stop: int) -> ft.TrainState:
    while state.step < stop:
        rows = torch.randperm(1437, generator=torch.Generator().manual_seed(state.step))[:64]
        state, metrics = step(state, (images[rows], labels[rows]))
        if state.step % 50 == 0:
            print(f"step {state.step:3d}  loss {metrics['loss']:.4f}  lr {metrics['lr']:.5f}")
    return state


half_way = run(state, 150)
once, again = run(half_way, 300), run(half_way, 300)
assert all(torch.equal(once.params[name], again.params[name]) for name in once.params)

totals = ft.eval_step(once, (images[1437:], labels[1437:]))
print(f"test accuracy {totals.means()['accuracy']:.1%}, twice the same bits")
