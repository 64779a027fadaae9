"""Whether a classifier is right as often as it says: bins of examples of about the same sureness."""

import numpy as np
from numpy.typing import NDArray

from functrain.evaluation import bootstrap

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
        place = block * BINS + bin_of(sureness)
        for number, column in enumerate((np.ones_like(sureness), sureness, right)):
            self._values[:, number] += np.bincount(place, column, len(self._values))

    @property
    def total(self) -> Numbers:
        """For each bin the number of examples, the sum of their sureness, and how many are right: `[BINS, 3]`."""
        return self._values.reshape(-1, BINS, 3).sum(0)

    def interval(self) -> bootstrap.Interval | None:
        """Of the error. A replicate's is larger by its own noise; so the interval is of its distance from the mean."""
        sums = self._values.reshape(-1, BINS, 3)
        spread = error_of(np.stack([self._draws @ sums[:, :, number] for number in range(3)], -1))
        return bootstrap.interval(np.maximum(spread - spread.mean() + error_of(self.total), 0))


def error_of(sums: Numbers) -> Numbers:
    """The mean distance between sureness and the share of right predictions, `[...]`, of the sums `[..., BINS, 3]`."""
    return np.abs(sums[..., 1] - sums[..., 2]).sum(-1) / np.maximum(sums[..., 0].sum(-1), 1)


def bin_of(sureness: Numbers) -> NDArray[np.int64]:
    """The bin of each probability; bins are closed above, the first one at both ends."""
    return np.clip(np.ceil(sureness * BINS).astype(np.int64) - 1, 0, BINS - 1)
