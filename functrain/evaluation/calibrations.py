"""Whether a classifier is right as often as it says: bins of examples of about the same sureness."""

import numpy as np
import torch
from numpy.typing import NDArray

from functrain.evaluation import bootstrap
from functrain.metrics.probabilities import bin_of, calibration_of

Numbers = NDArray[np.float64]
BINS = 15


class CalibrationSums:
    """Sums over the examples of each bin of sureness; examples are given a part at a time.

    Args:
        examples: how many there will be.

    References:
        Guo et al. 2017, "On Calibration of Modern Neural Networks".
    """

    def __init__(self, examples: int) -> None:
        self._block, self._draws = bootstrap.shared_draws(examples)
        self._values = np.zeros((self._draws.shape[1] * BINS, 3))
        self._seen = 0

    def add(self, sureness: Numbers, right: Numbers) -> None:
        """The next examples.

        Args:
            sureness: the probability that the prediction is right, by the model, `[n]` in [0, 1].
            right: 1 where it is, else 0, `[n]`.
        """
        block = self._block[self._seen : self._seen + len(sureness)]
        self._seen += len(sureness)
        place = block * BINS + bin_of(torch.from_numpy(sureness), BINS).numpy()
        for number, column in enumerate((np.ones_like(sureness), sureness, right)):
            self._values[:, number] += np.bincount(place, column, len(self._values))

    @property
    def total(self) -> Numbers:
        """For each bin the number of examples, the sum of their sureness, and how many are right: `[3, BINS]`."""
        return self._values.reshape(-1, BINS, 3).sum(0).T

    def replicates(self) -> Numbers:
        """Of the error, `[R]`. A replicate's is larger by its own noise; so all are moved to have the error as mean."""
        sums = self._values.reshape(-1, BINS, 3)
        spread = error_of(np.stack([(self._draws @ sums[:, :, number]).T for number in range(3)]))
        return spread - spread.mean() + error_of(self.total)

    def interval(self) -> bootstrap.Interval | None:
        """Of the error."""
        return bootstrap.interval(np.maximum(self.replicates(), 0))


def error_of(sums: Numbers) -> Numbers:
    """The mean distance between sureness and the share of right predictions, `[...]`, of the sums `[3, BINS, ...]`."""
    return calibration_of(torch.from_numpy(sums)).nan_to_num(0.0).numpy()
