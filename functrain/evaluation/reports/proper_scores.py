"""Log loss, Brier score and calibration error of predicted probabilities."""

import numpy as np
from numpy.typing import NDArray

from functrain.evaluation import bootstrap
from functrain.evaluation.calibrations import CalibrationSums, error_of
from functrain.evaluation.quotients import ratio
from functrain.evaluation.reports.report import Number

Numbers = NDArray[np.float64]


class ProperScores:
    """Scores of probabilities; examples are given a part at a time.

    Args:
        examples: how many there will be.

    Attributes:
        calibration: the sums of the calibration error.
    """

    def __init__(self, examples: int) -> None:
        self.calibration = CalibrationSums(examples)
        self._sums = bootstrap.BlockSums(examples, 3)

    def add(self, losses: Numbers, brier: Numbers, sure: Numbers, right: Numbers) -> None:
        """The next examples, each `[n]`.

        Args:
            losses: minus the logarithm of the target's probability.
            brier: the Brier score.
            sure: probability of what is said.
            right: whether that is so, 0 or 1.
        """
        self._sums.add(np.stack([np.ones_like(losses), losses, brier], 1))
        self.calibration.add(sure, right)

    def numbers(self) -> tuple[Number, ...]:
        """Log loss, Brier score and expected calibration error."""
        examples, losses, brier = self._sums.total
        drawn = self._sums.replicates()
        return (
            Number("log_loss", float(losses / examples), bootstrap.interval(ratio(drawn[:, 1], drawn[:, 0]))),
            Number("brier_score", float(brier / examples), bootstrap.interval(ratio(drawn[:, 2], drawn[:, 0]))),
            Number("calibration_error", float(error_of(self.calibration.total)), self.calibration.interval()),
        )
