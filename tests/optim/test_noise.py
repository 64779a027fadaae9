"""Noise on gradients: normal, independent, of the paper's variance, and a function of its arguments."""

import pytest
import torch
from optim_helpers import make_params, one_step, traced

from functrain import optim
from functrain.foundation import trees
from functrain.optim import CountState

COUNT = 50_000


def noise_at(step, *, seed=0, names=("w",), dtype=torch.float64, **options):
    zeros = {name: torch.zeros(COUNT, dtype=dtype) for name in names}
    return optim.add_noise(1.0, seed=seed, **options).update(zeros, CountState(torch.tensor(step)), zeros)[0]


def test_noise_is_normal_and_independent_over_elements_updates_leaves_and_seeds():
    first = noise_at(0, gamma=0.0, names=("v", "w"))
    samples = torch.stack(
        [first["v"], first["w"], noise_at(1, gamma=0.0)["w"], noise_at(2, gamma=0.0)["w"], noise_at(0, seed=1)["w"]]
    )
    samples = torch.cat([samples, samples[:1].roll(1, 1), samples[:1].roll(2, 1)])
    most = 5 / COUNT**0.5  # five standard deviations of a mean of COUNT numbers of variance 1
    assert (samples.mean(1).abs() < most).all()
    for power, moment, variance in ((2, 1, 2), (3, 0, 15), (4, 3, 96)):
        assert ((samples**power).mean(1) - moment).abs().max() < most * variance**0.5
    correlations = torch.corrcoef(samples) - torch.eye(len(samples), dtype=torch.float64)
    assert correlations.abs().max() < most
    assert torch.corrcoef(samples.square()).fill_diagonal_(0).abs().max() < most


def test_its_variance_falls_as_the_paper_says():
    for step in (0, 7, 100):
        assert abs(noise_at(step)["w"].var() * (1 + step) ** 0.55 - 1) < 5 * (2 / COUNT) ** 0.5
    assert noise_at(3, dtype=torch.float32)["w"].dtype == torch.float32


def test_it_is_a_function_of_its_arguments_eager_and_traced():
    optimizer, params = optim.chain(optim.add_noise(0.3, seed=5), optim.sgd(0.1)), make_params()
    state = optimizer.init(params)
    graph, _ = traced(one_step(optimizer), params, state, params)
    torch.manual_seed(1)  # no generator is asked
    for _ in range(2):
        expected, again = (one_step(optimizer)(params, state, params) for _ in range(2))
        assert all(map(torch.equal, trees.leaves(expected), trees.leaves(again)))
        torch.testing.assert_close(trees.leaves(graph(params, state, params)), trees.leaves(expected))
        params, state, _ = expected


@pytest.mark.parametrize("argument", ["eta", "gamma"])
def test_what_cannot_be_a_variance_is_refused(argument):
    with pytest.raises(ValueError, match=f"{argument} must be a finite number >= 0, got -1"):
        optim.add_noise(**{argument: -1})
