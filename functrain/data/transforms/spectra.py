"""Transforms of spectra `[..., L]`, whose last dimension is the bands.

`Noise` and `Standardise` are of any tensor; `standardise_scans` fits the latter on scans with a mask.
"""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from functrain.data.transforms.noise import require_floating
from functrain.data.transforms.parts import Parts, changed
from functrain.data.transforms.standardising import Standardise
from functrain.foundation.errors import DataError
from functrain.foundation.keys import generator
from functrain.foundation.numbers import is_integer


@dataclass(frozen=True)
class SNV:
    """Gives each spectrum mean 0 and standard deviation 1 over its bands: the standard normal variate.

    A constant spectrum becomes 0.

    Args:
        of: path or paths of the spectra in a sample; None: the first of a tuple, or "inputs".

    Example:
        >>> SNV()(torch.tensor([1.0, 2.0, 3.0]), 0)
        tensor([-1.2247,  0.0000,  1.2247])

    References:
        Barnes, Dhanoa and Lister, Standard Normal Variate Transformation and De-trending of Near-infrared Diffuse
        Reflectance Spectra, 1989; with the standard deviation of all bands, as in chemotools.
    """

    of: Parts = None

    def __call__(self, sample: Any, key: int = 0) -> Any:  # noqa: ARG002 - nothing is random
        """The sample with its spectra scaled."""

        def scaled(spectra: Tensor) -> Tensor:
            require_floating("SNV", spectra)
            centred = spectra - spectra.mean(-1, keepdim=True)
            deviation = centred.square().mean(-1, keepdim=True).sqrt()
            return centred / torch.where(deviation > 0, deviation, 1.0)

        return changed(sample, self.of, scaled)


@dataclass(frozen=True)
class Derivative:
    """The derivative of a polynomial that is fitted to a window around each band (Savitzky-Golay).

    The bands are taken as 1 apart. Beyond the ends a spectrum goes on with its last value, as in chemotools and scipy's
    `savgol_filter(mode="nearest")`.

    Args:
        order: of the derivative; 0 smooths.
        window: bands, odd.
        polyorder: degree of the polynomial, at least `order` and less than `window`.
        of: path or paths of the spectra in a sample; None: the first of a tuple, or "inputs".

    Raises:
        ValueError: for arguments out of range.

    Example:
        >>> Derivative(window=3, polyorder=1)(torch.tensor([0.0, 2.0, 4.0, 6.0, 8.0]), 0)
        tensor([1., 2., 2., 2., 1.])

    References:
        Savitzky and Golay, Smoothing and Differentiation of Data by Simplified Least Squares Procedures, 1964.
    """

    order: int = 1
    window: int = 15
    polyorder: int = 2
    of: Parts = None

    def __post_init__(self) -> None:
        if not is_integer(self.window, 1) or self.window % 2 == 0:
            raise ValueError(f"window must be an odd number of bands, got {self.window!r}")
        if not is_integer(self.order, 0) or not is_integer(self.polyorder, self.order) or self.polyorder >= self.window:
            raise ValueError(
                f"polyorder must be at least order and less than window; got order={self.order!r}, "
                f"polyorder={self.polyorder!r}, window={self.window!r}"
            )

    def __call__(self, sample: Any, key: int = 0) -> Any:  # noqa: ARG002 - nothing is random
        """The sample with the derivatives of its spectra."""
        return changed(sample, self.of, self._derived)

    def _derived(self, spectra: Tensor) -> Tensor:
        require_floating("Derivative", spectra)
        half = self.window // 2
        flat = spectra.reshape(-1, 1, spectra.shape[-1])
        padded = F.pad(flat, (half, half), mode="replicate")
        found = F.conv1d(padded, self._coefficients().to(spectra.dtype).view(1, 1, -1))
        return found.reshape(spectra.shape)

    def _coefficients(self) -> Tensor:
        """Of the window's values in the derivative at its middle, float64 `[window]`."""
        half = self.window // 2
        places = torch.arange(-half, half + 1, dtype=torch.float64)
        powers = places.unsqueeze(1) ** torch.arange(self.polyorder + 1, dtype=torch.float64)
        factorial = float(torch.arange(1, self.order + 1).prod())
        return torch.linalg.pinv(powers)[self.order] * factorial


