"""Masked pre-training, then dense prediction.   Usage: python examples/15_masked_pretraining.py [folder]

Without labels a vision transformer learns to reconstruct images of which three quarters are hidden. Then its encoder,
with another head, learns which digit each pixel belongs to, from 10 labelled images of each digit. It is compared with
an encoder that begins anew. `configs/digits_stages.yaml` does the same in two stages.
"""

import copy
import sys

import torch

import functrain as ft
from functrain.models import DenseViT


def trained(model, objective, loader, epochs, lr, seed, run_dir):
    schedule = ft.schedules.cosine(lr, total_steps=epochs * len(loader), warmup_steps=30)
    optimizer = ft.optim.adamw(schedule, weight_decay=0.05, weight_decay_mask=ft.optim.no_decay_1d)
    state = ft.init_state(model, objective, optimizer, seed=seed, clip_norm=1.0)
    return ft.fit(state, loader, epochs=epochs, run_dir=run_dir, compile=False).state


def train(folder=None, seed=0):
    """The share of the test pixels that are right: with pre-training, and without."""
    sizes = {"size": 8, "patch": 2, "width": 32, "layers": 2}
    torch.manual_seed(seed)
    hidden = ft.data.Loader(ft.data.masked_digits("train", fraction=0.75, seed=seed), 64, num_samples=3840)
    run_dir = folder and f"{folder}/pretraining"
    state = trained(DenseViT(**sizes, out_channels=1), ft.regression(), hidden, 20, 3e-3, seed, run_dir)

    fresh = DenseViT(**sizes, out_channels=11)
    pretrained = copy.deepcopy(fresh)
    pretrained.encoder = ft.to_module(state).encoder
    digits = ft.data.digits("train", seed=seed).tensors[1]
    few = torch.cat([(digits == digit).nonzero()[:10, 0] for digit in range(10)])
    labelled = ft.data.Arrays(*ft.data.segmented_digits("train", seed=seed).take(few))
    loader = ft.data.Loader(labelled, 50, num_samples=1500)
    test, right = ft.data.Loader(ft.data.segmented_digits("test", seed=seed), 128, shuffle=False), []
    for name, model in (("dense", pretrained), ("dense_anew", fresh)):
        state = trained(model, ft.segmentation(), loader, 10, 4e-3, seed, folder and f"{folder}/{name}")
        right.append(ft.evaluate(state, test)["accuracy"])
    return right


if __name__ == "__main__":
    pretrained, anew = train(sys.argv[1] if len(sys.argv) > 1 else "masked_pretraining")
    print(f"right test pixels: {pretrained:.1%} after pre-training, {anew:.1%} without")
