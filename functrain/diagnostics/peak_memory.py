"""The largest memory of a stretch of time."""

from pathlib import Path

import torch

_STATUS, _REFERENCES = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_FORGET_PEAK = "5"  # proc(5): "reset the peak resident set size to the process's current value"


class PeakMemory:
    """Starts with now: on a GPU torch's own count; on a CPU that of the kernel for the whole process.

    Example:
        >>> peak = PeakMemory(torch.device("cpu"))
        >>> peak.bytes() is None or peak.bytes() > 0
        True
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._counts = True
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
            return
        try:
            _REFERENCES.write_text(_FORGET_PEAK)
        except OSError:  # no Linux, or not allowed
            self._counts = False

    def bytes(self) -> int | None:
        """The largest number of bytes since; None where the system does not tell."""
        if self._device.type == "cuda":
            return torch.cuda.max_memory_allocated(self._device)
        if not self._counts:
            return None
        return int(_STATUS.read_text().split("VmHWM:")[1].split()[0]) * 1024
