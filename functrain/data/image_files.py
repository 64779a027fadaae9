"""Image files as tensors: `[C, H, W]` from 0 to 1, the way up that the camera says."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import numpy as np
import torch
from torch import Tensor

from functrain.data.preprocessing import Preprocessor
from functrain.data.transforms.images import checked_size, resized
from functrain.foundation.errors import DataError

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")
Mode = Literal["grey", "rgb"]
_DEEP = ("I;16", "I;16B", "I;16L", "I", "F")  # grey with more than 8 bits


def is_image(name: str) -> bool:
    """Whether a file's name is an image's; those of hidden files are not.

    Example:
        >>> is_image("a.PNG"), is_image("notes.txt"), is_image("._a.png")
        (True, False, False)
    """
    return Path(name).suffix.lower() in SUFFIXES and not name.startswith(".")


def read_image(path: str | os.PathLike[str], mode: Mode | None = None) -> Tensor:
    """The pixels of an image file, float32 `[C, H, W]` from 0 to 1.

    The image is turned as its EXIF orientation says. Of a file with several pages the first is read.

    Args:
        path: the file.
        mode: "grey" (C = 1) or "rgb" (C = 3); None: as the file is, colour for any that is not grey.

    Raises:
        DataError: if it is no image, or damaged; the message names it.
        ModuleNotFoundError: without pillow.
    """
    try:
        from PIL import Image, ImageOps
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "images are read with pillow, which is not installed. Run: pip install 'functrain[plots]'"
        ) from error
    try:
        with Image.open(path) as image:
            upright = ImageOps.exif_transpose(image)
            pixels = _pixels(upright, mode)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:  # SyntaxError: of a broken PNG
        raise DataError(f"the image {path} cannot be read: {error}") from error
    values = torch.from_numpy(pixels)
    return values[None] if values.ndim == 2 else values.permute(2, 0, 1).contiguous()


def _pixels(image: Any, mode: Mode | None) -> np.ndarray:
    """float32 `[H, W]` or `[H, W, 3]`."""
    if image.mode in _DEEP:
        top = 1 if image.mode == "F" else 65535  # pillow opens some images of 16 bits in its mode of 32
        grey = np.array(image, np.float32) / np.float32(top)
        return np.repeat(grey[..., None], 3, 2) if mode == "rgb" else grey
    is_grey = image.mode in ("1", "L", "LA") if mode is None else mode == "grey"
    return np.array(image.convert("L" if is_grey else "RGB"), np.float32) / np.float32(255)


@dataclass(frozen=True)
class ImagePreprocessor(Preprocessor):
    """How image files become a model's inputs.

    Attributes:
        mode: "grey" or "rgb".
        size: height and width that images are resampled to; None: they stay as they are.
        classes: the names of the classes; empty: not known.
    """

    kind: ClassVar[str] = "images"

    mode: Mode = "rgb"
    size: tuple[int, int] | None = None
    classes: tuple[str, ...] = ()

    def __call__(self, path: str | os.PathLike[str]) -> Tensor:
        """The image in a file, float32 `[C, H, W]`."""
        image = read_image(path, self.mode)
        return image if self.size is None else resized(image, self.size)

    def to_json(self) -> dict[str, Any]:
        """The value as JSON can hold it."""
        size = None if self.size is None else list(self.size)
        return {"kind": self.kind, "mode": self.mode, "size": size, "classes": list(self.classes)}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """The value that `to_json` gave.

        Raises:
            DataError: it is not such a value.
        """
        try:
            size = None if values["size"] is None else checked_size(values["size"])
            if values["mode"] not in ("grey", "rgb"):
                raise ValueError(values["mode"])
            return cls(values["mode"], size, tuple(values["classes"]))
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"the preprocessor is not one of images: {error!r}") from error
