"""Sampling weights: kept in distribution, a function of (key, epoch, position), and resumed exactly."""

import numpy as np
import pytest
import torch
from data_helpers import LENGTH, tensors
from hypothesis import given
from hypothesis import strategies as st
from sklearn.utils.class_weight import compute_sample_weight
from torch.utils.data import DataLoader, Subset, TensorDataset, WeightedRandomSampler

import functrain as ft
from functrain.data import Arrays, Loader, as_stream, balanced_weights, epoch_order
from functrain.data.sampling import labels_of
from functrain.distributed import World
from functrain.foundation.errors import DataError
from functrain.loop.batches import Feed
from functrain.loop.resume.saving import ResumeRefusedError

WEIGHTS = [0.0, 1.0, 2.0, 5.0, 0.0, 12.0]
EXTREMES = [0.0, 5e-324, 1e-30, 0.1, 7.5, 1e30, 1e308]
weight_lists = st.lists(st.sampled_from(EXTREMES), min_size=1, max_size=40).filter(any)


def as_weights(values):
    return torch.tensor(values, dtype=torch.float64)


def test_each_example_is_drawn_as_often_as_its_weight_says():
    count, weights = 100_000, as_weights(WEIGHTS)
    drawn = epoch_order(3, 0, 6, True, num_samples=count, weights=weights).bincount(minlength=6)
    p = weights / weights.sum()
    # Five standard deviations of a binomial count: with 6 counts, one seed in 300,000 would fail.
    assert ((drawn - count * p).abs() <= 5 * (count * p * (1 - p)).sqrt()).all()
    assert drawn[[0, 4]].tolist() == [0, 0]


@given(weight_lists, st.integers(0, 2**64 - 1), st.integers(0, 50))
def test_only_examples_with_a_weight_are_drawn_whatever_the_weights(values, key, count):
    order = epoch_order(key, 1, len(values), True, num_samples=count, weights=as_weights(values))
    assert (order.dtype, len(order)) == (torch.int64, count)
    assert all(values[index] > 0 for index in order.tolist())
    assert torch.equal(order, epoch_order(key, 1, len(values), True, num_samples=count, weights=as_weights(values)))


def test_draws_are_independent_of_the_unit_of_the_weights():
    units = (1.0, 2.0**-40, 2.0**60, 2.0**-1074, 2.0**1020)  # the last sums would be subnormal, and infinite
    orders = [epoch_order(1, 2, 6, True, weights=as_weights(WEIGHTS) * unit) for unit in units]
    assert all(torch.equal(orders[0], order) for order in orders)


@given(st.lists(st.integers(0, 4), min_size=1, max_size=50))
def test_balanced_weights_are_scikit_learns(labels):
    expected = compute_sample_weight("balanced", labels)
    np.testing.assert_allclose(balanced_weights(labels).numpy(), expected, rtol=1e-15)
    named = balanced_weights([f"class {label}" for label in labels])
    assert torch.equal(named, balanced_weights(torch.tensor(labels, dtype=torch.float32, requires_grad=True)))


@given(st.lists(st.sampled_from([0, 1, 2, -100]), min_size=1, max_size=30).filter(lambda labels: max(labels) >= 0))
def test_examples_without_a_class_are_never_drawn_and_do_not_change_the_weights_of_the_others(labels):
    has_class = np.array(labels) != -100
    expected = np.zeros(len(labels))
    expected[has_class] = compute_sample_weight("balanced", np.array(labels)[has_class])
    missing = {
        "ignored": labels,
        "another index": [255 if label == -100 else label for label in labels],
        "NaN": np.where(has_class, np.array(labels, float), np.nan),
        "None": [None if label == -100 else f"class {label}" for label in labels],
        "NaN among names": np.array([np.nan if label == -100 else f"class {label}" for label in labels], object),
    }
    for kind, given_labels in missing.items():
        found = balanced_weights(given_labels, ignore_index=255 if kind == "another index" else -100)
        np.testing.assert_allclose(found.numpy(), expected, rtol=1e-15, err_msg=kind)
    with pytest.raises(DataError, match="each of the 2 is missing"):
        balanced_weights([-100, -100])


def test_balanced_classes_are_equally_frequent_in_an_epoch():
    labels = torch.cat([torch.zeros(950), torch.ones(50)]).long()
    loader = Loader(Arrays(labels), 100, sampling_weights=balanced_weights(labels), num_samples=20_000)
    assert len(loader) == 200
    rare = sum(int(rows.sum()) for [rows] in loader)
    assert abs(rare - 10_000) <= 5 * (20_000 * 0.25) ** 0.5


def test_epochs_and_keys_are_drawn_anew():
    loader = Loader(tensors(), 4, sampling_weights=torch.linspace(0.1, 1, LENGTH))

    def order(key, epoch):
        return [batch[1].tolist() for batch in as_stream(loader, key).batches(epoch)]

    assert order(3, 0) == order(3, 0)
    assert order(3, 0) != order(3, 1)
    assert order(3, 0) != order(4, 0)


