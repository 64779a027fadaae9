"""Spectra of several scans with a mask, and a table: the data of a multimodal model."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from functrain.data.datasets import Arrays
from functrain.foundation.errors import DataError

Numbers = Tensor | np.ndarray


class Spectra(Dataset[Any]):
    """Examples of several scans each, with a row of a table and a target.

    A sample is `(inputs, target)`, inputs a mapping of the model's arguments: "spectra" `[S, L]`, "mask" `[S]`, True
    for scans that there are, and "tabular" `[D]`, if there is a table.

    Args:
        spectra: floating `[N, S, L]`; or for each example its scans `[S_i, L]`, which are padded with 0 to the most
            that an example has.
        targets: `[N]` or `[N, ...]`.
        mask: bool `[N, S]`, True for scans that there are; None: all that were given.
        tabular: floating `[N, D]`, NaN where a value is missing; None: there is no table.
        transform: called as `transform(inputs, target)` for every sample that is read, returns the sample to use.
        classes: the names of the classes in their order, for reports and figures; empty: they are numbers.

    Raises:
        DataError: if there is no example, or one whose scans have another number of bands.
        ValueError: for a mask with scans of several lengths, or shapes that do not fit.

    Example:
        >>> data = Spectra([torch.ones(2, 100), torch.ones(1, 100)], torch.tensor([0, 1]))
        >>> inputs, target = data[1]
        >>> inputs["spectra"].shape, inputs["mask"], target
        (torch.Size([2, 100]), tensor([ True, False]), tensor(1))
    """

    def __init__(
        self,
        spectra: Numbers | Sequence[Numbers],
        targets: Numbers,
        *,
        mask: Numbers | None = None,
        tabular: Numbers | None = None,
        transform: Callable[..., Any] | None = None,
        classes: Sequence[str] = (),
    ) -> None:
        if not isinstance(spectra, (Tensor, np.ndarray)):
            if mask is not None:
                raise ValueError("the scans of each example say how many there are: leave the mask out")
            spectra, mask = pad_scans(spectra)
        if spectra.ndim != 3:
            raise ValueError(f"spectra are [N, S, L], examples of S scans of L bands; got {list(spectra.shape)}")
        if mask is None:
            mask = torch.ones(spectra.shape[:2], dtype=torch.bool)
        if mask.shape != spectra.shape[:2]:
            raise ValueError(f"the mask must be {list(spectra.shape[:2])}, one for each scan; got {list(mask.shape)}")
        tables = {} if tabular is None else {"tabular": tabular}
        columns = {"spectra": spectra, "mask": mask, **tables}
        self._names = tuple(columns)
        self.arrays = Arrays(*columns.values(), targets)
        self.transform, self.classes = transform, tuple(classes)

    @property
    def inputs(self) -> dict[str, Tensor]:
        """All examples, as a batch of the model's arguments."""
        return dict(zip(self._names, self.arrays.tensors))

    @property
    def targets(self) -> Tensor:
        """Of all examples."""
        return self.arrays.tensors[-1]

    def __len__(self) -> int:
        return len(self.arrays)

    def __getitem__(self, index: int) -> Any:
        *parts, target = self.arrays[index]
        inputs = dict(zip(self._names, parts))
        return (inputs, target) if self.transform is None else self.transform(inputs, target)


def pad_scans(scans: Sequence[Numbers]) -> tuple[Tensor, Tensor]:
    """Scans of several examples as one tensor `[N, S, L]`, 0 where an example has fewer, and its mask `[N, S]`.

    Args:
        scans: floating `[S_i, L]` for each example; S_i may be 0.

    Raises:
        DataError: if there is no example, no scan at all, or one with another number of bands.

    Example:
        >>> pad_scans([torch.ones(2, 3), torch.ones(1, 3)])[1]
        tensor([[ True,  True],
                [ True, False]])
    """
    each = [torch.as_tensor(one) for one in scans]
    if not each or not any(len(one) for one in each):
        raise DataError("there is no scan in the data; check the filter or path they come from")
    shapes = {tuple(one.shape[1:]) for one in each}
    if len(shapes) > 1 or any(one.ndim != 2 for one in each):
        found = ", ".join(str(list(one.shape)) for one in each[:4])
        raise DataError(
            f"the scans of each example must be [S, L], with one number of bands L for all; got {found}, ..."
        )
    counts = torch.tensor([len(one) for one in each])
    padded = torch.nn.utils.rnn.pad_sequence(each, batch_first=True)
    return padded, torch.arange(padded.shape[1]) < counts.unsqueeze(1)
