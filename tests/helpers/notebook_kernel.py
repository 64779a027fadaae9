"""A stand-in for a notebook's kernel: what IPython promises a library, and what the browser would show."""

import sys
import types
from typing import Any

import pytest


class Handle:
    """One output of a cell, with all that was shown in it."""

    def __init__(self) -> None:
        self.pages: list[dict[str, str]] = []

    def update(self, data: dict[str, str], *, raw: bool) -> None:
        assert raw
        self.pages.append(data)


def enter_kernel(monkeypatch: pytest.MonkeyPatch) -> list[Handle]:
    """From here on this process looks like a kernel; returns the outputs that appear."""
    outputs: list[Handle] = []

    def display(data: dict[str, str], *, raw: bool, display_id: bool) -> Handle:
        assert display_id
        outputs.append(Handle())
        outputs[-1].update(data, raw=raw)
        return outputs[-1]

    package: Any = types.ModuleType("IPython")
    part: Any = types.ModuleType("IPython.display")
    package.get_ipython = lambda: types.SimpleNamespace(config={"IPKernelApp": {}})
    package.display, part.display = part, display
    monkeypatch.setitem(sys.modules, "IPython", package)
    monkeypatch.setitem(sys.modules, "IPython.display", part)
    monkeypatch.setattr(sys, "ps1", "In : ", raising=False)  # as IPython does
    return outputs
