"""TF32: float32 matrix products that NVIDIA's tensor cores compute from 19 bits of their inputs."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch


def matmul_precision() -> str:
    """What `torch.get_float32_matmul_precision` says, which itself raises once the newer flags have been set.

    Returns:
        "highest", "high" (TF32) or "medium".

    Example:
        >>> matmul_precision()
        'highest'
    """
    try:
        return torch.get_float32_matmul_precision()
    except RuntimeError:
        return "high" if torch.backends.cuda.matmul.fp32_precision == "tf32" else "highest"


def tf32_flags() -> dict[str, bool]:
    """Whether products and convolutions on CUDA devices may be computed in TF32.

    Example:
        >>> sorted(tf32_flags())
        ['convolutions', 'products']
    """
    return {
        "products": torch.backends.cuda.matmul.fp32_precision == "tf32",
        "convolutions": torch.backends.cudnn.allow_tf32,
    }


@contextmanager
def tf32(device: torch.device, allowed: bool | None) -> Iterator[None]:
    """Within, float32 products and convolutions on CUDA devices are computed in TF32, or are not; None: as it is set.

    Args:
        device: where will be computed.
        allowed: whether.

    Raises:
        ValueError: if it is asked for on a device that has none.

    Example:
        >>> with tf32(torch.device("cuda"), True):
        ...     tf32_flags()
        {'products': True, 'convolutions': True}

    References:
        https://docs.pytorch.org/docs/stable/notes/cuda.html#tensorfloat-32-tf32-on-ampere-and-later-devices
    """
    if allowed and device.type != "cuda":
        raise ValueError(f"tf32=True needs a CUDA device, and the state is on {device.type!r}; leave tf32 out (None)")
    if allowed is None or device.type != "cuda":
        yield
        return
    with tf32_as({"products": allowed, "convolutions": allowed}):
        yield


@contextmanager
def tf32_as(flags: Mapping[str, bool]) -> Iterator[None]:
    """Within, the flags are as `tf32_flags` gave them once.

    Example:
        >>> with tf32_as({"products": True, "convolutions": False}):
        ...     tf32_flags()
        {'products': True, 'convolutions': False}
    """
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.fp32_precision, cudnn.allow_tf32
    try:
        # The older flags: setting them sets the newer ones, and not the other way round.
        matmul.allow_tf32, cudnn.allow_tf32 = flags["products"], flags["convolutions"]
        yield
    finally:
        matmul.allow_tf32, cudnn.allow_tf32 = before[0] == "tf32", before[1]
        matmul.fp32_precision = before[0]
