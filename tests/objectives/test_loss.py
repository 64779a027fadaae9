"""Loss and Totals: sums that add up."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from functrain.metrics.totals import SLOTS, Totals, no_totals
from functrain.objectives.loss import Loss


def tensor(value):
    return torch.tensor(value, dtype=torch.float64)


pairs = st.lists(st.tuples(st.floats(-100, 100), st.floats(0.5, 100)), min_size=1, max_size=6)


@given(pairs)
@settings(max_examples=100, deadline=None)
def test_the_mean_of_added_totals_is_the_sum_of_sums_over_the_sum_of_weights(parts):
    totals = [Loss(tensor(t), tensor(w), {"m": (tensor(2 * t), tensor(w / 2))}).totals() for t, w in parts]
    added = totals[0]
    for other in totals[1:]:
        added = added + other
    total, weight = 0.0, 0.0
    for t, w in parts:
        total, weight = total + t, weight + w
    means = added.means()
    assert added.weight.item() == weight
    assert means["loss"].item() == total / weight
    assert means["m"].item() == pytest.approx(4 * total / weight, rel=1e-12)


def test_a_metric_without_weight_of_its_own_takes_the_loss_weight():
    means = Loss(tensor(6.0), tensor(3.0), {"a": tensor(1.5), "b": (tensor(1.5), 2)}).totals().means()
    assert {name: mean.item() for name, mean in means.items()} == {"loss": 2.0, "a": 0.5, "b": 0.75}


def test_weights_and_metrics_may_be_python_numbers():
    assert Loss(tensor(6.0), 3, {"a": 9.0}).totals().means()["a"].item() == 3.0


def test_sums_are_float64_and_their_form_does_not_depend_on_the_metrics():
    few, many = Loss(torch.ones(()), 1.0), Loss(torch.ones(()), 1.0, {str(i): 1.0 for i in range(SLOTS - 1)})
    for loss in (few, many):
        assert loss.totals().sums.shape == no_totals().shape == (2, SLOTS)
        assert loss.totals().sums.dtype == no_totals().dtype == torch.float64
    assert len(many.totals().means()) == SLOTS


def test_no_gradient_flows_through_totals():
    total = torch.ones((), requires_grad=True) * 2
    assert not Loss(total, 1.0, {"m": total}).totals().sums.requires_grad


def test_the_mean_of_nothing_is_nan():
    assert Totals(no_totals(), ("loss",)).means()["loss"].isnan()


def test_totals_without_names_are_neutral():
    totals = Loss(tensor(1.0), 2.0).totals()
    for added in (Totals(no_totals()) + totals, totals + Totals(no_totals())):
        assert added.names == ("loss",)
        assert torch.equal(added.sums, totals.sums)


def test_totals_of_different_metrics_do_not_add():
    with pytest.raises(ValueError, match="totals of different metrics"):
        Loss(tensor(1.0), 1.0, {"a": 1.0}).totals() + Loss(tensor(1.0), 1.0, {"b": 1.0}).totals()


@pytest.mark.parametrize(
    ("metrics", "message"),
    [
        ({str(i): 1.0 for i in range(SLOTS)}, f"at most {SLOTS - 1} metrics beside the loss, got {SLOTS}"),
        ({"loss": 1.0}, "give the metric another name"),
        ({"a": torch.ones(3)}, r"0-d tensors; got one of shape \[3\]"),
    ],
)
def test_metrics_that_cannot_be_kept_are_refused(metrics, message):
    with pytest.raises(ValueError, match=message):
        Loss(torch.ones(()), 1.0, metrics).totals()


def test_a_total_that_is_not_summed_is_refused():
    with pytest.raises(ValueError, match=r"got one of shape \[3\]. Sum it over the examples"):
        Loss(torch.ones(3), 3.0).totals()
