"""The parts of a sample that a transform changes, and the base of transforms."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from torch import Tensor

from functrain.foundation.keys import fold_in
from functrain.objectives.batch import replaced

Parts = str | Sequence[str] | None


class Transform(Protocol):
    """A pure function of a sample and a key: the same sample and key give the same result."""

    def __call__(self, sample: Any, key: int, /) -> Any:
        """The sample to use.

        Args:
            sample: as the data set gives it; it is not changed.
            key: 0 <= key < 2**64; all that is random is drawn from `functrain.foundation.keys.generator(key)`.
        """


class BatchTransform(ABC):
    """A pure function of a batch and a key, such as `MixUp`: what it does to an example depends on the others."""

    @abstractmethod
    def __call__(self, batch: Any, key: int) -> Any:
        """The batch to use; the given one is not changed."""


def changed(sample: Any, of: Parts, change: Callable[[Tensor], Tensor]) -> Any:
    """A sample with some of its tensors changed.

    Args:
        sample: a tensor, or tensors in tuples, lists and mappings. It is not changed.
        of: path of the tensor, such as "0", "mask" or "inputs/spectra", or several paths. None: the sample itself, the
            first of a tuple or list, or the item "inputs" of a mapping.
        change: from tensor to tensor.

    Raises:
        ValueError: if there is no such part, or `of` must be given.
        TypeError: if the part is no tensor.

    Example:
        >>> import torch
        >>> changed((torch.ones(2), 7), None, lambda image: image * 2)
        (tensor([2., 2.]), 7)
        >>> changed({"a": torch.ones(1), "b": torch.ones(1)}, "b", lambda value: -value)
        {'a': tensor([1.]), 'b': tensor([-1.])}
    """
    for path in parts_of(sample, of):
        sample = _changed(sample, path.split("/") if path else [], path, change)
    return sample


def parts_of(sample: Any, of: Parts) -> list[str]:
    """The paths of the parts that `of` stands for; the empty path is the sample itself.

    Raises:
        ValueError: if `of` must be given.
    """
    if of is not None:
        return [of] if isinstance(of, str) else list(of)
    if isinstance(sample, (tuple, list)):
        return ["0"]
    if isinstance(sample, Mapping):
        if "inputs" not in sample:
            raise ValueError(f"the sample has the parts {_listed(sample)}: say which one to transform, of=...")
        return ["inputs"]
    return [""]


def uniforms(key: int, count: int) -> list[float]:
    """Numbers from 0 to below 1 that belong to a key, by hashing: a tenth of the time that a new generator takes.

    Example:
        >>> uniforms(7, 2) == uniforms(7, 2), all(0 <= each < 1 for each in uniforms(7, 100))
        (True, True)
    """
    return [(fold_in(key, place) >> 11) * 2.0**-53 for place in range(count)]


def part_at(sample: Any, path: str) -> Tensor:
    """The tensor at a path.

    Raises:
        ValueError: if there is no such part.
        TypeError: if it is no tensor.
    """
    for name in path.split("/") if path else []:
        sample = _item(sample, name, path)
    return _tensor(sample, path)


def _changed(value: Any, names: list[str], path: str, change: Callable[[Tensor], Tensor]) -> Any:
    if not names:
        return change(_tensor(value, path))
    new = _changed(_item(value, names[0], path), names[1:], path, change)
    if isinstance(value, Mapping):
        return replaced(value, names[0], new)
    items = list(value)
    items[int(names[0])] = new
    if isinstance(value, tuple):
        return type(value)(*items) if hasattr(value, "_fields") else tuple(items)
    return items


def _item(value: Any, name: str, path: str) -> Any:
    if isinstance(value, Mapping) and name in value:
        return value[name]
    if isinstance(value, (tuple, list)) and name.isdecimal() and int(name) < len(value):
        return value[int(name)]
    if isinstance(value, (Mapping, tuple, list)):
        raise ValueError(f"of={path!r}: there is no part {name!r}; the parts are {_listed(value)}")
    raise ValueError(f"of={path!r}: there is no part {name!r} in a {type(value).__name__}")


def _tensor(value: Any, path: str) -> Tensor:
    if isinstance(value, Tensor):
        return value
    what = f"the part {path!r} of the sample" if path else "the sample"
    raise TypeError(
        f"transforms take tensors; {what} is a {type(value).__name__}. Convert it in the data set (torch.as_tensor), "
        "or name the part that is a tensor: of=..."
    )


def _listed(value: Any) -> str:
    names = list(value) if isinstance(value, Mapping) else range(len(value))
    return ", ".join(repr(str(name)) for name in names)
