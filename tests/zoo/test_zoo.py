"""Every model of the zoo is trained to the same parameters as by a loop in plain torch (`make test-zoo`)."""

import pytest
from architectures import BY_INDUCTOR, CASES
from measuring import measure

pytest.importorskip("transformers")
pytestmark = pytest.mark.filterwarnings("ignore")  # the libraries' own


def check(name, ways):
    case = CASES[name]
    record = measure(case, ways)
    for way in ways:
        if isinstance(record[way], str):
            assert way in case.refused, record[way]
            assert "compile=False" in record[way]
        else:
            assert way not in case.refused, "it is not refused any more"
            assert record[way] <= case.tolerance, case.reason


@pytest.mark.parametrize("name", CASES)
def test_three_updates_are_those_of_a_loop_by_hand(name):
    pytest.importorskip(CASES[name].library)
    check(name, ("eager", "aot_eager"))


@pytest.mark.slow
@pytest.mark.parametrize("name", BY_INDUCTOR)
def test_three_updates_by_inductor_are_those_of_a_loop_by_hand(name):
    pytest.importorskip(CASES[name].library)
    check(name, ("inductor",))


def test_the_zoo_is_as_large_as_its_page_says():
    assert len(CASES) >= 120
    assert len(BY_INDUCTOR) >= 25
    refused = [name for name, case in CASES.items() if {"aot_eager", "inductor"} <= set(case.refused)]
    assert len(refused) <= 5
    assert not {name for name in BY_INDUCTOR if "inductor" in CASES[name].refused}
    assert {name for name, case in CASES.items() if case.refused == ("aot_eager",)} <= set(BY_INDUCTOR)
