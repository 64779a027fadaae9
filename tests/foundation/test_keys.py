"""Keys: hashed, stable over time, and without a trace in anyone's generators."""

import itertools
import random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from functrain.foundation import keys

any_key = st.integers(0, 2**64 - 1)


def generator_states():
    numpy_state = np.random.get_state()
    return torch.get_rng_state().tolist(), random.getstate(), numpy_state[1].tolist(), numpy_state[2:]


def test_small_tuples_of_numbers_and_names_never_collide():
    items = [*range(-3, 8), "", "0", "1", "data", "'0'", "0\x1f1"]
    tuples = [t for length in range(4) for t in itertools.product(items, repeat=length)]
    derived = {keys.fold_in(keys.root_key(0), *t) for t in tuples}
    derived |= {keys.fold_in(keys.root_key(1), *t) for t in tuples}
    derived |= {keys.root_key(seed) for seed in range(-100, 1000)}
    assert len(derived) == 2 * len(tuples) + 1100


@given(any_key, st.integers(0, 100), st.integers(1, 100))
@settings(max_examples=50, deadline=None)
def test_keys_are_hashed_not_added(key, data, offset):
    assert keys.fold_in(key, data) != keys.fold_in((key + offset) % 2**64, data - offset)
    assert keys.fold_in(key, data, offset) != keys.fold_in(keys.fold_in(key, data), offset)


def test_streams_stay_what_they_are_from_version_to_version():
    """A resumed run must draw what the interrupted one would have drawn: these numbers are part of the format."""
    root = keys.root_key(0)
    assert root == 0x5F0D3C95B887AC74
    assert keys.fold_in(root, "step", 3, 0) == 0x8E415D4786E3996E


def test_numpy_numbers_and_strings_count_as_what_they_equal():
    assert keys.fold_in(5, np.int64(3), np.str_("a")) == keys.fold_in(5, 3, "a")
    assert keys.fold_in(5, torch.tensor(3)) == keys.fold_in(5, 3)


@pytest.mark.parametrize("data", [1.0, None, b"a", np.float32(2)])
def test_only_integers_and_names_are_folded_in(data):
    with pytest.raises(TypeError):
        keys.fold_in(0, data)


@pytest.mark.parametrize("seed", [True, 1.0, "0", None])
def test_a_seed_is_an_integer(seed):
    with pytest.raises(TypeError, match="seed must be an int"):
        keys.root_key(seed)


@given(any_key)
@settings(max_examples=30, deadline=None)
def test_every_key_seeds_a_generator(key):
    first = torch.rand(3, generator=keys.generator(key))
    assert torch.equal(first, torch.rand(3, generator=keys.generator(key)))


@given(any_key, st.integers(0, 50))
@settings(max_examples=30, deadline=None)
def test_a_permutation_holds_every_position_once_and_leaves_the_generators_alone(key, length):
    before = torch.get_rng_state()
    order = keys.permutation(key, length)
    assert order.dtype == torch.int64
    assert sorted(order.tolist()) == list(range(length))
    assert torch.equal(order, keys.permutation(key, length))
    assert torch.equal(before, torch.get_rng_state())


def test_permutations_of_different_keys_differ():
    assert len({tuple(keys.permutation(k, 20).tolist()) for k in range(50)}) == 50


def test_torch_seed_makes_draws_a_function_of_the_key_and_puts_the_generator_back():
    before = torch.get_rng_state()
    with keys.torch_seed(7):
        first = torch.rand(3)
    torch.rand(1)
    torch.set_rng_state(before)
    with keys.torch_seed(7):
        second = torch.rand(3)
    with keys.torch_seed(8):
        other = torch.rand(3)
    assert torch.equal(first, second)
    assert not torch.equal(first, other)
    assert torch.equal(before, torch.get_rng_state())


def test_global_seed_covers_python_and_numpy_and_puts_all_back():
    before = generator_states()

    def draw(key):
        with keys.global_seed(key):
            return random.random(), np.random.rand(), torch.rand(()).item()

    first = draw(2**63 + 5)
    assert first == draw(2**63 + 5)
    assert all(a != b for a, b in zip(first, draw(2**63 + 6)))
    # Python and NumPy see the upper half of a key, too; torch's CPU generator is seeded with 32 bits.
    assert all(a != b for a, b in zip(first[:2], draw(2**62 + 5)[:2]))
    assert before == generator_states()


@pytest.mark.parametrize("context", [keys.torch_seed, keys.global_seed])
def test_generators_are_put_back_after_an_error(context):
    before = generator_states()

    def fail():
        with context(3):
            return torch.rand(1), random.random(), np.random.rand(), 1 / 0

    with pytest.raises(ZeroDivisionError):
        fail()
    if context is keys.torch_seed:
        assert torch.equal(torch.get_rng_state(), torch.tensor(before[0], dtype=torch.uint8))
    else:
        assert generator_states() == before
