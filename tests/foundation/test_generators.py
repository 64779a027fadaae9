"""Marks of the global generators, and putting these back."""

import random

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as some

from functrain.data.randomness import Randomness
from functrain.foundation import generator_marks
from functrain.foundation.generator_marks import global_mark
from functrain.foundation.generators import CallersGenerators, preserved_generators

DRAWS = {
    "torch": lambda: torch.rand(3),
    "torch normal": lambda: torch.randn(()),
    "python": random.random,
    "python gauss": lambda: random.gauss(0, 1),
    "numpy": np.random.rand,
    "numpy randn": np.random.randn,
    "a whole round of numpy": lambda: np.random.bytes(4 * 624),
    "a whole round of python": lambda: random.getrandbits(32 * 624),
    "numpy seed": lambda: np.random.seed(3),
}


def full():
    return (
        torch.get_rng_state().tolist(),
        random.getstate(),
        [np.array(part).tolist() for part in np.random.get_state()],
    )


@pytest.fixture(params=["marked by bytes", "marked by copies"], autouse=True)
def way(request, monkeypatch):
    """Each test with the quick way and with the one of an interpreter that hides its memory."""
    if request.param == "marked by copies":
        monkeypatch.setattr(generator_marks, "_python_memory", lambda: None)
        monkeypatch.setattr(generator_marks, "_normal_memory", lambda: None)
    return request.param


def test_this_interpreter_marks_by_bytes(way):
    quick = isinstance(global_mark().python[0], bytes) and isinstance(global_mark().numpy[0], bytes)
    assert quick == (way == "marked by bytes")


@pytest.mark.parametrize("name", DRAWS)
@pytest.mark.parametrize("before", [0, 1])
def test_a_draw_changes_the_mark_and_nothing_else_does(name, before):
    with preserved_generators():
        torch.manual_seed(0), random.seed(0), np.random.seed(0)
        for _ in range(before):
            DRAWS[name]()  # of two normal numbers the second may have been drawn ahead
        mark = global_mark()
        assert global_mark() == mark
        if not (name == "numpy seed" and before):
            DRAWS[name]()
            assert global_mark() != mark


@given(
    some.lists(some.sampled_from(sorted(DRAWS)), max_size=5), some.lists(some.sampled_from(sorted(DRAWS)), max_size=5)
)
def test_states_are_put_back_whatever_was_drawn_before_and_since(before, since):
    for name in before:
        DRAWS[name]()
    expected = full()
    states = CallersGenerators().take()
    for name in since:
        DRAWS[name]()
    states.put_back()
    assert full() == expected


def test_states_are_taken_again_only_where_they_changed():
    callers = CallersGenerators()
    first = callers.take()
    assert callers.take() is first
    np.random.randn()
    second = callers.take()
    assert second is not first
    np.random.randn()  # the number that was drawn ahead
    assert callers.take() is not second


def test_another_kind_of_numpy_generator_is_put_back():
    twister, states = np.random.get_bit_generator(), np.random.get_state()
    try:
        np.random.set_bit_generator(np.random.PCG64(3))
        with preserved_generators():
            first = np.random.rand()
        assert np.random.rand() == first
        with Randomness().seeded(7):
            drawn = np.random.rand()
        with Randomness().seeded(7):
            assert np.random.rand() == drawn
    finally:
        np.random.set_bit_generator(twister)
        np.random.set_state(states)
