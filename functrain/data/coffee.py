"""Spectra of coffee, which ship with chemotools."""

import importlib.util
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from functrain.data.datasets import SPLITS
from functrain.data.spectra import Spectra
from functrain.data.splits import split as index_split
from functrain.data.transforms.spectra import SNV, Derivative, Resample
from functrain.foundation.errors import DataError

COFFEE_ORIGINS = ("Brasil", "Ethiopia", "Vietnam")
SUMMARIES = ("mean", "deviation", "slope", "noise")
FRACTIONS = (0.6, 0.2, 0.2)
FOLDS = 5


def coffee(
    split: str = "train", *, scans: int = 1, bands: int | None = None, fold: int | None = None, seed: int = 0
) -> Spectra | None:
    """60 infrared spectra of coffee from three countries, 20 each, with a table of what preprocessing takes away.

    A scan is the first derivative of a spectrum (Savitzky-Golay, 15 bands) with mean 0 and standard deviation 1, a
    standard normal variate. The data have no table of their own. Its columns are what a derivative and this scaling
    take away: mean, standard deviation and slope of the spectrum as measured, and the size of its noise.

    Args:
        split: "train", "val" or "test": 36, 12 and 12 spectra, with equal shares of the countries.
        scans: the most scans of an example. With more than one, example i has 1 to `scans` of them, in turn: its own
            spectrum, and further ones of its country and split, as if the coffee had been measured several times.
        bands: interpolate the spectra to so many bands; None: the 1,841 that were measured.
        fold: of a cross-validation, 0 to 4: this fifth of the spectra is "val", and all others are "train". There is
            no "test" then.
        seed: of the split.

    Returns:
        "spectra", float32 `[N, scans, bands]`, and "tabular", float32 `[N, 4]`, each column with mean 0 and standard
        deviation 1 over the training split; "mask", bool `[N, scans]`; the country, int64 `[N]`, a number of
        `COFFEE_ORIGINS`. None, if there is no such split.

    Raises:
        ValueError: if an argument is out of range.
        ModuleNotFoundError: without chemotools.

    References:
        The coffee spectra of chemotools (`chemotools.datasets.load_coffee`): attenuated total reflectance, Fourier
        transform infrared.
    """
    if split not in SPLITS:
        raise ValueError(f"split must be one of {', '.join(map(repr, SPLITS))}, got {split!r}")
    if scans < 1 or (bands is not None and bands < 2):
        raise ValueError(f"scans must be at least 1 and bands at least 2, got {scans!r} and {bands!r}")
    if fold is not None and not 0 <= fold < FOLDS:
        raise ValueError(f"fold must be from 0 to {FOLDS - 1}, got {fold!r}")
    measured, countries = coffee_spectra()
    parts = _parts(countries, fold, seed)
    if split not in parts:
        return None
    prepared = Derivative(window=15)(measured, 0)
    prepared = SNV()(prepared if bands is None else Resample(bands)(prepared, 0), 0)
    train, rows = parts["train"], parts[split]
    chosen, mask = _several(countries[rows], scans)
    return Spectra(
        _scaled(prepared, train)[rows][chosen],
        countries[rows],
        mask=mask,
        tabular=_scaled(_summaries(measured), train)[rows],
        classes=COFFEE_ORIGINS,
    )


def coffee_spectra() -> tuple[Tensor, Tensor]:
    """The spectra as they were measured, float64 `[60, 1841]`, and the countries, int64 `[60]`.

    Raises:
        ModuleNotFoundError: without chemotools.
        DataError: if the installed version has other files.
    """
    found = importlib.util.find_spec("chemotools")
    if found is None or found.origin is None:
        raise ModuleNotFoundError(
            "this data set ships with chemotools, which is not installed. Run: pip install 'functrain[datasets]'"
        )
    # Its own function reads the same files by way of pandas or polars, which it does not install.
    folder = Path(found.origin).parent / "datasets" / "data"
    try:
        spectra = np.loadtxt(folder / "coffee_spectra.csv", delimiter=",", skiprows=1)
        names = (folder / "coffee_labels.csv").read_text(encoding="utf-8").split()[1:]
        countries = [COFFEE_ORIGINS.index(name) for name in names]
    except (OSError, ValueError) as error:
        raise DataError(f"the installed chemotools has no coffee spectra as version 0.5 has them: {error}") from error
    return torch.from_numpy(spectra), torch.tensor(countries)


def _parts(countries: Tensor, fold: int | None, seed: int) -> dict[str, Tensor]:
    if fold is None:
        return dict(zip(SPLITS, index_split(countries, FRACTIONS, seed=seed)))
    folds = index_split(countries, [1 / FOLDS] * FOLDS, seed=seed)
    others = torch.cat([rows for number, rows in enumerate(folds) if number != fold]).sort().values
    return {"train": others, "val": folds[fold]}


def _several(countries: Tensor, scans: int) -> tuple[Tensor, Tensor]:
    """Which spectra are the scans of each example, `[N, scans]`, and which of these there are."""
    chosen = torch.empty(len(countries), scans, dtype=torch.int64)
    for country in countries.unique():
        rows = (countries == country).nonzero().squeeze(1)
        places = torch.arange(len(rows)).unsqueeze(1) + torch.arange(scans)
        chosen[rows] = rows[places % len(rows)]
    count = 1 + torch.arange(len(countries)) % scans
    return chosen, torch.arange(scans) < count.unsqueeze(1)


def _summaries(spectra: Tensor) -> Tensor:
    """`SUMMARIES` of spectra `[N, L]`, `[N, 4]`."""
    place = torch.linspace(-1.0, 1.0, spectra.shape[1], dtype=spectra.dtype)
    slope = (spectra * place).mean(1) / place.square().mean()
    noise = spectra.diff(n=2, dim=1).abs().median(1).values.log()
    return torch.stack([spectra.mean(1), spectra.std(1, correction=0), slope, noise], dim=1)


def _scaled(values: Tensor, training: Tensor) -> Tensor:
    """Columns with mean 0 and standard deviation 1 over the training rows, as float32."""
    known = values[training]
    return ((values - known.mean(0)) / known.std(0, correction=0)).float()