@dataclass(frozen=True)
class SpectralCrop:
    """Cuts a window of neighbouring bands: at a random place, or at a given one.

    Args:
        length: of the window, in bands.
        start: its first band; None: at random.
        of: path or paths of the spectra in a sample, which are all cut at one place; None: the first of a tuple, or
            "inputs".

    Raises:
        ValueError: for arguments out of range, or spectra that are shorter.

    Example:
        >>> SpectralCrop(3, start=1)(torch.arange(6.0), 0)
        tensor([1., 2., 3.])
        >>> SpectralCrop(3)(torch.arange(6.0), 7).shape
        torch.Size([3])
    """

    length: int
    start: int | None = None
    of: Parts = None

    def __post_init__(self) -> None:
        if not is_integer(self.length, 1) or not (self.start is None or is_integer(self.start, 0)):
            raise ValueError(
                f"length must be a number of bands and start a band, 0 or more; got {self.length!r} and {self.start!r}"
            )

    def __call__(self, sample: Any, key: int) -> Any:
        """The sample with the window of its spectra."""
        share = float(torch.rand((), generator=generator(key), dtype=torch.float64))

        def cut(spectra: Tensor) -> Tensor:
            spare = spectra.shape[-1] - self.length
            first = int(share * (spare + 1)) if self.start is None else self.start
            if not 0 <= first <= spare:
                raise ValueError(
                    f"there are no {self.length} bands from band {first if spare >= 0 else 0} on: the spectra have "
                    f"{spectra.shape[-1]}; take a smaller length or start"
                )
            return spectra[..., first : first + self.length]

        return changed(sample, self.of, cut)


@dataclass(frozen=True)
class Resample:
    """Interpolates spectra linearly to another number of bands, of which the first and the last stay.

    Args:
        length: bands afterwards, at least 2.
        of: path or paths of the spectra in a sample; None: the first of a tuple, or "inputs".

    Raises:
        ValueError: for another length.

    Example:
        >>> Resample(5)(torch.tensor([0.0, 2.0, 4.0]), 0)
        tensor([0., 1., 2., 3., 4.])
    """

    length: int
    of: Parts = None

    def __post_init__(self) -> None:
        if not is_integer(self.length, 2):
            raise ValueError(f"length must be a whole number of bands, 2 or more; got {self.length!r}")

    def __call__(self, sample: Any, key: int = 0) -> Any:  # noqa: ARG002 - nothing is random
        """The sample with its spectra interpolated."""

        def interpolated(spectra: Tensor) -> Tensor:
            require_floating("Resample", spectra)
            places = torch.linspace(0.0, spectra.shape[-1] - 1, self.length, dtype=torch.float64)
            before = places.floor().long().clamp(0, max(spectra.shape[-1] - 2, 0))
            behind = (before + 1).clamp(max=spectra.shape[-1] - 1)
            share = (places - before).to(spectra.dtype)
            return torch.lerp(spectra[..., before], spectra[..., behind], share)

        return changed(sample, self.of, interpolated)


def standardise_scans(spectra: Tensor, mask: Tensor, *, of: str | None = "0/spectra") -> Standardise:
    """The transform that gives each band mean 0 and standard deviation 1 over the scans that there are.

    Args:
        spectra: floating `[N, S, L]`, those of the training split.
        mask: bool `[N, S]`, True for scans that there are; what is in the others does not count.
        of: path of the spectra in a sample; that of `functrain.data.Spectra` by default.

    Raises:
        DataError: if there is no scan, or one with NaN or infinity.

    Example:
        >>> spectra = torch.tensor([[[1.0, 5.0], [float("nan"), 0.0]], [[3.0, 5.0], [0.0, 0.0]]])
        >>> found = standardise_scans(spectra, torch.tensor([[True, False], [True, False]]))
        >>> found.mean, found.std  # a constant band keeps its unit
        (tensor([2., 5.]), tensor([1., 1.]))
    """
    scans = spectra[mask.bool()].double()
    if not len(scans):
        raise DataError("there is no scan to measure a mean of: the mask leaves all of them out")
    if not scans.isfinite().all():
        raise DataError("a scan that the mask does not leave out has a value that is NaN or infinite: no mean is known")
    std = scans.std(0, correction=0)
    return Standardise(scans.mean(0).float(), torch.where(std > 0, std, 1.0).float(), of)
