"""Arguments for each loss of the registry, and its sums: what tests over all of them share."""

import inspect

import pytest
import torch

from functrain.metrics.weighted_sums import times_example_weight
from functrain.objectives.losses import BINARY, CLASSES, PAIRS, REGISTRY, TEACHERS, VALUES

every_loss = pytest.mark.parametrize("name", REGISTRY)
GROUPS = {"classes": CLASSES, "binary": BINARY, "values": VALUES, "pairs": PAIRS, "teachers": TEACHERS}
SIZE = (3, 2)  # positions of an example


def arguments(name, examples, generator, dtype=torch.float64):
    """Predictions and targets for a loss of its table; some labels are ignored."""

    def normal(*shape):
        return 3 * torch.randn(shape, generator=generator, dtype=dtype)

    if name in VALUES:
        return normal(examples, *SIZE), normal(examples, *SIZE)
    if name in TEACHERS:
        return normal(examples, 5, *SIZE), normal(examples, 5, *SIZE)
    if name in PAIRS:
        return normal(examples, 4), normal(examples, 4)
    if name in CLASSES:
        predictions, targets = normal(examples, 5, *SIZE), torch.randint(5, (examples, *SIZE), generator=generator)
    else:
        predictions, targets = normal(examples, *SIZE), torch.randint(2, (examples, *SIZE), generator=generator)
    ignored = torch.rand(targets.shape, generator=generator) < 0.2
    return predictions, torch.where(ignored, -100, targets)


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def tensor_options(name, **tensors):
    """Those of the tensors that the loss has a parameter for."""
    return {key: value for key, value in tensors.items() if key in inspect.signature(REGISTRY[name]).parameters}


def sums(name, predictions, targets, weight=None, groups=None):
    """Total, weight and the total's gradient, as a training step has them, with the examples' weights."""
    loss_fn = REGISTRY[name]
    weight = predictions.new_ones(len(predictions)) if weight is None else weight

    def total(predictions):
        result = loss_fn(predictions, targets, **tensor_options(name, weight=weight, groups=groups))
        loss_sum, weight_sum = times_example_weight(result, weight).sums()
        return loss_sum, weight_sum

    grad, (loss_sum, weight_sum) = torch.func.grad_and_value(total, has_aux=True)(predictions)
    return loss_sum, weight_sum, grad
