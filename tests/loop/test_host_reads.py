"""fit waits for the device once in log_every updates: nothing else reads a tensor's value."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from loop_helpers import make_loader, make_state, quick_fit

READS = ("item", "tolist", "numpy", "cpu", "__bool__", "__float__", "__int__", "__index__")


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often values were read, by the method that did it; tensors of the CPU count as if they were a GPU's."""
    counted: Counter[str] = Counter()
    depth = [0]

    def counting(name: str) -> Any:
        read = getattr(torch.Tensor, name)

        def method(self: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
            counted[name] += not depth[0]  # one that calls another is one
            depth[0] += 1
            try:
                return read(self, *args, **kwargs)
            finally:
                depth[0] -= 1

        return method

    for name in READS:
        monkeypatch.setattr(torch.Tensor, name, counting(name))
    monkeypatch.setattr("functrain.loop.skips.reading_is_free", lambda device: False)
    return counted


@pytest.mark.parametrize("on_nonfinite", ["stop", "skip"])
@pytest.mark.parametrize("steps_per_call", [1, 8])
def test_values_are_read_every_log_every_updates_and_then_twice(
    steps_per_call: int, on_nonfinite: str, reads: Counter[str], tmp_path: Path
) -> None:
    state = make_state(ema_decay=0.9, clip_norm=1.0)
    # An epoch of 40 updates: neither run comes to its end.
    data = [batch for _ in range(8) for batch in make_loader(4, drop_last=True)]
    # Compiled: an eager step reads on the CPU whether its update applies, which is free there.
    options = {"compile": True, "backend": "eager", "steps_per_call": steps_per_call}

    def reads_in(steps: int, run_dir: Path | None) -> int:
        reads.clear()
        quick_fit(state, data, steps=steps, log_every=10, on_nonfinite=on_nonfinite, run_dir=run_dir, **options)
        return reads.total()

    # Each time whether updates were refused, and the record, where there is a place for it.
    assert reads_in(30, None) - reads_in(10, None) == 2 * 1
    assert reads_in(30, tmp_path / "longer") - reads_in(10, tmp_path / "shorter") == 2 * 2


def test_a_count_of_reads_sees_one_that_is_made_each_step(reads: Counter[str]) -> None:
    torch.ones(()).item()
    float(torch.ones(()))
    assert bool(torch.ones(()))
    assert reads == {"item": 1, "__float__": 1, "__bool__": 1}