def test_two_ranks_share_out_the_draws_of_one_process():
    """For a sampler of torch's too: every rank draws the whole batch, with generators seeded alike."""
    data = tensors()
    for loader in (
        Loader(data, 4, sampling_weights=torch.linspace(0, 1, LENGTH)),
        DataLoader(data, 4, sampler=WeightedRandomSampler(torch.linspace(0, 1, LENGTH), LENGTH + 1)),
    ):

        def rows(world, loader=loader):
            feed = Feed(as_stream(loader, 7), ft.regression(), torch.device("cpu"), world)
            return [micro.batch[1].tolist() for micro in feed.windows(0, 0, 1, "extend")]

        alone, first, second = rows(World(0, 1)), rows(World(0, 2)), rows(World(1, 2))
        assert [a[0::2] for a in alone] == first
        assert [a[1::2] for a in alone] == second


def train(weights, steps, **kwargs):
    torch.manual_seed(0)
    inputs = torch.randn(40, 3)
    data = Arrays(inputs, inputs.sum(1, keepdim=True))
    state = ft.init_state(torch.nn.Linear(3, 1), ft.regression(), ft.optim.sgd(0.1, momentum=0.9))
    loader = Loader(data, 8, sampling_weights=weights)
    return ft.fit(state, loader, steps=steps, compile=False, progress=False, **kwargs).state


def test_a_run_stopped_within_an_epoch_goes_on_bit_for_bit_and_refuses_other_weights(tmp_path):
    weights = torch.linspace(0, 2, 40)
    whole = train(weights, 12)
    for steps in (3, 8, 12):  # epochs have 5 updates
        resumed = train(weights, steps, run_dir=tmp_path, strict_resume=True)
    assert ft.diff_states(whole, resumed) == []
    with pytest.raises(ResumeRefusedError, match=r"sampling_weights was .*: other examples are drawn"):
        train(weights.flip(0), 14, run_dir=tmp_path, strict_resume=True)


def test_weights_of_a_torch_sampler_are_part_of_what_a_resume_compares():
    def digest(weights):
        loader = DataLoader(tensors(), 4, sampler=WeightedRandomSampler(weights, 9), num_workers=1)
        return as_stream(loader, 0).weights_digest()

    assert digest([1.0] * LENGTH) == digest([1.0] * LENGTH) != digest([2.0] * LENGTH)
    assert as_stream(DataLoader(tensors(), 4), 0).weights_digest() is None


def test_labels_are_found_without_reading_a_sample():
    data = Arrays(torch.zeros(4, 2), torch.tensor([1, 0, 0, 1]))
    assert labels_of(TensorDataset(*data.tensors)).tolist() == [1, 0, 0, 1]
    assert labels_of(Subset(data, [3, 1])).tolist() == [1, 0]
    data.targets = ["b", "a", "a", "b"]
    assert labels_of(data) == ["b", "a", "a", "b"]
    data.targets = ["b", "a"]
    with pytest.raises(ValueError, match=r"\(Arrays\) has 4 examples and 2 `targets`; give it the class of each"):
        labels_of(data)
    data.targets = None
    assert torch.equal(labels_of(data), data.tensors[1])
    for without in ([1, 2, 3], Subset([1, 2, 3], [0])):
        with pytest.raises(TypeError, match=r"\(list\) does not say its labels: give it an attribute `targets`"):
            labels_of(without)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"sampling_weights": [1.0, 2.0]}, r"one number for each of the 3 examples; got the shape \[2\]"),
        ({"sampling_weights": [1.0, -2.0, 0.0]}, "finite and 0 or more; that of example 1 is -2.0"),
        ({"sampling_weights": [1.0, 1.0, float("nan")]}, "that of example 2 is nan"),
        ({"sampling_weights": torch.zeros(3)}, "all 0"),
        ({"sampling_weights": [1.0] * 3, "shuffle": False}, "sampling_weights needs shuffle=True"),
        ({"num_samples": 0}, "num_samples must be an integer >= 1 or None, got 0"),
        ({"num_samples": 5, "shuffle": False}, "num_samples needs shuffle=True"),
    ],
)
def test_weights_that_cannot_be_drawn_by_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        Loader(Arrays(torch.zeros(3)), 1, **arguments)


def test_labels_and_weights_of_a_wrong_kind_are_refused():
    with pytest.raises(TypeError, match="sampling_weights must be numbers, one for each example; got str"):
        Loader(Arrays(torch.zeros(3)), 1, sampling_weights="balanced")
    with pytest.raises(
        ValueError, match=r"one label or group for each example is needed, shape \[N\]; got shape \[2, 2\]"
    ):
        balanced_weights(torch.eye(2))
    with pytest.raises(DataError, match="no labels to balance"):
        balanced_weights([])
