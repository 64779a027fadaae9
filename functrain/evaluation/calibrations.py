"""Whether a classifier is right as often as it says: bins of examples of about the same sureness."""

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]
BINS = 15


def expected_calibration_error(sureness: Numbers, right: Numbers) -> float:
    """The mean distance between sureness and the share of right predictions, over `BINS` equal bins of sureness.

    Args:
        sureness: the probability that the prediction is right, by the model, `[N]` in [0, 1].
        right: 1 where it is, else 0, `[N]`.

    References:
        Guo et al. 2017, "On Calibration of Modern Neural Networks".
    """
    return float(error_of(calibration_sums(sureness, right)))


def error_of(sums: Numbers) -> Numbers:
    """The error `[...]` of the sums of bins `[..., BINS, 3]`."""
    return np.abs(sums[..., 1] - sums[..., 2]).sum(-1) / np.maximum(sums[..., 0].sum(-1), 1)


def calibration_sums(sureness: Numbers, right: Numbers) -> Numbers:
    """For each bin the number of examples, the sum of their sureness, and how many are right: `[BINS, 3]`."""
    place = bin_of(sureness)
    return np.stack([np.bincount(place, column, BINS) for column in (np.ones_like(sureness), sureness, right)], 1)


def bin_of(sureness: Numbers) -> NDArray[np.int64]:
    """The bin of each probability; bins are closed above, the first one at both ends."""
    return np.clip(np.ceil(sureness * BINS).astype(np.int64) - 1, 0, BINS - 1)
