"""Which devices a state can be on, told in words."""

import torch


def usable_device(device: torch.device | str | int | None, name: str = "device") -> torch.device | None:
    """The device that is meant; None for None.

    Args:
        device: as a user gives it.
        name: of the argument, for messages.

    Raises:
        ValueError: there is no such device here.

    Example:
        >>> usable_device("cpu"), usable_device(None)
        (device(type='cpu'), None)
    """
    if device is None:
        return None
    there = devices()
    try:
        found = torch.device(device)
        torch.empty(0, device=found)
    except (RuntimeError, AssertionError, TypeError) as error:
        given = repr(device) if isinstance(device, str) else f"'{device}'"
        raise ValueError(
            f"{name} must be one of the devices that torch can use here ({', '.join(there)}); got {given}"
        ) from error
    return found


def devices() -> list[str]:
    """The names of the devices that torch can use."""
    accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    if accelerator is None:
        return ["cpu"]
    numbered = [f"{accelerator.type}:{index}" for index in range(torch.accelerator.device_count())]
    return ["cpu", accelerator.type, *numbered]
