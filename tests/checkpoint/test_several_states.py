"""A checkpoint of several training states: each is restored as it would be alone."""

import pytest
import torch
from torch import nn

import functrain as ft


def fresh(name, metrics=("f1",)):
    torch.manual_seed(len(name))
    state = ft.init_state(nn.Linear(4, 3), ft.classification(), ft.optim.sgd(0.1), accumulate=2, metrics=list(metrics))
    return state.replace(key=len(name))


def three(make):
    return {"one": make("one"), "deep": {"a/b": make("two"), "number": 3}, "last": (make("three"),)}


def trained(name):
    batch = (torch.randn(6, 4), torch.arange(6) % 3)
    return ft.train_step(fresh(name), batch)[0]


@pytest.fixture
def saved(tmp_path):
    states = three(trained)
    with ft.Checkpointer(tmp_path) as checkpoints:
        checkpoints.save(states, step=1)
    return tmp_path, states


def test_the_accumulators_of_metrics_find_room_in_states_that_have_seen_no_batch(saved):
    folder, states = saved
    restored = ft.Checkpointer(folder).restore(like=three(fresh)).tree
    assert ft.digest(restored) == ft.digest(states)


def test_metrics_that_are_not_asked_for_any_more_are_left_out(saved):
    folder, states = saved
    restored = ft.Checkpointer(folder).restore(like=three(lambda name: fresh(name, metrics=()))).tree
    assert restored["deep"]["a/b"].epoch_metrics is None
    assert torch.equal(restored["deep"]["a/b"].accumulator.sums, states["deep"]["a/b"].accumulator.sums)


def test_a_leaf_that_earlier_versions_did_not_save_may_be_missing(tmp_path):
    with ft.Checkpointer(tmp_path) as checkpoints:
        checkpoints.save({"one": _without_used(fresh("one", metrics=()))}, step=1)
    restored = ft.Checkpointer(tmp_path).restore(like={"one": fresh("one", metrics=())}).tree["one"]
    assert restored.accumulator.used.all()


def _without_used(state):
    """The state as a dictionary of its fields, without the leaf `accumulator/used`."""
    fields = {name: value for name, value in state.__dict__.items() if name not in ("recipe", "_known")}
    window = {name: value for name, value in state.accumulator.__dict__.items() if name != "used"}
    return {**fields, "accumulator": window}
