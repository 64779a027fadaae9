"""Rare cases: balanced batches and a tuned threshold.   Usage: python examples/06_imbalanced.py [folder]

One breast tumour in eight is malignant, and three measurements tell little. Plain training is compared with balanced
batches and with a weighted loss, at the threshold 0.5 and at the best one of the validation split. (scikit-learn)
"""

import sys

import torch

import functrain as ft
from functrain.models import MLP

COLUMNS = [1, 4, 8]  # mean texture, smoothness and symmetry of the nuclei


def train(folder=None, seed=0):
    """The trained states, by how they were trained, and the data."""
    data = {}
    for part in ("train", "val", "test"):
        values, labels = ft.data.breast_cancer(part, malignant=0.25, seed=seed).tensors
        data[part] = ft.data.Arrays(values[:, COLUMNS], labels)
    labels = data["train"].tensors[1]
    weighted = ft.binary_classification(options={"pos_weight": float((labels == 0).sum() / (labels == 1).sum())})
    ways = {
        "plain": (ft.binary_classification(), None),
        "balanced": (ft.binary_classification(), ft.data.balanced_weights(labels)),
        "weighted": (weighted, None),
    }
    states = {}
    for name, (objective, weights) in ways.items():
        torch.manual_seed(seed)
        model = MLP(3, 1, width=32, depth=1, dropout=0.3)
        state = ft.init_state(model, objective, ft.optim.adamw(3e-3, weight_decay=0.05), seed=seed)
        loader = ft.data.Loader(data["train"], 32, sampling_weights=weights)
        run_dir = folder and f"{folder}/{name}"
        states[name] = ft.fit(state, loader, epochs=20, run_dir=run_dir, compile=False, progress=False).state
    return states, {part: ft.data.Loader(data[part], 128, shuffle=False) for part in data}


def f1(state, loaders):
    """F1 on the test split: at the threshold 0.5, and at the best one of the validation split."""
    report = ft.evaluation_report(state, loaders["test"], tuning=loaders["val"])
    [row] = [row for row in report.tables[-1].rows if row[0] == "f1"]
    return row[1], row[3]


if __name__ == "__main__":
    folder = sys.argv[1] if len(sys.argv) > 1 else "imbalanced"
    states, loaders = train(folder)
    for name, state in states.items():
        print("{}: F1 {:.3f}, with a tuned threshold {:.3f}".format(name, *f1(state, loaders)))
    found = ft.compare_models(states, loaders["test"], metrics=["recall", "auroc"])
    print(found)
    ft.write_comparison(found, folder)
