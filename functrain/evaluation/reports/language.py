"""The report of a language model: how well it foresees tokens."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from functrain.evaluation import bootstrap
from functrain.evaluation.kept_rows import BatchRows, as_array
from functrain.evaluation.quotients import ratio
from functrain.evaluation.reports.report import Collector, Report, numbers_of
from functrain.foundation.errors import DataError

Numbers = NDArray[np.float64]


class LanguageModelling(Collector):
    """Collects sums over the tokens of each text, from logits `[B, V, T]` and tokens `[B, T]`; no logits are kept."""

    def of_batch(self, scores: Tensor, targets: Tensor) -> BatchRows:
        """Of each text the tokens, their loss, and those that are right, `[B, 3]`."""
        if scores.ndim != 3 or targets.shape != (scores.shape[0], scores.shape[2]):
            raise DataError(
                f"a report of tokens takes logits [B, V, T] and tokens [B, T]; got {list(scores.shape)} and "
                f"{list(targets.shape)}"
            )
        targets = targets.long()
        counted = targets != self._ignore
        losses = torch.nn.functional.cross_entropy(
            scores.double(), targets, ignore_index=self._ignore, reduction="none"
        )
        right = (scores.argmax(1) == targets) & counted
        sums = torch.stack([counted.double().sum(1), losses.sum(1), right.double().sum(1)], 1)
        return BatchRows({"sums": as_array(sums)})

    def report(self, tuned: float | None = None, labels: Sequence[str] | None = None) -> Report:  # noqa: ARG002
        """The report over all batches."""
        blocks = bootstrap.BlockSums(len(self.rows), 3)
        for (part,) in self.rows.parts("sums"):
            blocks.add(part)
        if not blocks.total[0]:
            raise DataError("there is no token to report on: every token is ignore_index")
        sums = self.rows.array("sums")
        return Report(
            task="language_modelling",
            examples=len(sums),
            numbers=numbers_of(scores_of(blocks.total), scores_of(blocks.replicates())),
            tables=(),
            panels=(),
            scores={"tokens": sums[:, 0], "loss": sums[:, 1], "right": sums[:, 2]},
        )


def scores_of(sums: Numbers) -> dict[str, Numbers]:
    """The numbers of the report `[...]`, from sums of tokens, losses and right tokens `[..., 3]`."""
    tokens, losses, right = np.moveaxis(sums, -1, 0)
    mean = ratio(losses, tokens)
    with np.errstate(over="ignore"):
        perplexity = np.exp(mean)
    return {
        "loss_per_token": mean,
        "perplexity": perplexity,
        "bits_per_token": mean / np.log(2),
        "accuracy": ratio(right, tokens),
    }
