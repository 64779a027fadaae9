"""Fine-tuning: frozen layers, layer-wise learning rates, LoRA.   Usage: python examples/18_fine_tuning.py [folder]

A network that reads upright digits learns to read turned ones, from 10 images of each digit. Three ways to fine-tune it
are compared with training anew. The adapters are saved alone.
"""

import sys

import torch
from torch.nn.functional import affine_grid, grid_sample

import functrain as ft
from functrain.models import MLP, add_lora, lora_state_dict


def turned(images):  # by 25 degrees
    matrices = torch.tensor([[0.906, -0.423, 0.0], [0.423, 0.906, 0.0]]).expand(len(images), 2, 3)
    return grid_sample(images, affine_grid(matrices, images.shape, align_corners=False), align_corners=False)


def adamw(lr):
    return ft.optim.adamw(ft.schedules.cosine(lr, total_steps=300, warmup_steps=30), weight_decay=0.05)


def train(folder=None, seed=0):
    """The states, by how they were trained, and their test accuracy on turned digits."""

    def trained(name, data, model, optimizer, freeze=()):
        loader = ft.data.Loader(ft.data.Arrays(data[0].flatten(1), data[1]), 50, num_samples=1500)
        state = ft.init_state(model, ft.classification(), optimizer, seed=seed, clip_norm=1.0, freeze=freeze)
        return ft.fit(state, loader, epochs=10, run_dir=folder and f"{folder}/{name}", compile=False).state

    torch.manual_seed(seed)
    images, labels = ft.data.digits("train", seed=seed).tensors
    base = ft.to_module(trained("base", (images, labels), MLP(64, 10), adamw(3e-3)))
    by_layer = {"layers.6.*": adamw(1e-3), "layers.3.*": adamw(2e-3), "*": adamw(4e-3)}
    ways = {
        "anew": (MLP(64, 10), adamw(3e-3)),
        "frozen": (base, adamw(3e-3), "layers.0.*"),
        "layer-wise": (base, ft.optim.partition(by_layer)),
        "adapters": (add_lora(base, rank=4), adamw(1e-2)),
    }
    few = torch.cat([(labels == digit).nonzero()[:10, 0] for digit in range(10)])
    few_turned = turned(images[few]), labels[few]
    states = {name: trained(name, few_turned, *way) for name, way in ways.items()}
    images, labels = ft.data.digits("test", seed=seed).tensors
    test = ft.data.Loader(ft.data.Arrays(turned(images).flatten(1), labels), 128, shuffle=False)
    return states, {name: ft.evaluate(state, test)["accuracy"] for name, state in states.items()}


if __name__ == "__main__":
    folder = sys.argv[1] if len(sys.argv) > 1 else "fine_tuning"
    states, accuracy = train(folder)
    for name, state in states.items():
        count = sum(state.params[key].numel() for key in state.recipe.network.trainable)
        print(f"{name}: {count:,} parameters trained, test accuracy {accuracy[name]:.1%}")
    adapters = lora_state_dict(ft.to_module(states["adapters"]))
    ft.checkpoint.write_safetensors(adapters, f"{folder}/adapters.safetensors")
