"""The paired tests, against independent references and by simulation."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import roc_auc_score

from functrain.evaluation import bootstrap
from functrain.evaluation.comparing.paired import bootstrap_test, delong, holm, mcnemar

SIMULATIONS = 600
# Of 600 studies a share of 0.05 has a standard deviation of 0.009.
SIZE = (0.05 - 3 * 0.009, 0.05 + 3 * 0.009)


@given(st.integers(0, 60), st.integers(0, 60), st.integers(0, 5))
def test_mcnemar_is_the_exact_binomial_test_of_the_examples_that_one_model_alone_gets_right(alone, other_alone, both):
    right = np.array([True] * alone + [False] * other_alone + [True] * both, bool)
    other = np.array([False] * alone + [True] * other_alone + [True] * both, bool)
    count = alone + other_alone
    expected = stats.binomtest(alone, count, 0.5).pvalue if count else 1.0
    assert mcnemar(right, other).p == pytest.approx(expected, rel=1e-12)


def test_mcnemar_of_a_million_examples():
    right = np.arange(1_000_000) % 2 == 0
    other = np.arange(1_000_000) % 500 != 0
    assert 0.0 <= mcnemar(right, other).p < 1e-300
    assert mcnemar(right, ~right).p == 1.0


def by_definition(scores, other, positive):
    """DeLong's z from the matrices of all pairs of a positive and a negative example."""
    parts = []
    for one in (scores, other):
        above = one[positive][:, None] - one[~positive][None]
        pairs = (above > 0) + 0.5 * (above == 0)
        parts.append((pairs.mean(1), pairs.mean(0), pairs.mean()))
    m, n = positive.sum(), (~positive).sum()
    covariance = sum(np.cov(parts[0][i], parts[1][i]) / size for i, size in ((0, m), (1, n)))
    variance = covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1]
    return parts[0][2] - parts[1][2], math.sqrt(variance)


@pytest.mark.parametrize("levels", [4, 1000])  # 4: nearly all scores are tied
def test_delong_is_its_definition_over_all_pairs(levels):
    generator = np.random.default_rng(levels)
    positive = generator.random(90) < 0.4
    scores, other = (np.round(generator.random(90) * levels) + levels / 3 * positive for _ in range(2))
    difference, spread = by_definition(scores, other, positive)
    found = delong(scores, other, positive)
    assert difference == pytest.approx(roc_auc_score(positive, scores) - roc_auc_score(positive, other), abs=1e-12)
    assert found.p == pytest.approx(2 * stats.norm.sf(abs(difference) / spread), rel=1e-10)
    assert sum(found.interval) / 2 == pytest.approx(difference, abs=1e-12)
    assert found.interval.high - difference == pytest.approx(stats.norm.ppf(0.975) * spread, rel=1e-10)


def studies(test, simulations=SIMULATIONS):
    """How often a test finds a difference at the limit of 5 % where there is none."""
    return np.mean([test(np.random.default_rng(seed)) < 0.05 for seed in range(simulations)])


def test_delong_errs_as_often_as_it_says():
    def study(generator):
        positive = np.arange(120) < 50
        shared = generator.normal(size=120) + positive
        return delong(*(shared + 0.7 * generator.normal(size=120) for _ in range(2)), positive).p

    assert SIZE[0] <= studies(study) <= SIZE[1]


def test_the_paired_bootstrap_errs_as_often_as_it_says():
    _, draws = bootstrap.shared_draws(150)

    def study(generator):
        shared = generator.exponential(size=150)
        ours, theirs = (shared + generator.normal(size=150) for _ in range(2))
        count = draws.sum(1)
        return bootstrap_test(draws @ ours / count - draws @ theirs / count).p

    # The percentile interval of a mean is that of the normal distribution with the spread known to 1 / sqrt(2 N), so
    # with 150 examples it errs in 5.4 % of studies.
    assert SIZE[0] <= studies(study) <= SIZE[1] + 0.004


def test_tests_that_are_not_defined():
    one_kind = np.ones(5, bool)
    assert math.isnan(delong(np.arange(5.0), np.arange(5.0), one_kind).p)
    assert math.isnan(bootstrap_test(np.full(100, np.nan)).p)
    assert math.isnan(bootstrap_test(np.empty(0)).p)


def test_equal_models_do_not_differ_and_opposite_ones_do():
    scores, positive = np.arange(20.0), np.arange(20) >= 10
    assert delong(scores, scores, positive) == (1.0, (0.0, 0.0))
    assert delong(scores, -scores, positive).p == 0.0
    assert bootstrap_test(np.zeros(200)) == (1.0, (0.0, 0.0))
    assert bootstrap_test(np.ones(199)).p == pytest.approx(2 / 200)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=6))
def test_holm_is_the_closed_test_of_bonferroni(values):
    """A hypothesis is rejected if every set of hypotheses that it is in is, each by Bonferroni's rule."""
    sets = [each for size in range(1, len(values) + 1) for each in itertools.combinations(range(len(values)), size)]
    expected = [
        max(min(1.0, len(each) * min(values[j] for j in each)) for each in sets if i in each)
        for i in range(len(values))
    ]
    assert holm(values) == pytest.approx(expected, rel=1e-12)


def test_a_test_that_is_not_defined_is_none_of_the_family():
    assert holm([0.01, float("nan"), 0.04])[0] == pytest.approx(0.02)
    assert math.isnan(holm([0.01, float("nan"), 0.04])[1])
    assert holm([]) == []
