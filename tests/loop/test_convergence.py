"""Every optimizer of the registry learns the handwritten digits: more than 95 % of the test images right."""

import pytest
import torch
from torch import nn

import functrain as ft
from functrain.data import Loader, digits

LEARNING_RATES = {
    "sgd": 0.1,
    "asgd": 0.1,
    "adadelta": 1.0,
    "adafactor": 0.03,
    "lion": 1e-3,
    "rprop": 1e-4,
    "rmsprop": 3e-3,
    "muon": 0.02,
    "schedule_free_sgd": 1.0,
}  # of the others 0.01
OPTIMIZERS = {**ft.optim.REGISTRY, "sam": lambda lr: ft.optim.sam(ft.optim.sgd(0.1, momentum=0.9))}
WHOLE_BATCHES = {"rprop"}  # compares the signs of successive gradients, which must be of the same data


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(OPTIMIZERS))
def test_each_optimizer_learns_the_digits(name, record_property):
    torch.manual_seed(0)
    # GroupNorm: BatchNorm's statistics would not be those of a schedule-free optimizer's averages.
    model = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.GroupNorm(4, 16),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1),
        nn.GroupNorm(4, 32),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(32 * 16, 10),
    )
    optimizer = OPTIMIZERS[name](lr=LEARNING_RATES.get(name, 0.01))
    state = ft.init_state(model, ft.classification(), optimizer)
    images = digits("train")
    size, epochs = (len(images), 60) if name in WHOLE_BATCHES else (64, 20)
    result = ft.fit(state, Loader(images, size, shuffle=True), epochs=epochs, compile=False, progress=False)
    accuracy = ft.evaluate(result.state, Loader(digits("test"), 512, shuffle=False), compile=False)["accuracy"]
    record_property("accuracy", accuracy)
    print(f"{name}: {accuracy:.4f}")
    assert accuracy > 0.95
