"""What the bits of a run depend on besides its state.

A checkpoint carries this fingerprint; at a resume the differences say why the run may not continue bit for bit.
"""

import os
import platform
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

import numpy as np
import torch

from functrain.data import Stream
from functrain.data.indexed import IndexedStream
from functrain.foundation.tf32 import matmul_precision, tf32_flags
from functrain.loop.resume.changes import changes, numbers_named
from functrain.loop.resume.describing import Description, describe, describe_modules, describe_samples
from functrain.step.state import TrainState

REASONS: Mapping[str, str] = {
    "torch": "kernels may round differently in another version of torch",
    "numpy": "preprocessing may differ in another version of NumPy",
    "device": "kernels of another device round differently",
    "cpu_capability": "vectorised kernels sum in another order on another instruction set",
    "threads": "sums are split among another number of threads",
    "deterministic": "torch.use_deterministic_algorithms selects other kernels",
    "float32_matmul_precision": "matrix products are computed in another precision",
    "tf32": "TF32 rounds the factors of float32 products and convolutions",
    "compile": "compiled and eager steps, and other backends and engines, order their sums differently",
    "machine": "another processor architecture has other kernels",
}

SETTING_REASONS: Mapping[str, str] = {
    "key": "the order of the data and all randomness follow from the seed",
    "data": "other batches give other updates",
    "data_content": "the data set holds other values, which give other updates",
    "sampling_weights": "other examples are drawn, which give other updates",
    "lengths": "the examples are put into other batches, which give other updates",
    "precision": "the step computes in another precision",
    "accumulate": "updates are made of another number of micro-batches",
    "micro_batch": "batches are taken in other parts, whose sums have another order",
    "tail": "the last window of an epoch is made in another way",
    "limit_batches": "an epoch has other batches",
    "overfit_batches": "an epoch has other batches",
    "clip_norm": "gradients are clipped in another way",
    "clip_value": "gradients are clipped in another way",
    "ranks": "sums are split among another number of processes",
    "tensor_parallel": "the sums within layers are split among another number of processes",
    "members": "members are computed together in another way",
    "reduction": "the sums of a window have another order",
}

DESCRIBED: Mapping[str, str] = {
    "optimizer": "updates are made in another way",
    "objective": "another loss is minimised",
    "model": "another function is trained",
    "samples": "other batches give other updates",
}
MOST_CHANGES = 8  # that are said of each


def fingerprint(device: torch.device, compiled: str) -> dict[str, Any]:
    """The environment at this moment.

    Args:
        device: where the state lives.
        compiled: how steps run: "eager", or as `functrain.compiler.request.recorded` says it.

    Returns:
        JSON-able values: those in `REASONS`, and a few for people.
    """
    return {
        "torch": torch.__version__,
        "numpy": np.__version__,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "float32_matmul_precision": matmul_precision(),
        "tf32": tf32_flags() if device.type == "cuda" else None,
        "compile": compiled,
        "machine": platform.machine(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
    }


def settings(state: TrainState, stream: Stream, tail: str) -> dict[str, Any]:
    """What else the bits depend on and is not part of a saved state; of the data a few samples are read.

    Returns:
        JSON-able values, those in `SETTING_REASONS`.
    """
    recipe = state.recipe
    length, size = stream.length(0), stream.batch_size
    content = stream.content_digest() if isinstance(stream, IndexedStream) else None
    weights = stream.weights_digest() if isinstance(stream, IndexedStream) else None
    lengths = stream.lengths_digest() if isinstance(stream, IndexedStream) else None
    return {
        "key": state.key if state.members is None else list(state.members.keys),
        "data": f"{'?' if length is None else length} batches of {'?' if size is None else size} ({stream.kind})",
        **({} if content is None else {"data_content": content}),
        "sampling_weights": weights,
        "lengths": lengths,
        "precision": recipe.precision,
        "accumulate": recipe.accumulate,
        "tail": tail,
        "clip_norm": recipe.clip_norm,
        "clip_value": recipe.clip_value,
        **_sums(state),
        **({} if recipe.stacked is None else {"members": f"{len(recipe.stacked.recipes)}, {recipe.stacked.form}"}),
    }


def _sums(state: TrainState) -> dict[str, Any]:
    """What the order of a window's sums depends on: of sums in a tree not on the number of processes."""
    exchange = state.recipe.exchange
    sliced = {"tensor_parallel": 1 if exchange is None else exchange.processes // exchange.ranks}
    if exchange is not None and exchange.in_tree:
        return {"ranks": 1, "reduction": "exact", **sliced}
    ranks = state.recipe.collectives.ranks if exchange is None else exchange.ranks
    return {"ranks": ranks, "reduction": "fast", **sliced}


def described(state: TrainState, stream: Stream) -> dict[str, Description]:
    """How what the bits depend on is configured, by the names in `DESCRIBED`."""
    recipe = state.recipe
    code = stream.sample_code if isinstance(stream, IndexedStream) else None
    ways: dict[str, Callable[[], Description]] = {
        "optimizer": lambda: describe(recipe.optimizer),
        "objective": lambda: describe(recipe.objective),
        "model": lambda: describe_modules(recipe.network.given()),
        **({} if code is None else {"samples": lambda: describe_samples(*code)}),
    }
    found = {}
    for name, way in ways.items():
        with suppress(Exception):  # somebody's object that raises when it is looked at must not end a run
            found[name] = way()
    return found


def other_descriptions(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """As `differences`, of what `described` gives; learning rates left out."""
    said = []
    for name, reason in DESCRIBED.items():
        if name not in before or name not in now:
            continue
        rates = numbers_named(before[name], "lr") | numbers_named(now[name], "lr") if name == "optimizer" else {}
        parts = [{path: each[name][path] for path in each[name] if path not in rates} for each in (before, now)]
        found = changes(*parts)
        said += [f"of the {name}, {change}: {reason}" for change in found[:MOST_CHANGES]]
        if len(found) > MOST_CHANGES:
            said.append(f"the {name} differs in {len(found) - MOST_CHANGES} more places: {reason}")
    return said


def other_learning_rates(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Which learning rates, if they are numbers, have changed; a resume takes over the new ones."""
    rates = [numbers_named(each.get("optimizer", {}), "lr") for each in (before, now)]
    return changes(*rates) if rates[0].keys() == rates[1].keys() else []


def differences(before: Mapping[str, Any], now: Mapping[str, Any], reasons: Mapping[str, str] = REASONS) -> list[str]:
    """Why a run that began in one environment is not bit-for-bit in another, a sentence each.

    Example:
        >>> differences({"threads": 2}, {"threads": 4})
        ['threads was 2 and is 4: sums are split among another number of threads']
    """
    return [
        f"{name} was {before[name]} and is {now[name]}: {reason}"
        for name, reason in reasons.items()
        if name in before and name in now and before[name] != now[name]
    ]
