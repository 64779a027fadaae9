"""Contrastive pre-training, then a linear probe.   Usage: python examples/14_contrastive.py [folder]

Without labels the encoder learns which two of many distorted images were the same one (InfoNCE). A linear classifier of
its 6 features then shows what it has learned, compared with the same classifier of an untrained encoder's features.
"""

import sys

import torch
from torch import nn
from torch.nn.functional import affine_grid, grid_sample

import functrain as ft
from functrain.models import MLP


def view(images):
    """The images, each turned, sheared, scaled and shifted a little. What is drawn is a function of the run's key."""
    matrices = torch.eye(2, 3) + 0.12 * torch.randn(len(images), 2, 3)
    return grid_sample(images, affine_grid(matrices, images.shape, align_corners=False), align_corners=False)


class TwoViews(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(nn.Flatten(), MLP(64, 6))
        self.projection = MLP(6, 16, width=32, depth=1)

    def forward(self, images):
        return {name: self.projection(self.encoder(view(images))) for name in ("one", "two")}


def probe(encoder, data, run_dir, seed):
    """Test accuracy of a linear classifier of the encoder's features."""
    with torch.no_grad():
        features = {part: encoder(data[part].tensors[0]) for part in data}
    std, mean = torch.std_mean(features["train"], 0)
    known = {part: ft.data.Arrays((features[part] - mean) / std, data[part].tensors[1]) for part in data}
    torch.manual_seed(seed)
    state = ft.init_state(nn.Linear(6, 10), ft.classification(), ft.optim.adamw(0.1), seed=seed)
    state = ft.fit(state, ft.data.Loader(known["train"], 128), epochs=12, run_dir=run_dir, compile=False).state
    return ft.evaluate(state, ft.data.Loader(known["test"], 128, shuffle=False))["accuracy"]


def train(folder=None, seed=0):
    """Test accuracy of the probes, of the pre-trained encoder and of the untrained one."""
    data = {part: ft.data.digits(part, seed=seed) for part in ("train", "test")}
    torch.manual_seed(seed)
    model, loader = TwoViews(), ft.data.Loader(data["train"], 256, num_samples=5120)
    schedule = ft.schedules.cosine(3e-3, total_steps=15 * len(loader), warmup_steps=20)
    objective = ft.weighted_sum({"info_nce": ft.contrastive("one", "two", temperature=0.2)})
    state = ft.init_state(model, objective, ft.optim.adamw(schedule), seed=seed)
    state = ft.fit(state, loader, epochs=15, run_dir=folder and f"{folder}/pretraining", compile=False).state
    encoders = {"probe": ft.to_module(state).encoder, "untrained_probe": model.encoder}
    return [probe(encoders[name], data, folder and f"{folder}/{name}", seed) for name in encoders]


if __name__ == "__main__":
    learned, untrained = train(sys.argv[1] if len(sys.argv) > 1 else "contrastive")
    print(f"a linear probe: test accuracy {learned:.1%} after pre-training, {untrained:.1%} of an untrained encoder")
