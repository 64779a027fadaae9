"""What the figures were measured on. Imports the standard library."""

import os
import platform
from pathlib import Path


def cpu() -> str:
    """The processor's name."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor()


def said(met: bool) -> str:
    """Of a goal."""
    return "met" if met else "**missed**"


def load() -> str:
    """Cores, and how busy they are before we begin."""
    return f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} at the start"


def write(path: Path, title: str, command: str, doc: str | None, text: str) -> None:
    """A page of results: how it was made, what it means, and the figures."""
    explanation = (doc or "").split("\n", 2)[2]  # without the line on usage
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"# {title}\n\n`{command}`\n\n{explanation}\n{text}")
