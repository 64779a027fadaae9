"""Train your own network with `fit`.   Usage: python examples/01_fit.py [folder]

Interrupt it with Ctrl-C and start it again with a folder: it goes on at the very batch.
"""

import sys

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import functrain as ft

images, labels = load_digits(return_X_y=True)
data = TensorDataset(torch.tensor(images / 16.0, dtype=torch.float32), torch.tensor(labels))
train_set, test_set = torch.utils.data.random_split(data, [1437, 360], torch.Generator().manual_seed(0))

torch.manual_seed(0)
model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Dropout(0.1), nn.Linear(128, 10))

state = ft.init_state(model, ft.classification(), ft.optim.adamw(3e-3), seed=0)
result = ft.fit(
    state,
    DataLoader(train_set, batch_size=64, shuffle=True),
    eval_loader=DataLoader(test_set, batch_size=360),
    epochs=20,
    run_dir=sys.argv[1] if len(sys.argv) > 1 else None,
)

print(f"stopped by {result.stopped_by}; test accuracy {result.history[-1]['eval_accuracy']:.1%}")
module = ft.to_module(result.state)  # an ordinary nn.Module again
