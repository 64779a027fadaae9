"""Make a program of a trained model, and see that it computes what the model computes."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from functrain.data import batch_length, pad_batch
from functrain.evaluation.archived import ARCHIVED, ArchivedModel
from functrain.evaluation.forward import FORWARD
from functrain.evaluation.plain_trees import taken_apart
from functrain.evaluation.program import Program, Untraceable, in_a_line, rows_of, trace
from functrain.objectives.examples import takes_lists
from functrain.step.execution import Core, eager
from functrain.step.state import TrainState

CPU = torch.device("cpu")
EXAMPLES = 8  # that the program is traced and compared with


class Traced(NamedTuple):
    """A program that was compared with its model.

    Attributes:
        program: of the model.
        tensors: the parameters and buffers.
        key: of the state.
        difference: of its outputs from the model's, as a part of the largest output; 0: they have the same bits.
    """

    program: Program
    tensors: dict[str, Tensor]
    key: int
    difference: float


def traced_program(state: TrainState, inputs: Any) -> Traced:
    """A program for any number of examples, or else for as many as it was traced with.

    Args:
        state: on the CPU, as `to_evaluate` gives it.
        inputs: of a batch; the first examples are used.

    Raises:
        Untraceable: there is none, or its outputs are not the model's.
    """
    if takes_lists(state.recipe.objective) and isinstance(inputs, (tuple, list)):
        raise Untraceable(
            "the model takes lists, such as images of several sizes; a program has a fixed number of inputs"
        )
    inputs = rows_of((inputs,) if isinstance(inputs, Tensor) else inputs, 0, EXAMPLES)
    if batch_length(inputs) == 1:
        inputs = pad_batch((inputs, None), 2)[0]  # torch.export takes a size of 1 for a constant
    first = ""
    for any_rows in (True, False):
        try:
            return _compared(state, trace(state, inputs, any_rows=any_rows), inputs)
        except Untraceable as error:
            first = first or str(error)
    raise Untraceable(first)


def _compared(state: TrainState, program: Program, inputs: Any) -> Traced:
    tensors = {**state.params, **state.buffers}
    model, worst = ArchivedModel(program, tensors, state.key, {}), 0.0
    for rows in sorted({1, batch_length(inputs) - 1, batch_length(inputs)}):
        batch = rows_of(inputs, 0, rows)
        try:
            expected = _outputs(FORWARD, state, batch, state.key)
            found = _outputs(ARCHIVED, model, batch, state.key)
        except Exception as error:  # of the model on the CPU, or of a guard that does not hold for these rows
            raise Untraceable(f"with {rows} examples it fails: {in_a_line(error)}") from error
        worst = max([worst, *(_difference(*pair) for pair in zip(expected, found, strict=True))])
    # Rounding in another order loses some of the last digits, not half of them.
    if not worst <= torch.finfo(program.dtype).eps ** 0.5:
        raise Untraceable(f"the traced program's outputs differ from the model's by {worst:.1e} of the largest one")
    return Traced(program, tensors, state.key, worst)


def _outputs(core: Core, state: Any, inputs: Any, key: int) -> list[Tensor]:
    return taken_apart(eager(core, state, inputs, key=lambda: key, device=CPU))[1]


def _difference(expected: Tensor, found: Tensor) -> float:
    if (expected.dtype, expected.shape) != (found.dtype, found.shape):
        raise Untraceable(f"the traced program gives {list(found.shape)}, and the model {list(expected.shape)}")
    if torch.equal(expected, found):
        return 0.0
    if not expected.is_floating_point():
        return float("inf")
    distance, largest = (expected - found).abs().max().item(), expected.abs().max().item()
    return distance / largest if largest else float("inf")
