"""An objective for models that reconstruct what they hide from themselves."""

from dataclasses import dataclass
from typing import Any

import torch

from functrain.metrics.weighted_sums import PerExample, one_each
from functrain.objectives.batch import unpack
from functrain.objectives.loss import Loss
from functrain.objectives.outputs import output_of
from functrain.objectives.supervised import Objective, call
from functrain.objectives.uncounted import zero_uncounted


def masked_reconstruction() -> Objective:
    """The squared error of what a masked autoencoder reconstructs, a mean over the hidden patches of each example.

    The model returns a mapping of `prediction` and `target`, floating `[B, S, ...]`, and `hidden`, bool `[B, S]`, as
    `functrain.models.MaskedAutoencoder` does. Batches are those of other objectives. Their targets are not looked at:
    without labels, give the inputs twice.

    References:
        He et al., Masked Autoencoders Are Scalable Vision Learners, CVPR 2022.

    Example:
        >>> def model(images):
        ...     return {"prediction": images, "target": images + 2, "hidden": torch.eye(3, 4).bool()}
        >>> loss = masked_reconstruction()(model, (torch.zeros(3, 4, 5), None))
        >>> loss.total.item(), loss.weight.item()
        (12.0, 3.0)
    """
    return _Reconstruction()


@dataclass(frozen=True)
class _Reconstruction:
    takes_weight = True

    def __call__(self, model: Any, batch: Any) -> Loss:
        inputs, _, weight = unpack(batch)
        outputs = zero_uncounted(call(model, inputs), weight)
        prediction, target, hidden = (output_of(outputs, name, name) for name in ("prediction", "target", "hidden"))
        errors = (prediction - target).square().flatten(2).mean(2)  # [B, S]
        values = torch.where(hidden, errors, 0.0).sum(1) / hidden.sum(1).clamp(min=1)
        weight = values.new_ones(len(values)) if weight is None else weight
        return Loss(*PerExample(values, one_each(weight, len(values))).sums())
