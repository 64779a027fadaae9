"""Transforms: pure functions of a sample (or a batch) and a key."""

from collections.abc import Callable, Mapping
from typing import Any

from functrain.data.transforms.applying import Transformed, TransformedBatch
from functrain.data.transforms.composing import Compose
from functrain.data.transforms.images import CenterCrop, Flip, RandomCrop, Resize
from functrain.data.transforms.mixing import CutMix, MixUp
from functrain.data.transforms.noise import Noise
from functrain.data.transforms.parts import BatchTransform, Transform
from functrain.data.transforms.spectra import SNV, Derivative, Resample, SpectralCrop, standardise_scans
from functrain.data.transforms.standardising import Standardise

# What a configuration can name: random changes of the training data.
REGISTRY: Mapping[str, Callable[..., Any]] = {
    "cutmix": CutMix,
    "flip": Flip,
    "mixup": MixUp,
    "noise": Noise,
    "random_crop": RandomCrop,
}

__all__ = [
    "REGISTRY",
    "SNV",
    "BatchTransform",
    "CenterCrop",
    "Compose",
    "CutMix",
    "Derivative",
    "Flip",
    "MixUp",
    "Noise",
    "RandomCrop",
    "Resample",
    "Resize",
    "SpectralCrop",
    "Standardise",
    "Transform",
    "Transformed",
    "TransformedBatch",
    "standardise_scans",
]
