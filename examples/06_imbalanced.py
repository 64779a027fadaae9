"""Rare cases: three ways to train, compared on the same patients.   Usage: python examples/06_imbalanced.py [folder]

One breast tumour in eight is malignant. Do balanced batches or a weighted loss find more of them than plain training?
The tests are paired, and corrected for the number of comparisons. (pip install scikit-learn)
"""

import sys

import torch
from torch import nn

import functrain as ft

data = {part: ft.data.breast_cancer(part, malignant=0.25) for part in ("train", "test")}
labels = data["train"].tensors[1]
weighted = ft.binary_classification(options={"pos_weight": float((labels == 0).sum() / (labels == 1).sum())})
ways = {
    "plain": (ft.binary_classification(), None),
    "balanced": (ft.binary_classification(), ft.data.balanced_weights(labels)),
    "weighted": (weighted, None),
}
states = {}
for name, (objective, weights) in ways.items():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(30, 32), nn.ReLU(), nn.Dropout(0.3), nn.Linear(32, 1))
    state = ft.init_state(model, objective, ft.optim.adamw(3e-3, weight_decay=0.05), seed=0)
    loader = ft.data.Loader(data["train"], 32, sampling_weights=weights)
    states[name] = ft.fit(state, loader, epochs=30, progress=False).state

found = ft.compare_models(states, ft.data.Loader(data["test"], 128, shuffle=False), metrics=["recall", "auroc"])
print(found)
ft.write_comparison(found, sys.argv[1] if len(sys.argv) > 1 else "imbalanced")
