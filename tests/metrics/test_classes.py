"""Counts of classes against scikit-learn, in parts and whole."""

import hypothesis
import hypothesis.strategies as some
import numpy as np
import sklearn.metrics
import torch

from functrain.metrics.classes import accuracy_sums, confusion_matrix

LABELS = some.lists(some.tuples(some.integers(0, 4), some.integers(0, 4), some.integers(0, 3)), min_size=1, max_size=30)


def columns(rows):
    return (torch.tensor(column) for column in zip(*rows))


@hypothesis.given(LABELS)
def test_the_confusion_matrix_is_scikit_learns_and_adds_up(rows):
    predicted, truth, _ = columns(rows)
    whole = confusion_matrix(predicted, truth, 5)
    assert np.array_equal(whole.numpy(), sklearn.metrics.confusion_matrix(truth, predicted, labels=range(5)))
    half = len(rows) // 2
    parts = [confusion_matrix(predicted[part], truth[part], 5) for part in (slice(half), slice(half, None))]
    assert torch.equal(parts[0] + parts[1], whole)


@hypothesis.given(LABELS)
def test_accuracy_is_scikit_learns_with_and_without_weights(rows):
    predicted, truth, weight = columns(rows)
    counted = torch.ones(len(rows), dtype=torch.bool)
    for given in (None, weight):
        right, total = accuracy_sums(predicted == truth, counted, given, torch.float64)
        if total == 0:
            continue
        expected = sklearn.metrics.accuracy_score(truth, predicted, sample_weight=given)
        # Sums of small whole numbers are exact; the quotient and scikit-learn's weighted average round once each.
        torch.testing.assert_close(right / total, torch.tensor(expected, dtype=torch.float64), rtol=1e-15, atol=0)


def test_what_has_no_label_is_not_counted():
    right, total = accuracy_sums(torch.tensor([True, True]), torch.tensor([True, False]), None, torch.float32)
    assert (right, total) == (1, 1)
