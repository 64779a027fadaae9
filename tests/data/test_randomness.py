"""Seeding and putting back generators."""

import random

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from functrain.data.randomness import Randomness


class Owner:
    def __init__(self):
        self.a = torch.Generator()
        self.b = np.random.default_rng(1)
        self.c = np.random.RandomState(1)
        self.d = random.Random(1)
        self.e = np.random.Generator(np.random.Philox(3))

    def draw(self):
        return (
            float(torch.rand((), generator=self.a)),
            self.b.random(),
            float(self.c.rand()),
            self.d.random(),
            self.e.normal(),
        )


def draw_globals():
    return float(torch.rand(())), float(np.random.randn()), random.random(), random.gauss(0, 1)


@given(st.integers(0, 2**64 - 1))
def test_draws_are_a_function_of_the_key_and_leave_no_trace(key):
    owner = Owner()
    randomness = Randomness(owner)
    with randomness.seeded(9):
        expected_next = draw_globals(), owner.draw()
    with randomness.preserved():
        randomness.seed(9)
        with randomness.seeded(key):
            first = draw_globals(), owner.draw()
        with randomness.seeded(key):
            assert (draw_globals(), owner.draw()) == first
        with randomness.seeded(key ^ 1):
            other = draw_globals() + owner.draw()
        assert not set(other) & set(first[0] + first[1])
        assert (draw_globals(), owner.draw()) == expected_next


def test_states_are_put_back_after_an_exception():
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    randomness = Randomness()

    def fail():
        with randomness.seeded(1):
            draw_globals()
            raise RuntimeError("x")

    with pytest.raises(RuntimeError):
        fail()
    assert torch.equal(before[0], torch.get_rng_state())
    assert (random.getstate(), np.random.get_state()[1].tolist()) == before[1:]


def test_owners_without_attributes_and_shared_generators_do_no_harm():
    shared = torch.Generator()
    first, second = Owner(), Owner()
    first.a = second.a = shared
    assert len(Randomness(first, second, [1], None, 3).own) == 9
