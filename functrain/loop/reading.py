"""Metrics become numbers: whoever calls a function of this module waits for the device."""

from collections.abc import Mapping, Sequence

import torch

from functrain.loop.output.records import Record
from functrain.step.state import TrainState
from functrain.step.updates import Updates


def step_record(state: TrainState | Updates, metrics: Mapping[str, torch.Tensor]) -> Record:
    """The record of an update, from the state after it and its metrics."""
    names = {"kind": "step", "epoch": state.epoch + 1, "step": state.step, "samples": state.samples_seen}
    return names | dict(zip(metrics, numbers([value.double() for value in metrics.values()])))


def numbers(scalars: Sequence[torch.Tensor]) -> list[float]:
    """Python numbers of 0-d tensors, read in one transfer."""
    return torch.stack(list(scalars)).tolist() if scalars else []
