"""Metrics of values equal scikit-learn's, on random and on degenerate inputs."""

import warnings

import numpy as np
import pytest
import sklearn.metrics as sk
import torch
from scipy import stats
from torch import Tensor

from functrain import metrics

REGRESSION = [
    (torch.randn(1, generator=torch.Generator().manual_seed(0)), torch.randn(1)),
    (torch.tensor([1.0, 2.0]), torch.tensor([2.0, 1.0])),
    (torch.randn(60, generator=torch.Generator().manual_seed(0)), torch.linspace(-1, 1, 60)),
    (torch.zeros(4), torch.ones(4)),  # both constant
    (torch.ones(4) * 0.1, torch.ones(4) * 0.1),  # met exactly, with a mean that is rounded
    (torch.linspace(0, 1, 5), torch.ones(5)),  # constant targets
    (torch.ones(5), torch.linspace(0, 1, 5)),  # constant predictions
    (torch.linspace(0, 1, 5), torch.linspace(0, 1, 5)),
    (torch.linspace(0, 1, 5) + 1e6, torch.linspace(0, 1, 5) + 1e6),  # a large mean
]


@pytest.mark.parametrize(("predictions", "targets"), REGRESSION)
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.filterwarnings("ignore")
def test_metrics_of_values_are_those_of_scikit_learn(predictions: Tensor, targets: Tensor, weighted: bool) -> None:
    weight = torch.rand(len(targets), generator=torch.Generator().manual_seed(2)) if weighted else None
    options = {} if weight is None else {"sample_weight": weight.double().numpy()}
    predictions, targets = predictions.double(), targets.double()
    for ours, theirs in (
        (metrics.mae, sk.mean_absolute_error),
        (metrics.mse, sk.mean_squared_error),
        (metrics.rmse, sk.root_mean_squared_error),
        (metrics.r2, sk.r2_score),
    ):
        found, wanted = ours()(predictions, targets, weight).item(), theirs(targets, predictions, **options)
        assert found == pytest.approx(wanted, rel=1e-9, abs=1e-12, nan_ok=True), ours
    if weight is None and len(targets) > 1:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            pearson, spearman = stats.pearsonr(predictions, targets), stats.spearmanr(predictions, targets)
        assert metrics.pearson()(predictions, targets).item() == pytest.approx(pearson.statistic, abs=1e-9, nan_ok=True)
        found = metrics.spearman()(predictions, targets).item()
        assert found == pytest.approx(spearman.statistic, abs=1e-12, nan_ok=True)


def test_several_values_an_example_are_averaged_as_scikit_learn_does() -> None:
    generator = torch.Generator().manual_seed(0)
    predictions, targets = (torch.randn(30, 3, generator=generator, dtype=torch.float64) for _ in range(2))
    targets[:, 0] *= 10
    assert metrics.rmse()(predictions, targets).item() == pytest.approx(
        sk.root_mean_squared_error(targets, predictions)
    )
    for name in ("uniform_average", "variance_weighted"):
        wanted = sk.r2_score(targets, predictions, multioutput=name)
        assert metrics.r2(name)(predictions, targets).item() == pytest.approx(wanted)  # type: ignore[arg-type]
    np.testing.assert_allclose(
        metrics.r2("raw_values")(predictions, targets)["value"].numpy(),
        sk.r2_score(targets, predictions, multioutput="raw_values"),
    )
