"""Models of timm and torchvision, small ones, with random weights."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from measuring import Case
from torch import nn

import functrain as ft

CLASSES = torch.tensor([0, 1, 2, 1])
VIT = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 4}
SWIN = {
    "img_size": 32, "patch_size": 2, "embed_dim": 16, "depths": (1, 1), "num_heads": (2, 2), "window_size": 4,
}  # fmt: skip
STAGES = {"depths": (1, 1, 1, 1), "dims": (8, 16, 16, 32)}
TIMM: dict[str, tuple[dict[str, Any], int]] = {  # name: arguments, size of an image
    "vit_tiny_patch16_224": (VIT, 32),
    "deit_tiny_distilled_patch16_224": (VIT, 32),
    "deit3_small_patch16_224": (VIT, 32),
    "beit_base_patch16_224": (VIT, 32),
    "beitv2_base_patch16_224": (VIT, 32),
    "eva02_tiny_patch14_224": (VIT, 32),
    "cait_xxs24_224": (VIT, 32),
}
TORCHVISION: dict[str, tuple[dict[str, Any], int]] = {}
BY_INDUCTOR = {"vit_tiny_patch16_224", "convnext_atto", "swin_tiny_patch4_window7_224", "densenet121", "convit_tiny"}


def image_classes(build: Callable[[], nn.Module], library: str, size: int, *, inductor: bool = False) -> Case:
    """A model from images to logits."""
    images = torch.randn(4, 3, size, size, generator=torch.Generator().manual_seed(1))
    return Case(
        library=library,
        build=lambda: (build(), (images, CLASSES)),
        objective=ft.classification(),
        loss=lambda model, batch: F.cross_entropy(model(batch[0]), batch[1]),
        inductor=inductor,
    )


def _timm(name: str, arguments: dict[str, Any]) -> nn.Module:
    import timm

    return timm.create_model(name, pretrained=False, num_classes=3, **arguments)


def _torchvision(name: str, arguments: dict[str, Any]) -> nn.Module:
    from torchvision import models

    return models.get_model(name, weights=None, num_classes=3, **arguments)


def _vit() -> nn.Module:
    from torchvision.models import VisionTransformer

    return VisionTransformer(32, 8, num_layers=2, num_heads=4, hidden_dim=32, mlp_dim=64, num_classes=3)


def _convnext() -> nn.Module:
    from torchvision.models.convnext import CNBlockConfig, ConvNeXt

    return ConvNeXt([CNBlockConfig(8, 16, 1), CNBlockConfig(16, None, 1)], num_classes=3)


def _densenet() -> nn.Module:
    from torchvision.models import DenseNet

    return DenseNet(8, (2, 2), 16, num_classes=3, memory_efficient=True)


def cases() -> dict[str, Case]:
    """All of them, by library and name."""
    found = {
        f"timm {name}": image_classes(
            lambda name=name, arguments=arguments: _timm(name, arguments), "timm", size, inductor=name in BY_INDUCTOR
        )
        for name, (arguments, size) in TIMM.items()
    }
    own: dict[str, Callable[[], nn.Module]] = {
        "VisionTransformer": _vit,
        "ConvNeXt": _convnext,
        "DenseNet": _densenet,
    }
    for name, build in own.items():
        found[f"torchvision {name}"] = image_classes(build, "torchvision", 32, inductor=name == "VisionTransformer")
    for name, (arguments, size) in TORCHVISION.items():
        found[f"torchvision {name}"] = image_classes(
            lambda name=name, arguments=arguments: _torchvision(name, arguments), "torchvision", size
        )
    return found
