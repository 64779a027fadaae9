"""A text that every Python has: the source of its standard library."""

import importlib.util
from importlib.abc import InspectLoader

import numpy as np
import torch

from functrain.data.datasets import Arrays
from functrain.foundation.errors import DataError

MODULES = {
    "train": (
        *("argparse", "calendar", "configparser", "csv", "dataclasses", "difflib", "enum", "fractions", "gettext"),
        *("heapq", "inspect", "ipaddress", "mailbox", "optparse", "random", "shutil", "statistics", "subprocess"),
        *("tarfile", "textwrap", "typing"),
    ),
    "val": ("selectors", "smtplib", "socketserver"),
    "test": ("tempfile", "threading", "traceback"),
}


def standard_library(split: str = "train", *, length: int = 128) -> Arrays:
    """The source of some modules of Python's standard library as bytes, to foresee each next byte.

    A module is in one split only. The text is that of the running Python, so that another version gives another one.

    Args:
        split: "train" (21 modules), "val" (3) or "test" (3).
        length: bytes of an example.

    Returns:
        Bytes, int64 `[N, length]` in 0..255, and the byte after each of them, likewise.

    Raises:
        ValueError: if an argument is out of range.
        DataError: if this Python has no source of its standard library.

    Example:
        >>> text, following = standard_library("val", length=64)[0]
        >>> bytes(text.tolist())[1:] == bytes(following.tolist())[:-1]
        True
    """
    if split not in MODULES:
        raise ValueError(f"split must be one of {', '.join(map(repr, MODULES))}, got {split!r}")
    if length < 1:
        raise ValueError(f"length must be at least 1, got {length!r}")
    parts = [np.frombuffer(_source(name).encode(), np.uint8) for name in MODULES[split]]
    text = torch.from_numpy(np.concatenate(parts).astype(np.int64))
    count = (len(text) - 1) // length
    if not count:
        raise ValueError(f"length must be less than the {len(text):,} bytes of this split, got {length!r}")
    return Arrays(text[: count * length].view(count, length), text[1 : count * length + 1].view(count, length))


def _source(module: str) -> str:
    spec = importlib.util.find_spec(module)  # it imports nothing
    loader = None if spec is None else spec.loader
    source = loader.get_source(module) if isinstance(loader, InspectLoader) else None
    if source is None:
        raise DataError(f"this Python has no source of its module {module!r}, so there is no text to train on")
    return source
