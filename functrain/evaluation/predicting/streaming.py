"""Predictions one after another, each of them the same whatever its companions."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from torch import Tensor

from functrain.evaluation.archived import ArchivedModel
from functrain.evaluation.predicting.sources import Sample
from functrain.evaluation.prediction import answers
from functrain.objectives.outputs import output_of
from functrain.step.state import TrainState

ROWS = 32
FLIPS: dict[str, tuple[int, ...]] = {"none": (), "horizontal": (-1,), "vertical": (-2,), "both": (-2, -1)}


class Prediction(NamedTuple):
    """What the model says of one input.

    Attributes:
        name: the input's.
        scores: what the loss would compare with a target, such as logits `[C]`; a tensor without the batch's dimension.
        spread: how far the members of an ensemble are apart, by name; empty of one model.
    """

    name: str
    scores: Tensor
    spread: Mapping[str, float] = MappingProxyType({})


def predict_each(
    state: TrainState | ArchivedModel,
    samples: Iterable[Sample],
    *,
    rows: int = ROWS,
    ema: bool = False,
    compile: bool = False,
    flips: Sequence[str] = ("none",),
) -> Iterator[Prediction]:
    """The predictions of inputs, in their order; a batch at a time is in memory.

    The model always gets `rows` rows, filled up with copies of the last one. So the bits of a prediction depend neither
    on the other inputs nor on their number. Inputs of another shape begin another batch.

    Args:
        state: any state, which is not changed; or a model out of an archive.
        samples: the inputs.
        rows: of the model's batches. Another number may give other last bits.
        ema: use the averaged parameters.
        compile: compile the forward pass first, which pays for many inputs only.
        flips: averages over mirrored inputs, of which outputs of the inputs' height and width are mirrored back:
            of "none", "horizontal", "vertical" and "both".

    Raises:
        ValueError: for a flip that does not exist, or flips of inputs that are no images.
        TypeError: if the model returns no tensor that the objective would take.

    Example:
        >>> import functrain as ft
        >>> state = ft.init_state(torch.nn.Linear(2, 3), ft.classification(), ft.optim.sgd(0.1))
        >>> inputs = [Sample(str(i), torch.full((2,), float(i))) for i in range(5)]
        >>> [(one.name, one.scores.shape) for one in predict_each(state, inputs)][-1]
        ('4', torch.Size([3]))
    """
    unknown = [flip for flip in flips if flip not in FLIPS]
    if unknown or not flips:
        raise ValueError(f"flips are of {', '.join(FLIPS)}, at least one; got {', '.join(unknown) or 'none'}")
    names: list[list[str]] = []

    def batches() -> Iterator[Tensor]:
        for _, alike in groupby(samples, key=lambda sample: (sample.value.shape, sample.value.dtype)):
            for part in _parts(alike, rows):
                names.append([sample.name for sample in part])
                values = torch.stack([sample.value for sample in part])
                filled = torch.cat([values, values[-1:].expand(rows - len(values), *values.shape[1:])])
                yield from (_flipped(filled, flip) for flip in flips)

    given = answers(state, batches(), ema=ema, compile=compile, with_targets=False)
    for together in _together(given, len(flips)):
        scores = _mean([_back(_scores(state, outputs), flip) for (outputs, _), flip in zip(together, flips)])
        yield from map(Prediction, names.pop(0), scores)


def _parts(samples: Iterable[Sample], rows: int) -> Iterator[list[Sample]]:
    part: list[Sample] = []
    for sample in samples:
        part.append(sample)
        if len(part) == rows:
            yield part
            part = []
    if part:
        yield part


def _together(given: Iterable[Any], count: int) -> Iterator[list[Any]]:
    iterator = iter(given)
    for first in iterator:
        yield [first, *(next(iterator) for _ in range(count - 1))]


def _flipped(values: Tensor, flip: str) -> Tensor:
    if flip != "none" and values.ndim < 3:
        raise ValueError(
            f"flips are for images, [C, H, W] or [H, W]; these inputs have the shape {list(values.shape[1:])}"
        )
    return values.flip(FLIPS[flip])


def _back(scores: Tensor, flip: str) -> Tensor:
    return scores.flip(FLIPS[flip]) if scores.ndim >= 3 else scores


def _mean(scores: list[Tensor]) -> Tensor:
    return scores[0] if len(scores) == 1 else torch.stack(scores).mean(0)


def _scores(state: TrainState | ArchivedModel, outputs: Any) -> Tensor:
    output = state.output if isinstance(state, ArchivedModel) else getattr(state.recipe.objective, "output", None)
    return output_of(outputs, output, "logits")
