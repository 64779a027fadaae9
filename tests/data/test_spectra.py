"""Spectra: the data set with masks and a table, the coffee, and the transforms."""

import builtins
import importlib.util

import numpy as np
import pytest
import torch
from scipy.signal import savgol_filter

from functrain.data import COFFEE_ORIGINS, Loader, Spectra, coffee, coffee_spectra, pad_scans
from functrain.data.sampling import labels_of
from functrain.data.transforms.spectra import SNV, Derivative, Resample, SpectralCrop, standardise_scans
from functrain.foundation.errors import DataError

PARTS = ("train", "val", "test")
needs_chemotools = pytest.mark.skipif(importlib.util.find_spec("chemotools") is None, reason="needs chemotools")


def spectra(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_scans_of_unequal_number_are_padded_and_masked():
    scans = [spectra(2, 5), spectra(0, 5), spectra(3, 5, seed=1)]
    data = Spectra(scans, torch.tensor([1, 0, 1]), tabular=torch.eye(3))
    assert data.inputs["mask"].tolist() == [[True, True, False], [False] * 3, [True] * 3]
    for number, own in enumerate(scans):
        sample, target = data[number]
        assert torch.equal(sample["spectra"][sample["mask"]], own)
        assert torch.equal(sample["tabular"], torch.eye(3)[number])
        assert target == [1, 0, 1][number]
    assert labels_of(data).tolist() == [1, 0, 1]


def test_a_loader_gives_the_models_arguments_by_name():
    data = Spectra(
        spectra(4, 2, 5), torch.arange(4), transform=lambda inputs, target: ({**inputs, "x": target}, target)
    )
    ((inputs, targets),) = list(Loader(data, 4, shuffle=False))
    assert {name: tuple(each.shape) for name, each in inputs.items()} == {
        "spectra": (4, 2, 5),
        "mask": (4, 2),
        "x": (4,),
    }
    assert targets.tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: Spectra(spectra(4, 5), torch.arange(4)), ValueError, r"spectra are \[N, S, L\].*got \[4, 5\]"),
        (lambda: Spectra(spectra(4, 2, 5), torch.arange(4), mask=torch.ones(4, 3)), ValueError, r"must be \[4, 2\]"),
        (lambda: Spectra([spectra(1, 2)], torch.arange(1), mask=torch.ones(1, 1)), ValueError, "leave the mask out"),
        (lambda: Spectra(spectra(4, 2, 5), torch.arange(3)), ValueError, "same first dimension"),
        (lambda: pad_scans([spectra(1, 4), spectra(1, 5)]), DataError, r"one number of bands.*got \[1, 4\], \[1, 5\]"),
        (lambda: pad_scans([spectra(0, 4)]), DataError, "no scan in the data"),
        (lambda: pad_scans([]), DataError, "no scan in the data"),
    ],
)
def test_data_that_do_not_fit_are_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()


@needs_chemotools
def test_the_coffee_is_that_of_chemotools():
    measured, countries = coffee_spectra()
    assert measured.shape == (60, 1841)
    assert torch.bincount(countries).tolist() == [20, 20, 20]
    pytest.importorskip("pandas")
    from chemotools.datasets import load_coffee

    theirs, labels = load_coffee()
    assert np.array_equal(measured.numpy(), theirs.to_numpy())
    assert [COFFEE_ORIGINS[number] for number in countries] == labels.to_numpy().ravel().tolist()


@needs_chemotools
def test_the_splits_of_the_coffee_are_disjoint_stratified_and_scaled_by_the_training_split_alone():
    parts = [coffee(part, bands=50) for part in PARTS]
    whole = torch.cat([part.inputs["spectra"] for part in parts]).squeeze(1)
    assert len(whole.unique(dim=0)) == len(whole) == 60
    assert [torch.bincount(part.targets).tolist() for part in parts] == [[12] * 3, [4] * 3, [4] * 3]
    for name in ("spectra", "tabular"):
        train, test = (part.inputs[name].double().flatten(1) for part in (parts[0], parts[2]))
        assert train.mean(0).abs().max() < 1e-6
        assert (train.std(0, correction=0) - 1).abs().max() < 1e-6
        assert test.mean(0).abs().max() > 1e-3


