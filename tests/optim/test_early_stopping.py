"""The stopping rule against its definition on the whole history."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from functrain import optim
from functrain.foundation import trees

METRICS = st.lists(
    st.one_of(st.integers(-8, 8).map(lambda n: n / 8), st.sampled_from([math.nan, math.inf])), min_size=1, max_size=30
)


def improvements(metrics, mode, min_delta):
    """The indices of the metrics that beat every improvement before by more than min_delta."""
    found = []
    for index, metric in enumerate(metrics):
        sign = 1 if mode == "min" else -1
        if not math.isfinite(metric):
            continue
        if all(sign * (metrics[earlier] - metric) > min_delta for earlier in found):
            found.append(index)
    return found


@given(
    metrics=METRICS,
    patience=st.integers(1, 4),
    min_delta=st.sampled_from([0.0, 0.125, 0.3]),
    mode=st.sampled_from(["min", "max"]),
    cooldown=st.integers(0, 5),
    restore_best=st.booleans(),
)
def test_it_stops_after_so_many_counted_evaluations_since_the_last_improvement(
    metrics, patience, min_delta, mode, cooldown, restore_best
):
    # An infinity is as bad as a metric can be, in either mode, or no improvement on itself.
    metrics = [-metric if mode == "max" and metric == math.inf else metric for metric in metrics]
    rule = optim.early_stopping(patience, min_delta, mode, cooldown, restore_best)
    state, better = rule.init(), improvements(metrics, mode, min_delta)
    for index, metric in enumerate(metrics):
        state, decision = rule.update(state, metric)
        so_far = [i for i in better if i <= index]
        last = so_far[-1] if so_far else -1
        bad = sum(i >= cooldown for i in range(last + 1, index + 1))
        assert decision.improved == (last == index)
        assert decision.stop == (bad >= patience)
        assert decision.restore_best == (decision.stop and restore_best)
        assert (state.best_evaluation, state.evaluations) == (last + 1, index + 1)
        assert state.num_bad_epochs == bad
        if so_far:
            assert state.best == metrics[last]


@given(metrics=METRICS, split=st.integers(0, 29))
def test_going_on_from_a_state_equals_never_having_stopped(metrics, split):
    rule = optim.early_stopping(2)
    state, decisions = rule.init(), []
    for metric in metrics[:split]:
        state, _ = rule.update(state, metric)
    copied = trees.unflatten(trees.structure(state), trees.leaves(state))
    for metric in metrics[split:]:
        state, decision = rule.update(state, metric)
        copied, again = rule.update(copied, metric)
        decisions.append(decision == again)
    assert all(decisions)
    assert copied == state


def test_a_state_is_a_tree_of_host_numbers_of_stable_types():
    rule = optim.early_stopping()
    state = rule.init()
    for metric in (1, 2.0, math.nan):
        assert [type(leaf) for leaf in trees.leaves(state)] == [float, int, int, int]
        state, _ = rule.update(state, metric)


@pytest.mark.parametrize(
    ("kwargs", "error", "message"),
    [
        ({"patience": 0}, ValueError, "patience must be >= 1, got 0"),
        ({"cooldown": -1}, ValueError, "cooldown must be >= 0"),
        ({"min_delta": -0.1}, ValueError, "min_delta must be a finite number >= 0"),
        ({"mode": "best"}, ValueError, "mode must be one of 'min', 'max'"),
        ({"restore_best": 1}, TypeError, "restore_best must be True or False, got 1"),
    ],
)
def test_bad_arguments_are_refused_by_name(kwargs, error, message):
    with pytest.raises(error, match=message):
        optim.early_stopping(**kwargs)
