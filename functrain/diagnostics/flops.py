"""Floating-point operations of a step, and what GPUs can do at most."""

from collections.abc import Mapping
from typing import Any

from functrain.foundation.torch_internals import cpu_attention
from functrain.step import TrainState, train_step
from functrain.step.execution import Runner, eager

TERA = 1e12

# Dense matrix products (half of what vendors state "with sparsity"), 10^12 operations a second, by what stands in
# torch.cuda.get_device_name; the first that fits counts.
# Sources: NVIDIA's data sheets of H200, H100 (SXM, NVL, PCIe), A100, L40S, L4, A10 and T4; its white papers on the Ada
# and Ampere (GA102) architectures for the GeForce RTX 4090 and 3090 (float32 accumulation).
PEAKS: Mapping[str, Mapping[str, float]] = {
    "H200": {"bf16": 989.4, "fp16": 989.4, "tf32": 494.7, "fp32": 66.9, "fp64": 66.9},
    "H100 PCIe": {"bf16": 756.0, "fp16": 756.0, "tf32": 378.0, "fp32": 51.0, "fp64": 51.0},
    "H100 NVL": {"bf16": 835.5, "fp16": 835.5, "tf32": 417.5, "fp32": 60.0, "fp64": 60.0},
    "H100": {"bf16": 989.4, "fp16": 989.4, "tf32": 494.7, "fp32": 66.9, "fp64": 66.9},
    "A100": {"bf16": 312.0, "fp16": 312.0, "tf32": 156.0, "fp32": 19.5, "fp64": 19.5},
    "L40S": {"bf16": 362.0, "fp16": 362.0, "tf32": 183.0, "fp32": 91.6},
    "L4": {"bf16": 121.0, "fp16": 121.0, "tf32": 60.0, "fp32": 30.3},
    "A10": {"bf16": 125.0, "fp16": 125.0, "tf32": 62.5, "fp32": 31.2},
    "T4": {"fp16": 65.0, "fp32": 8.1},
    "RTX 4090": {"bf16": 165.2, "fp16": 165.2, "tf32": 82.6, "fp32": 82.6},
    "RTX 3090": {"bf16": 71.0, "fp16": 71.0, "tf32": 35.6, "fp32": 35.6},
}


def peak_flops(name: str, precision: str, *, tf32: bool) -> float | None:
    """The most operations a second of a GPU; None where it is not known, as for every CPU.

    Args:
        name: as `torch.cuda.get_device_name` says it.
        precision: the state's: "fp32", "bf16", "fp16" or "fp64".
        tf32: float32 products may be computed in TF32.

    Example:
        >>> peak_flops("NVIDIA A100-SXM4-80GB", "bf16", tf32=False), peak_flops("Some CPU", "bf16", tf32=False)
        (312000000000000.0, None)
    """
    words = name.replace("-", " ").split()
    if "MIG" in words:  # a part of one
        return None
    for known, peaks in PEAKS.items():
        if set(known.split()) <= set(words):
            found = peaks.get("tf32" if precision == "fp32" and tf32 else precision)
            return None if found is None else found * TERA
    return None


def count_flops(state: TrainState, batch: Any, *, run: Runner = eager, **options: Any) -> int:
    """Operations of the matrix products, convolutions and attention of one eager `train_step`: forward and backward.

    A multiplication and an addition are two; what works element by element (the optimizer, activations) is not counted,
    nor is it in the usual definition of MFU. Attention counts in full, causal or not.

    Args:
        state: not changed.
        batch: a micro-batch.
        run: not a compiling runner.
        options: further arguments of `train_step`.

    Example:
        >>> import functrain as ft, torch
        >>> state = ft.init_state(torch.nn.Linear(8, 4), ft.regression(), ft.optim.sgd(0.1))
        >>> count_flops(state, (torch.ones(16, 8), torch.zeros(16, 4))) == 2 * (2 * 16 * 8 * 4)  # y = x W, dW = x' dy
        True
    """
    with flop_counter() as counter:
        train_step(state, batch, run=run, **options)
    found: int = counter.get_total_flops()
    return found


def flop_counter() -> Any:
    """A context that counts operations: torch's `FlopCounterMode`, which knows the CPU's attention too."""
    from torch.utils.flop_counter import FlopCounterMode

    # The CPU's attention is missing in torch's own table.
    own = dict(zip(cpu_attention(), (_attention, _attention_backward)))
    return FlopCounterMode(display=False, custom_mapping=own)


def _attention(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    from torch.utils.flop_counter import sdpa_flop_count

    return sdpa_flop_count(query, key, value)


def _attention_backward(grad: Any, query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    from torch.utils.flop_counter import sdpa_backward_flop_count

    return sdpa_backward_flop_count(grad, query, key, value)
