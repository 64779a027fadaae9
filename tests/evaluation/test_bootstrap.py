"""Laws of the confidence intervals."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from functrain.evaluation import bootstrap, rankings
from functrain.evaluation.areas import drawn_areas
from functrain.evaluation.class_counts import counts_of, overall, replicates_of
from functrain.evaluation.rankings import auroc, ranking

SIMULATIONS = 400
FEW = 500  # replicates, for the time that tests take


def covered(values_of_a_sample, truth, simulations=SIMULATIONS):
    """How often the interval of a sample holds the truth."""
    hits = 0
    for seed in range(simulations):
        found = values_of_a_sample(np.random.default_rng(seed))
        hits += found.low <= truth <= found.high
    return hits / simulations


# Of 400 simulations a share of 0.95 has a standard deviation of 0.011; the goal allows 0.93 to 0.97 in the long run.
BAND = (0.93 - 2 * 0.011, 0.97 + 2 * 0.011)


@pytest.mark.parametrize("share", [0.5, 0.97])
def test_the_closed_interval_of_a_share_covers_it(share):
    # Wilson's holds 95 % on the mean over shares, at a single one within 2 % (Brown, Cai and DasGupta 2001).
    def sample(generator):
        return bootstrap.share_interval(generator.binomial(200, share), 200)

    assert BAND[0] <= covered(sample, share) <= BAND[1]


def test_all_right_is_not_certain():
    assert bootstrap.share_interval(35, 35) == (pytest.approx(35 / (35 + 1.96**2), abs=1e-4), 1.0)
    assert bootstrap.share_interval(0, 35)[0] == 0.0
    assert bootstrap.share_interval(0, 0) is None


def test_the_interval_of_a_share_covers_it_as_often_as_it_says():
    def sample(generator):
        hits = generator.random(300) < 0.8
        confused = np.array([[hits.sum(), 0.0], [(~hits).sum(), 0.0]])
        return bootstrap.interval(overall(replicates_of(confused))["accuracy"])

    assert BAND[0] <= covered(sample, 0.8) <= BAND[1]


def test_the_interval_of_a_mean_covers_it_as_often_as_it_says():
    def sample(generator):
        values = generator.normal(1.0, 2.0, 200)
        drawn = bootstrap.sums(np.stack([np.ones(200), values], 1), FEW)
        return bootstrap.interval(drawn[:, 1] / drawn[:, 0])

    assert BAND[0] <= covered(sample, 1.0) <= BAND[1]


def test_the_interval_of_an_area_covers_it_as_often_as_it_says():
    def sample(generator):
        truth = generator.random(200) < 0.5
        one = ranking(generator.normal(size=200) + truth, truth)
        return bootstrap.interval(auroc(*(bootstrap.counts(c, FEW, seed=s) for s, c in enumerate(one[1:]))))

    expected = 0.760250  # Phi(1 / sqrt 2)
    assert BAND[0] <= covered(sample, expected) <= BAND[1]


@pytest.mark.parametrize("groups", [5, 200])
def test_replicates_of_areas_are_areas(groups):
    generator = np.random.default_rng(0)
    positive = generator.random(1000) < 0.1
    scores = np.where(positive, 0.9, 0.1) + 0.15 * generator.normal(size=1000)
    ranked = rankings.ranking(scores, positive)
    block, draws = bootstrap.shared_draws(1000)
    place = block * groups + rankings.groups_of(scores, ranked, groups)
    for replicates in drawn_areas(ranked, place, positive, draws, groups).values():
        assert np.nanmin(replicates) >= 0
        assert np.nanmax(replicates) <= 1


def test_blocks_of_examples_have_the_spread_of_single_examples(monkeypatch):
    values = np.stack([np.ones(4000), np.random.default_rng(0).exponential(size=4000)], 1)
    spread = []
    for blocks in (4000, 500):
        monkeypatch.setattr(bootstrap, "BLOCKS", blocks)
        drawn = bootstrap.sums(values)
        spread.append((drawn[:, 1] / drawn[:, 0]).std())
    # A standard deviation from 2,000 replicates of 500 blocks is known to some sqrt(1/1000 + 1/4000), 3.5 %.
    assert spread[1] == pytest.approx(spread[0], rel=4 * 0.035)


@given(st.lists(st.integers(0, 20), min_size=4, max_size=4))
def test_replicates_of_counts_have_the_mean_of_the_counts(cells):
    confused = np.array(cells, float).reshape(2, 2)
    drawn = replicates_of(confused)
    for part, whole in zip(drawn, counts_of(confused)):
        # the mean of 2,000 Poisson numbers of mean n has the standard deviation sqrt(n / 2000)
        assert np.all(np.abs(part.mean(0) - whole) <= 6 * np.sqrt(whole / bootstrap.REPLICATES))


def test_what_is_mostly_not_defined_has_no_interval():
    assert bootstrap.interval(np.array([1.0, np.nan, np.nan])) is None
    assert bootstrap.interval(np.array([])) is None
    assert bootstrap.interval(np.array([1.0, 1.0, np.nan])) == (1.0, 1.0)
