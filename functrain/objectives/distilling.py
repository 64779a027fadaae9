"""An objective for a student that learns from labels and from its teacher."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from functrain.metrics.weighted_sums import mean_of_rows
from functrain.objectives.combined import weighted_sum
from functrain.objectives.losses.teachers import check_temperature
from functrain.objectives.supervised import Objective
from functrain.objectives.terms import chosen, term


def distillation(*, temperature: float = 4.0, weight: float = 0.9, output: str | int | None = None) -> Objective:
    """Learn the probabilities of a teacher, and labels: `weight * distillation + (1 - weight) * cross_entropy`.

    The targets are a mapping of `labels`, int64 `[B]` or `[B, ...]`, and `teacher`, the teacher's logits, of the
    student's shape. Every example has a label. Without labels, take `supervised("distillation")`, whose targets are
    the teacher's logits. Metrics are `cross_entropy`, `distillation` and `accuracy`. Reports are about the labels.

    Args:
        temperature: that softens both probabilities, greater than 0; see `losses.distillation`.
        weight: of the teacher, 0 to 1.
        output: which of the student's outputs has the logits (a name or an index); None: the only one.

    Raises:
        ValueError: for an argument out of range.

    References:
        Hinton, Vinyals and Dean 2015, "Distilling the Knowledge in a Neural Network", section 2.

    Example:
        >>> import torch
        >>> targets = {"labels": torch.tensor([0, 1]), "teacher": torch.eye(2)}
        >>> loss = distillation(weight=0.5)(torch.nn.Identity(), (torch.eye(2), targets))
        >>> means = loss.totals().means()
        >>> means["distillation"].item(), bool(means["loss"] == means["cross_entropy"] / 2)
        (0.0, True)
    """
    check_temperature(temperature)
    if not 0.0 <= weight <= 1.0:
        raise ValueError(f"weight must be 0 to 1, the teacher's share of the loss; got {weight}")
    terms = {
        "cross_entropy": term("cross_entropy", output=output, target="labels"),
        "distillation": term(
            "distillation", output=output, target="teacher", options={"temperature": float(temperature)}
        ),
    }
    return weighted_sum(
        terms, {"cross_entropy": 1.0 - weight, "distillation": weight}, metrics={"accuracy": _Right(output)}
    )


@dataclass(frozen=True)
class _Right:
    """Which labels are the likeliest class: a value for each example."""

    output: str | int | None

    def __call__(self, outputs: Any, targets: Mapping[str, Tensor]) -> Tensor:
        likeliest = chosen("output", outputs, self.output).argmax(1)
        return mean_of_rows((likeliest == targets["labels"]).float())