@needs_chemotools
def test_each_fold_holds_out_another_fifth():
    assert coffee("test", fold=0) is None
    held = torch.cat([coffee_rows("val", fold) for fold in range(5)])
    assert sorted(held.tolist()) == list(range(60))
    for fold in range(5):
        both = torch.cat([coffee_rows("train", fold), coffee_rows("val", fold)])
        assert sorted(both.tolist()) == list(range(60))


def coffee_rows(part, fold):
    """Which spectra a part has, by the order of their means, which scaling keeps."""
    measured, _ = coffee_spectra()
    means = measured.mean(1)
    whole = torch.cat([coffee(each, fold=fold, bands=10).inputs["tabular"][:, 0] for each in ("train", "val")])
    place = whole.sort().values
    own = coffee(part, fold=fold, bands=10).inputs["tabular"][:, 0]
    return means.argsort()[torch.searchsorted(place, own.contiguous())]


@needs_chemotools
def test_further_scans_are_others_of_the_same_country_and_split():
    single, several = coffee("val", bands=50), coffee("val", scans=3, bands=50)
    assert torch.equal(several.inputs["spectra"][:, :1], single.inputs["spectra"])
    assert several.inputs["mask"].sum(1).tolist() == [1, 2, 3] * 4
    flat = single.inputs["spectra"].squeeze(1)
    for scans, country in zip(several.inputs["spectra"], several.targets, strict=True):
        places = [int((flat == scan).all(1).nonzero()) for scan in scans]
        assert len(set(places)) == 3
        assert all(single.targets[place] == country for place in places)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"split": "dev"}, "split must be one of 'train', 'val', 'test', got 'dev'"),
        ({"scans": 0}, "scans must be at least 1"),
        ({"bands": 1}, "bands at least 2"),
        ({"fold": 5}, "fold must be from 0 to 4, got 5"),
    ],
)
def test_the_coffee_refuses_arguments_out_of_range(arguments, message):
    with pytest.raises(ValueError, match=message):
        coffee(**arguments)


def test_a_missing_chemotools_is_named_with_the_extra(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match=r"ships with chemotools.*pip install 'functrain\[datasets\]'"):
        coffee()


def test_a_chemotools_without_the_files_is_told(monkeypatch, tmp_path):
    spec = importlib.util.spec_from_file_location("chemotools", tmp_path / "__init__.py")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec)
    with pytest.raises(DataError, match="no coffee spectra as version 0"):
        coffee()


@pytest.mark.parametrize(("order", "window", "polyorder"), [(0, 5, 2), (1, 15, 2), (2, 11, 3), (1, 3, 1), (0, 1, 0)])
def test_the_derivative_is_scipys_and_chemotools(order, window, polyorder):
    given = spectra(2, 3, 40)
    found = Derivative(order, window, polyorder)(given, 0)
    expected = savgol_filter(given.numpy(), window, polyorder, deriv=order, mode="nearest")
    np.testing.assert_allclose(found.numpy(), expected, rtol=0, atol=1e-12)


@needs_chemotools
def test_transforms_are_those_of_chemotools():
    from chemotools.derivative import SavitzkyGolay
    from chemotools.scatter import StandardNormalVariate

    given = spectra(4, 40)
    theirs = SavitzkyGolay(11, 3, 2).fit_transform(given.numpy())
    np.testing.assert_allclose(Derivative(2, 11, 3)(given, 0).numpy(), theirs, rtol=0, atol=1e-12)
    theirs = StandardNormalVariate().fit_transform(given.numpy())
    np.testing.assert_allclose(SNV()(given, 0).numpy(), theirs, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("length", [2, 7, 40, 101])
def test_resampling_is_linear_interpolation(length):
    given = spectra(3, 40)
    found = Resample(length)(given, 0)
    places = np.linspace(0, 39, length)
    expected = np.stack([np.interp(places, np.arange(40), row) for row in given.numpy()])
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-12, atol=1e-12)
    assert torch.equal(Resample(40)(given, 0), given)


