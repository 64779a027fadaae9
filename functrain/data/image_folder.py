"""A folder of images with a subfolder for each class, read as they are needed."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset, Subset

from functrain.data.datasets import SPLITS
from functrain.data.image_files import ImagePreprocessor, Mode, is_image
from functrain.data.splits import split as index_split
from functrain.data.transforms.images import Size, checked_size
from functrain.foundation.errors import DataError


class ImageFolder(Dataset[Any]):
    """Images in subfolders whose names are their classes: `root/cat/1.png`, `root/dog/2.jpg`.

    A file is read when its example is. Hidden files, and files that are no images, do not count.

    Args:
        root: the folder.
        mode: "rgb" or "grey".
        size: the edge, or (height, width), that images are resampled to. None: they must have one size.
        classes: the names of all classes in their order, of which some may have no subfolder here. None: the subfolders
            by their letters.

    Attributes:
        files: of the images, by class and name.
        targets: the class of each, int64 `[N]`.
        classes: names.
        preprocessor: what `functrain predict` applies to images.

    Raises:
        DataError: if there is no such folder or no image in a subfolder; a file that cannot be read is named later.
        ValueError: for a size or mode out of range.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        *,
        mode: Mode = "rgb",
        size: Size | None = None,
        classes: Sequence[str] | None = None,
    ) -> None:
        if mode not in ("rgb", "grey"):
            raise ValueError(f"mode must be 'rgb' or 'grey', got {mode!r}")
        self.root = Path(root)
        present = _folders(self.root)
        names = present if classes is None else list(classes)
        unknown = [name for name in present if name not in names]
        if unknown:
            raise DataError(f"{self.root / unknown[0]} is the folder of no class; the classes are {', '.join(names)}")
        found = {name: _images(self.root / name) for name in names}
        empty = [name for name in present if not found[name]]
        if empty:
            raise DataError(
                f"there is no image in {self.root / empty[0]}, the folder of a class; remove it, or fill it"
            )
        self.files = [file for files in found.values() for file in files]
        self.targets = torch.tensor([label for label, files in enumerate(found.values()) for _ in files])
        self.classes = tuple(names)
        self.preprocessor = ImagePreprocessor(mode, None if size is None else checked_size(size), self.classes)
        self._shape: torch.Size | None = None

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        image = self.preprocessor(self.files[index])
        if self.preprocessor.size is None:
            self._check_shape(image, self.files[index])
        return image, self.targets[index]

    def _check_shape(self, image: Tensor, path: Path) -> None:
        """A batch has one size; the first image says which."""
        if self._shape is None:
            self._shape = image.shape if path == self.files[0] else self.preprocessor(self.files[0]).shape
        if image.shape != self._shape:
            height, width = self._shape[1:]
            raise DataError(
                f"the image {path} is {image.shape[1]} x {image.shape[2]} pixels (height x width), the first one, "
                f"{self.files[0]}, {height} x {width}. Resample them to one size: size=[{height}, {width}]"
            )


def image_folder(
    split: str = "train",
    *,
    path: str,
    mode: Mode = "rgb",
    size: Size | None = None,
    fractions: Sequence[float] = (0.6, 0.2, 0.2),
    seed: int = 0,
) -> Any:
    """A folder of images with a subfolder for each class; or with subfolders "train", "val" and "test" of such folders.

    Args:
        split: "train", "val" or "test".
        path: of the folder.
        mode: "rgb" or "grey".
        size: the edge, or [height, width], that images are resampled to; null: they must have one size.
        fractions: shares of the images for the splits, with equal shares of each class; 0: there is no such split. Not
            used where the folder is divided already.
        seed: of the split.

    Returns:
        Images, float32 `[C, H, W]` from 0 to 1, and their classes; None if there is no such split.

    Raises:
        ValueError: if an argument is out of range.
        DataError: if the folder is not there, or a class has no image.
        ModuleNotFoundError: without pillow.
    """
    if split not in SPLITS:
        raise ValueError(f"split must be one of {', '.join(map(repr, SPLITS))}, got {split!r}")
    if len(fractions) != len(SPLITS) or not fractions[0] > 0:
        raise ValueError(
            f"fractions must be the shares of train, val and test, the first above 0; got {list(fractions)}"
        )
    root = Path(path)
    if (root / "train").is_dir():
        classes = _folders(root / "train")
        folder = root / split
        return ImageFolder(folder, mode=mode, size=size, classes=classes) if folder.is_dir() else None
    images = ImageFolder(root, mode=mode, size=size)
    present = [name for name, fraction in zip(SPLITS, fractions, strict=True) if fraction]
    if split not in present:
        return None
    parts = index_split(images.targets, [fraction for fraction in fractions if fraction], seed=seed)
    return Subset(images, parts[present.index(split)].tolist())


def _folders(root: Path) -> list[str]:
    if not root.is_dir():
        raise DataError(f"there is no folder {root} to read images from")
    names = sorted(entry.name for entry in os.scandir(root) if entry.is_dir() and not entry.name.startswith("."))
    if not names:
        raise DataError(f"the folder {root} has no subfolder: images of a class lie in a folder that has its name")
    return names


def _images(folder: Path) -> list[Path]:
    """The images in a folder and those below it, by name."""
    return sorted(Path(place, name) for place, _, names in os.walk(folder) for name in names if is_image(name))
