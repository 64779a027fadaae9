"""Models of timm and torchvision, small ones, with random weights."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from measuring import Case
from torch import Tensor, nn

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
    "xcit_nano_12_p16_224": (VIT, 32),
    "convit_tiny": (VIT, 32),
    "naflexvit_base_patch16_gap": (VIT, 32),
    "swin_tiny_patch4_window7_224": (SWIN, 32),
    "swinv2_tiny_window8_256": (SWIN, 32),
    "swinv2_cr_tiny_224": (SWIN, 32),
    "convnext_atto": (STAGES, 32),
    "convnextv2_atto": (STAGES, 32),
    "densenet121": ({"growth_rate": 8, "block_config": (2, 2)}, 32),
    "davit_tiny": ({"depths": (1, 1), "embed_dims": (16, 16), "num_heads": (2, 2)}, 64),
    "sequencer2d_s": (
        {"layers": (1, 1, 1, 1), "embed_dims": (16, 16, 16, 16), "hidden_sizes": (8, 8, 8, 8), "img_size": 32},
        32,
    ),
    "resnet10t": ({}, 64),
    "lcnet_035": ({}, 64),
    "mobilenetv3_small_050": ({}, 64),
    "tinynet_e": ({}, 64),
    "mnasnet_small": ({}, 64),
    "starnet_s050": ({}, 64),
    "edgenext_xx_small": ({}, 64),
    "mobilevit_xxs": ({}, 64),
    "mobilevitv2_050": ({}, 64),
    "repghostnet_050": ({}, 64),
    "regnety_002": ({}, 64),
    "efficientvit_b0": ({}, 64),
}
TORCHVISION: dict[str, tuple[dict[str, Any], int]] = {
    "resnet18": ({}, 32),
    "squeezenet1_1": ({}, 64),
    "shufflenet_v2_x0_5": ({}, 64),
    "mobilenet_v3_small": ({}, 64),
    "mnasnet0_5": ({}, 64),
}
GROW = {"convit_tiny"}  # its positions are as large as one image until the first call


def image_classes(build: Callable[[], nn.Module], library: str, size: int, *, called: bool = False) -> Case:
    """A model from images to logits; `called` once before it is trained, if its buffers grow then."""
    images = torch.randn(4, 3, size, size, generator=torch.Generator().manual_seed(1))

    def made() -> tuple[nn.Module, Any]:
        model = build()
        if called:
            model(images)
        return model, (images, CLASSES)

    return Case(
        library=library,
        build=made,
        objective=ft.classification(),
        loss=lambda model, batch: F.cross_entropy(model(batch[0]), batch[1]),
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


def _swin(version: int) -> nn.Module:
    from torchvision.models import swin_transformer as swin

    options: dict[str, Any] = {}
    if version == 2:
        options = {"block": swin.SwinTransformerBlockV2, "downsample_layer": swin.PatchMergingV2}
    return swin.SwinTransformer([2, 2], 16, [1, 1], [2, 2], [4, 4], num_classes=3, **options)


def _convnext() -> nn.Module:
    from torchvision.models.convnext import CNBlockConfig, ConvNeXt

    return ConvNeXt([CNBlockConfig(8, 16, 1), CNBlockConfig(16, None, 1)], num_classes=3)


def _densenet() -> nn.Module:
    from torchvision.models import DenseNet

    return DenseNet(8, (2, 2), 16, num_classes=3, memory_efficient=True)


def _backbone() -> nn.Module:
    backbone = nn.Sequential(
        nn.Conv2d(3, 16, 3, 4, 1), nn.ReLU(), nn.Conv2d(16, 32, 3, 2, 1), nn.BatchNorm2d(32), nn.ReLU()
    )
    backbone.out_channels = 32
    return backbone


def _detector(name: str) -> nn.Module:
    from torchvision.models import detection
    from torchvision.models.detection.anchor_utils import AnchorGenerator

    options: dict[str, Any] = {"min_size": 64, "max_size": 64, "anchor_generator": AnchorGenerator(((16,),), ((1.0,),))}
    if name == "FasterRCNN":
        options["rpn_anchor_generator"] = options.pop("anchor_generator")
        options["box_roi_pool"] = _roi_pool()
        options["box_head"] = detection.faster_rcnn.TwoMLPHead(32 * 9, 32)
        options["box_predictor"] = detection.faster_rcnn.FastRCNNPredictor(32, 3)
        return detection.FasterRCNN(_backbone(), **options)
    return getattr(detection, name)(_backbone(), num_classes=3, **options)


def _roi_pool() -> nn.Module:
    from torchvision.ops import MultiScaleRoIAlign

    return MultiScaleRoIAlign(["0"], output_size=3, sampling_ratio=1)


def detection(name: str) -> Case:
    """A detector, which returns its losses by name."""
    images = list(torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(1)))
    boxes = torch.tensor([[4.0, 4.0, 30.0, 30.0], [20.0, 10.0, 60.0, 50.0]])
    targets = [{"boxes": boxes, "labels": torch.tensor([1, 2])}, {"boxes": boxes[:1] + 3, "labels": torch.tensor([2])}]
    return Case(
        library="torchvision",
        build=lambda: (_detector(name), (images, targets)),
        objective=ft.model_loss(),
        loss=lambda model, batch: sum(model(*batch).values()),
        refused=("aot_eager", "inductor"),
    )


def segmentation() -> Case:
    """A segmentation model, which returns a mapping."""

    def build() -> tuple[nn.Module, Any]:
        from torchvision.models.segmentation import FCN
        from torchvision.models.segmentation.fcn import FCNHead

        class Features(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.layers = _backbone()

            def forward(self, x: Tensor) -> dict[str, Tensor]:
                return {"out": self.layers(x)}

        images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
        labels = torch.randint(3, (2, 32, 32), generator=torch.Generator().manual_seed(2))
        return FCN(Features(), FCNHead(32, 3)), (images, labels)

    return Case(
        library="torchvision",
        build=build,
        objective=ft.segmentation(output="out"),
        loss=lambda model, batch: F.cross_entropy(model(batch[0])["out"], batch[1]),
    )


def cases() -> dict[str, Case]:
    """All of them, by library and name."""
    found = {
        f"timm {name}": image_classes(
            lambda name=name, arguments=arguments: _timm(name, arguments),
            "timm",
            size,
            called=name in GROW,
        )
        for name, (arguments, size) in TIMM.items()
    }
    own: dict[str, Callable[[], nn.Module]] = {
        "VisionTransformer": _vit,
        "SwinTransformer": lambda: _swin(1),
        "SwinTransformerV2": lambda: _swin(2),
        "ConvNeXt": _convnext,
        "DenseNet": _densenet,
    }
    for name, build in own.items():
        found[f"torchvision {name}"] = image_classes(build, "torchvision", 32)
    for name, (arguments, size) in TORCHVISION.items():
        found[f"torchvision {name}"] = image_classes(
            lambda name=name, arguments=arguments: _torchvision(name, arguments), "torchvision", size
        )
    found["torchvision FCN"] = segmentation()
    for name in ("RetinaNet", "FCOS", "FasterRCNN"):
        found[f"torchvision {name}"] = detection(name)
    return found
