"""The report of a language model: how well it foresees tokens, where in a text, and how sure it is."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from functrain.evaluation import bootstrap
from functrain.evaluation.calibrations import BINS
from functrain.evaluation.kept_rows import BatchRows, as_array
from functrain.evaluation.panels import Panel, probabilities, tokens
from functrain.evaluation.quotients import ratio
from functrain.evaluation.reports.report import Collector, NotANumber, Report, numbers_of
from functrain.foundation.errors import DataError
from functrain.metrics.probabilities import bin_of

Numbers = NDArray[np.float64]


BARS, BITS_OF_A_BAR = 64, 0.5  # of the losses of tokens: a guess among 65,536 has a loss of 16 bits
_GROUPS_OF_A_DOUBLING = 4  # of positions: the first eight stand alone
_GROUPS = 32 * _GROUPS_OF_A_DOUBLING


class LanguageModelling(Collector):
    """Collects sums over the tokens of each text, from logits `[B, V, T]` and tokens `[B, T]`; no logits are kept."""

    def of_batch(self, scores: Tensor, targets: Tensor) -> BatchRows:
        """Of each text the tokens, their loss, and those that are right, `[B, 3]`; what the figures need of all."""
        if scores.ndim != 3 or targets.shape != (scores.shape[0], scores.shape[2]):
            raise DataError(
                f"a report of tokens takes logits [B, V, T] and tokens [B, T]; got {list(scores.shape)} and "
                f"{list(targets.shape)}"
            )
        targets, scores = targets.long(), scores.double()
        counted = targets != self._ignore
        losses = torch.nn.functional.cross_entropy(scores, targets, ignore_index=self._ignore, reduction="none")
        best, predicted = scores.max(1)
        right = (predicted == targets) & counted
        sums = torch.stack([counted.double().sum(1), losses.sum(1), right.double().sum(1)], 1)
        chosen = scores.gather(1, torch.where(counted, targets, 0)[:, None]).squeeze(1)
        sureness = (best - chosen - losses).exp()  # a loss is log(sum of exp) less the target's score
        found = {
            "positions": _by_position(counted, losses),
            "losses": _histogram(losses[counted]),
            "calibration": _by_sureness(sureness[counted], right[counted]),
        }
        return BatchRows({"sums": as_array(sums)}, {name: as_array(each) for name, each in found.items()})

    def report(self, tuned: float | None = None, labels: Sequence[str] | None = None) -> Report:  # noqa: ARG002
        """The report over all batches."""
        blocks, strange = bootstrap.BlockSums(len(self.rows), 3), NotANumber()
        for (part,) in self.rows.parts("sums"):
            strange.look(part)
            blocks.add(part)
        strange.refuse()
        if not blocks.total[0]:
            raise DataError("there is no token to report on: every token is ignore_index")
        sums = self.rows.array("sums")
        numbers = scores_of(blocks.total)
        return Report(
            task="language_modelling",
            examples=len(sums),
            numbers=numbers_of(numbers, scores_of(blocks.replicates())),
            tables=(),
            panels=self._panels(float(numbers["bits_per_token"])),
            scores={"tokens": sums[:, 0], "loss": sums[:, 1], "right": sums[:, 2]},
        )

    def _panels(self, mean: float) -> tuple[Panel, ...]:
        """The figures; `mean` is the loss of a token in bits."""
        kept = self.rows.sums
        return (
            tokens.loss_by_position(kept["positions"]),
            tokens.token_losses(kept["losses"], BITS_OF_A_BAR, mean),
            probabilities.calibration(kept["calibration"], "probability of the predicted token"),
        )


def _by_position(counted: Tensor, losses: Tensor) -> Tensor:
    """Of each group of positions: tokens, the sum of their positions, the sum of their losses in bits, `[3, G]`."""
    places = torch.arange(1, counted.shape[1] + 1, dtype=torch.float64)
    group = (places.log2() * _GROUPS_OF_A_DOUBLING).floor().long()
    number = counted.double().sum(0)
    rows = torch.stack([number, number * places, losses.sum(0) / math.log(2)])
    return torch.zeros(3, _GROUPS, dtype=torch.float64).index_add(1, group, rows)


def _histogram(losses: Tensor) -> Tensor:
    """How many losses `[N]` are in each bar, `[BARS]`."""
    bar = (losses / math.log(2) / BITS_OF_A_BAR).nan_to_num(BARS).clamp(0, BARS - 1).long()
    return torch.bincount(bar, minlength=BARS).double()


def _by_sureness(sureness: Tensor, right: Tensor) -> Tensor:
    """Of each bin of sureness: tokens, the sum of their sureness, how many are right, `[3, BINS]`."""
    rows = torch.stack([torch.ones_like(sureness), sureness, right.double()])
    return torch.zeros(3, BINS, dtype=torch.float64).index_add(1, bin_of(sureness, BINS), rows)


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
