"""Statistics of labels that are read in one way, so that several of them read a batch once."""

from abc import abstractmethod
from typing import Any

from torch import Tensor

from functrain.metrics.accumulating import Accumulator, Statistic
from functrain.metrics.examples import Examples, Labels


class OfLabels(Statistic):
    """A statistic that needs nothing of a batch but its `Examples`.

    Attributes:
        labels: how predictions are read.
    """

    labels: Labels

    def of(self, predictions: Any, targets: Any, weight: Tensor | None) -> Accumulator:
        """Of a batch."""
        return self.of_examples(self.labels.read(predictions, targets, weight))

    @abstractmethod
    def of_examples(self, found: Examples) -> Accumulator:
        """Of what was read of a batch."""
