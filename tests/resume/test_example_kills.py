"""An example that is killed and started again ends with the bits of one that was not."""

import os

import pytest
from example_kills import KILLS, examples, killed

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are forked")
EPOCHS = "4"


def test_two_states_that_are_killed_in_a_loop_of_the_users_own_end_with_the_same_bits():
    found = killed("10_gan.py", count=1, arguments=[EPOCHS], compiled=False)
    assert (found.kills, found.wrong) == (1, [])


@pytest.mark.slow
@pytest.mark.parametrize("name", examples())
def test_five_kills_at_random_moments_change_no_bit(name):
    found = killed(name)
    assert (found.kills, found.wrong) == (KILLS, [])
