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


def load() -> str:
    """Cores, and how busy they are before we begin."""
    return f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} at the start"
