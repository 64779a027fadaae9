"""Cross-validation: each patient is tested once.   Usage: python examples/12_cross_validation.py [folder]

Five networks, each tested on a fifth of the patients that it has not seen. Each column is standardised by the patients
of the training part alone, so that nothing is known of the others. (pip install scikit-learn)
"""

import sys

import torch
from sklearn.datasets import load_breast_cancer
from sklearn.metrics import roc_auc_score

import functrain as ft
from functrain.models import MLP

FOLDS = 5


def cross_validate(folder=None, seed=0):
    """The labels of all patients, the logits of the networks that have not seen them, and the fold of each patient."""
    values, benign = (torch.tensor(array) for array in load_breast_cancer(return_X_y=True))
    labels = (benign == 0).float().unsqueeze(1)
    logits, folds = torch.zeros_like(labels), torch.zeros(len(labels), dtype=torch.int64)
    for fold, (train, test) in enumerate(ft.data.k_fold(benign, FOLDS, seed=seed)):
        scaled = ((values - values[train].mean(0)) / values[train].std(0)).float()
        torch.manual_seed(seed)
        model = MLP(30, 1, width=32, depth=1, dropout=0.3)
        state = ft.init_state(model, ft.binary_classification(), ft.optim.adamw(3e-3, weight_decay=0.05), seed=seed)
        loader = ft.data.Loader(ft.data.Arrays(scaled[train], labels[train]), 32)
        run_dir = folder and f"{folder}/fold-{fold}"
        state = ft.fit(state, loader, epochs=15, run_dir=run_dir, compile=False, progress=False).state
        logits[test] = ft.predict(state, ft.data.Loader(ft.data.Arrays(scaled[test], labels[test]), 128, shuffle=False))
        folds[test] = fold
    return labels, logits, folds


if __name__ == "__main__":
    labels, logits, folds = cross_validate(sys.argv[1] if len(sys.argv) > 1 else "cross_validation")
    right = (logits > 0) == labels
    accuracies = torch.stack([right[folds == fold].float().mean() for fold in range(FOLDS)])
    print("accuracy of each fold:", ", ".join(f"{accuracy:.1%}" for accuracy in accuracies))
    print(f"test accuracy {accuracies.mean():.1%}, standard error {accuracies.std() / FOLDS**0.5:.1%}")
    print(f"AUROC of all patients {roc_auc_score(labels, logits):.3f}")
