"""The plateau rule against torch's ReduceLROnPlateau on random metrics."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from functrain import optim
from functrain.foundation import trees

# Few values, so that ties and thresholds are met, and everything a metric can be.
METRICS = st.lists(
    st.one_of(st.integers(-8, 8).map(lambda n: n / 8), st.floats(), st.sampled_from([math.nan, math.inf, -math.inf])),
    max_size=40,
)


@given(
    metrics=METRICS,
    mode=st.sampled_from(["min", "max"]),
    factor=st.floats(0.05, 0.95),
    patience=st.integers(0, 4),
    threshold=st.sampled_from([0.0, 1e-4, 0.125, 0.5, 1.0]),
    threshold_mode=st.sampled_from(["rel", "abs"]),
    cooldown=st.integers(0, 3),
    min_lr=st.sampled_from([0.0, 0.02]),
    eps=st.sampled_from([0.0, 1e-8, 0.01]),
)
def test_rates_and_state_are_those_of_ReduceLROnPlateau_after_every_metric(metrics, **options):
    reference = torch.optim.SGD([torch.nn.Parameter(torch.zeros(()))], lr=0.3)
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(reference, **options)
    rule, opt_state = optim.plateau(**options), optim.sgd(0.3).init({})
    state = rule.init()
    for metric in metrics:
        better = scheduler._is_better(metric, scheduler.best)  # by a relative threshold a negative best beats itself
        scheduler.step(metric)
        state, decision = rule.update(state, metric)
        if decision.reduce:
            opt_state = rule.apply(opt_state)
        assert (state.best, state.num_bad_epochs) == (scheduler.best, scheduler.num_bad_epochs)
        assert decision.improved == better
        assert state.cooldown_counter == scheduler.cooldown_counter
        assert optim.learning_rate(opt_state).item() == pytest.approx(reference.param_groups[0]["lr"], rel=1e-12)


@given(metrics=METRICS)
def test_updating_changes_no_state_and_is_the_same_each_time(metrics):
    rule = optim.plateau(patience=1, cooldown=1)
    state = rule.init()
    for metric in metrics:
        before = (state.best, state.num_bad_epochs, state.cooldown_counter)
        new, decision = rule.update(state, metric)
        assert (state.best, state.num_bad_epochs, state.cooldown_counter) == before
        assert rule.update(state, metric) == (new, decision)
        state = new


def test_a_state_is_a_tree_of_host_numbers_of_stable_types():
    rule = optim.plateau(patience=0)
    state = rule.init()
    for metric in (1, torch.tensor(2.0), 3.0):
        assert [type(leaf) for leaf in trees.leaves(state)] == [float, int, int]
        state, _ = rule.update(state, metric)


def test_every_group_is_reduced():
    optimizer = optim.partition({"a": optim.sgd(1.0), "*": optim.adamw(optim.schedules.constant(0.1))})
    state = optimizer.init({"a": torch.ones(1), "b": torch.ones(1)})
    state = optim.plateau(factor=0.5, min_lr=0.2).apply(state)
    assert [rate.item() for rate in optim.learning_rates(state)] == [0.5, 0.1]


@pytest.mark.parametrize(
    ("kwargs", "error", "message"),
    [
        ({"mode": "least"}, ValueError, "mode must be one of 'min', 'max'; got 'least'"),
        ({"threshold_mode": "log"}, ValueError, "threshold_mode must be one of 'rel', 'abs'"),
        ({"factor": 1.0}, ValueError, r"factor must be in \[0, 1\), got 1.0"),
        ({"factor": 0.0}, ValueError, "factor must be a finite number > 0"),
        ({"patience": -1}, ValueError, "patience must be >= 0"),
        ({"patience": 1.5}, TypeError, "patience must be an int"),
        ({"cooldown": -1}, ValueError, "cooldown must be >= 0"),
        ({"threshold": -1.0}, ValueError, "threshold must be a finite number >= 0"),
        ({"min_lr": -1.0}, ValueError, "min_lr must be a finite number >= 0"),
        ({"eps": math.nan}, ValueError, "eps must be a finite number >= 0"),
    ],
)
def test_bad_arguments_are_refused_by_name(kwargs, error, message):
    with pytest.raises(error, match=message):
        optim.plateau(**kwargs)
