"""An example that is killed and started again ends with the bits of one that was not."""

import os

import pytest
from example_kills import BEGIN, END, KILLS, examples, killed, with_rows

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


def test_rows_that_are_not_written_anew_stay():
    head = f"before\n{BEGIN}\n| `2.py 12` | 1 | 5 | 0 | then |\n| `1.py` | 2 | 5 | 0 | then |\n{END}\nbehind"
    page = with_rows(head, ["| `2.py` | 7 | 5 | 0 | now |", "| `3.py` | 8 | 5 | 0 | now |"])
    assert page.startswith(f"before\n{BEGIN}\n")
    assert page.endswith(f"{END}\nbehind")
    rows = [line for line in page.splitlines() if line.startswith("| `")]
    assert [row.split(" | ")[:2] for row in rows] == [["| `1.py`", "2"], ["| `2.py`", "7"], ["| `3.py`", "8"]]
    assert with_rows(page, []) == page
