"""Members that have stopped keep their values, and are computed no more than a power of two asks for."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from member_helpers import largest_difference, member_state, random_batches, trained_alone

import functrain as ft
from functrain.step.members import stepping
from functrain.step.members.stepping import computed, stopped

FORMS = [pytest.param(True, 1e-12, id="vmap"), pytest.param(False, 0.0, id="unrolled")]
TRAINS = (-1, -1, -1)


@pytest.fixture
def compacted(monkeypatch):
    """Small stacks are compacted, too."""
    monkeypatch.setattr(stepping, "WORTH_IT", 0)


@pytest.mark.usefixtures("compacted")
@pytest.mark.parametrize(
    ("own_batches", "accumulate", "compiled"), [(False, 2, False), (True, 1, False), (True, 1, True)]
)
@pytest.mark.parametrize(("vectorize", "tolerance"), FORMS)
def test_those_that_train_are_as_alone_and_the_others_stay(vectorize, tolerance, accumulate, own_batches, compiled):
    if compiled and not vectorize:
        tolerance = 1e-12  # to rounding: the lone members are not compiled
    ends = {0: 1, 1: 3, 2: 6, 3: 6, 4: 2}  # member -> micro-batches that it trains on; 5 members, of which 2 go on
    ends = {member: end * accumulate for member, end in ends.items()}
    batches = [random_batches(6 * accumulate, seed=member if own_batches else 0) for member in range(5)]
    states = [member_state(m, accumulate=accumulate, metrics=["f1"]) for m in range(5)]
    step = ft.compile(ft.train_step, backend="aot_eager", donate=True) if compiled else ft.train_step
    stacked = ft.stack(states, vectorize=vectorize)
    for number in range(6 * accumulate):
        stacked = stopped(stacked, [member for member, end in ends.items() if end == number])
        batch = batches[0][number]
        if own_batches:
            batch = ft.PerMember(tuple(torch.stack(column) for column in zip(*(each[number] for each in batches))))
        stacked, metrics = step(stacked, batch)
    for member, (state, own) in enumerate(zip(states, ft.unstack(stacked), strict=True)):
        lone, lone_metrics = trained_alone(state, batches[member][: ends[member]])
        assert largest_difference(lone, own) <= tolerance, member
        if ends[member] == 6 * accumulate:
            assert abs(metrics["loss"][member] - lone_metrics["loss"]) <= tolerance
    if compiled:
        assert step.runner.compilations["update"] == 3  # of 5, 4 and 2 members


@pytest.mark.usefixtures("compacted")
def test_programs_are_as_many_as_powers_of_two():
    step = ft.compile(ft.train_step, backend="aot_eager", donate=True)
    stacked, [batch] = ft.stack([member_state(m) for m in range(5)], vectorize=True), random_batches(1)
    for member in range(4):
        stacked = stopped(stacked, [member])
        stacked, _ = step(stacked, batch)
    assert dict(step.runner.compilations) == {"update": 3}  # of 4, 2 and 1


def test_a_small_stack_is_computed_whole():
    step = ft.compile(ft.train_step, backend="aot_eager")
    stacked, [batch] = ft.stack([member_state(m) for m in range(8)], vectorize=True), random_batches(1)
    for member in range(7):
        stacked, _ = step(stopped(stacked, [member]), batch)
    assert dict(step.runner.compilations) == {"update": 1}


@settings(max_examples=50)
@given(st.permutations(range(11)), st.sampled_from([1, 3]))
def test_whoever_stops_when_a_set_of_the_computed_lasts_until_the_next_power_of_two(order, at_once):
    stopped_at, before = [TRAINS] * 11, tuple(range(11))
    for step in range(0, 11, at_once):
        for member in order[step : step + at_once]:
            stopped_at[member] = (step, 0, 0)
        now = computed(tuple(stopped_at))
        trains = {number for number, at in enumerate(stopped_at) if at == TRAINS}
        assert trains <= set(now) <= set(before)
        assert len(now) == len(before) or len(now) in {1, 2, 4, 8}
        before = now