def test_a_crop_takes_neighbouring_bands_at_a_place_of_the_keys():
    given = torch.arange(30.0).expand(2, 30)
    starts = {int(SpectralCrop(10)(given, key)[0, 0]) for key in range(400)}
    assert starts == set(range(21))
    for key in range(5):
        cut = SpectralCrop(10)(given, key)
        assert torch.equal(cut, given[:, int(cut[0, 0]) :][:, :10])
        assert torch.equal(cut, SpectralCrop(10)(given, key))
    assert torch.equal(SpectralCrop(30)(given, 3), given)


def test_a_constant_spectrum_is_scaled_to_0_and_samples_stay_as_they_were():
    given = torch.full((2, 5), 3.0)
    assert torch.equal(SNV()(given, 0), torch.zeros(2, 5))
    sample = ({"spectra": spectra(2, 20), "mask": torch.ones(2)}, 1)
    before = sample[0]["spectra"].clone()
    for transform in (SNV("0/spectra"), Derivative(of="0/spectra"), Resample(5, of="0/spectra")):
        inputs, target = transform(sample, 7)
        assert target == 1
        assert torch.equal(inputs["mask"], sample[0]["mask"])
        assert not torch.equal(inputs["spectra"], before)
        assert torch.equal(sample[0]["spectra"], before)


def test_standardising_looks_at_the_scans_that_there_are_alone():
    given, mask = spectra(6, 3, 4), torch.rand(6, 3, generator=torch.Generator().manual_seed(1)) < 0.6
    filled = torch.where(mask.unsqueeze(-1), given, float("nan"))
    standardise = standardise_scans(filled, mask)
    inputs, _ = standardise(({"spectra": given}, 0))
    scans = inputs["spectra"][mask].double()
    assert scans.mean(0).abs().max() < 1e-6
    assert (scans.std(0, correction=0) - 1).abs().max() < 1e-6
    with pytest.raises(DataError, match="no scan to measure a mean of"):
        standardise_scans(given, torch.zeros(6, 3))
    with pytest.raises(DataError, match="NaN or infinite"):
        standardise_scans(filled, torch.ones(6, 3))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: Derivative(window=4), ValueError, "window must be an odd number of bands, got 4"),
        (lambda: Derivative(order=3, polyorder=2), ValueError, "polyorder must be at least order"),
        (lambda: Derivative(window=3, polyorder=3), ValueError, "less than window"),
        (lambda: SpectralCrop(0), ValueError, "length must be a number of bands"),
        (lambda: SpectralCrop(9)(torch.zeros(5), 0), ValueError, "no 9 bands from band 0 on: the spectra have 5"),
        (lambda: SpectralCrop(3, start=4)(torch.zeros(5), 0), ValueError, "no 3 bands from band 4 on"),
        (lambda: Resample(1), ValueError, "length must be a whole number of bands, 2 or more; got 1"),
        (lambda: SNV()(torch.zeros(2, 3, dtype=torch.int64), 0), TypeError, "SNV takes floating-point numbers"),
    ],
)
def test_transforms_refuse_what_does_not_fit(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_nothing_of_chemotools_is_imported(monkeypatch):
    ordinary = builtins.__import__

    def without(name, *arguments, **options):
        assert name.partition(".")[0] not in ("chemotools", "pandas", "polars")
        return ordinary(name, *arguments, **options)

    if importlib.util.find_spec("chemotools") is not None:
        monkeypatch.setattr(builtins, "__import__", without)
        coffee_spectra()
