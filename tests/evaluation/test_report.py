import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from functrain.evaluation import classification_report


def by_hand(truth, found, label):
    """Precision, recall, F1 and support by counting."""
    hits = sum(t == f == label for t, f in zip(truth, found))
    said, are = found.count(label), truth.count(label)
    precision, recall = hits / said if said else 0.0, hits / are if are else 0.0
    f1 = 2 * hits / (said + are) if said + are else 0.0
    return precision, recall, f1, are


@given(pairs=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=30))
@settings(max_examples=30, deadline=None)
def test_scores_equal_counting_by_hand(pairs):
    truth, found = [t for t, _ in pairs], [f for _, f in pairs]
    report = classification_report(torch.eye(4)[found], torch.tensor(truth))
    for scores in report.classes:
        expected = by_hand(truth, found, scores.label)
        assert (scores.precision, scores.recall, scores.f1, scores.support) == pytest.approx(expected, rel=1e-12)
    assert report.accuracy == pytest.approx(sum(t == f for t, f in pairs) / len(pairs), rel=1e-12)
    assert report.macro.f1 == pytest.approx(sum(s.f1 for s in report.classes) / 4, rel=1e-12)
    assert report.macro.support == len(pairs)


def test_ignored_targets_do_not_count():
    logits, targets = torch.eye(3)[[0, 1, 2]], torch.tensor([0, -100, 2])
    report = classification_report(logits, targets)
    assert [scores.support for scores in report.classes] == [1, 0, 1]
    assert report.accuracy == 1.0


def test_refuses_what_is_no_classification():
    with pytest.raises(ValueError, match=r"logits \[N, C\] and integer targets \[N\]; got \[3, 2\] and \[2\]"):
        classification_report(torch.zeros(3, 2), torch.zeros(2, dtype=torch.long))
    with pytest.raises(ValueError, match="every target is ignore_index"):
        classification_report(torch.zeros(1, 2), torch.tensor([-100]))
    for stranger in (-1, 2, 7):
        with pytest.raises(ValueError, match=rf"must be classes 0 to 1, .* or ignore_index \(-100\); got {stranger}"):
            classification_report(torch.eye(2), torch.tensor([1, stranger]))
