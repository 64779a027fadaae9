"""What compiling a training step saves and takes, estimated from counts alone.

Nothing is timed, and no store of compiled programs is looked at: the estimate is a function of model, optimizer and
batch. The constants are rounded measurements; docs/decisions.md has the figures.
"""

from typing import Any, NamedTuple

from torch import Tensor

from functrain.foundation.torch_internals import TorchDispatchMode, cpu_attention
from functrain.step.naming import metric_names
from functrain.step.state import TrainState

FORWARD_AND_BACKWARD = 3  # times the operations and elements of a forward pass
OF_A_STEP, OF_A_LEAF = 50, 12  # operations of guard, norm and metrics; of one parameter tensor's update
COMPILER, COMPILED_OPERATION = 12.0, 0.025  # seconds that the compiler takes for any step, and for each operation
SAVED_OPERATION = 6e-6  # seconds of the host for an operation of an eager step


class Saved(NamedTuple):
    """Seconds that fused loops save on a device.

    Attributes:
        element: of an activation or a gradient that need not be written and read.
        parameter: for each element of a trained parameter, whose update writes some ten values.
    """

    element: float
    parameter: float


CPU, ACCELERATOR = Saved(1e-10, 3e-9), Saved(5e-12, 5e-11)


class Work(NamedTuple):
    """What a forward pass does beside matrix products, convolutions and attention.

    Attributes:
        operations: calls of torch's operators, the products among them. Views are not counted: they move nothing.
        elements: what the operators write, the products' results left out.
    """

    operations: int
    elements: float


def forward_work(state: TrainState, batch: Any) -> Work:
    """Count the work of the objective on a batch, in training mode and without a gradient. Changes nothing.

    Example:
        >>> import functrain as ft, torch
        >>> model = torch.nn.Sequential(torch.nn.Linear(8, 4), torch.nn.ReLU())
        >>> state = ft.init_state(model, ft.regression(), ft.optim.sgd(0.1))
        >>> small, large = (forward_work(state, (torch.ones(n, 8), torch.zeros(n, 4))) for n in (8, 16))
        >>> small.operations == large.operations, small.elements < large.elements
        (True, True)
    """
    with _Counter() as counter:
        metric_names(state, batch, training=True)
    return Work(counter.operations, counter.elements)


class Estimate(NamedTuple):
    """Seconds on a machine like the one that the constants were measured on.

    Attributes:
        saves: what a compiled update takes less than an eager one.
        takes: what compiling the step takes.
    """

    saves: float
    takes: float

    def pays(self, updates: int) -> bool:
        """Whether compiling saves more time in so many updates than it takes."""
        return updates * self.saves > self.takes


def estimate(state: TrainState, work: Work, passes: int) -> Estimate:
    """What compiling saves and takes.

    Args:
        state: any state of the run.
        work: of the forward pass of a micro-batch.
        passes: micro-batches of an update.
    """
    trained = [state.params[name] for name in state.recipe.network.trainable]
    once = OF_A_STEP + OF_A_LEAF * len(trained)
    operations = FORWARD_AND_BACKWARD * work.operations
    saved = CPU if state.device.type == "cpu" else ACCELERATOR
    saves = (
        SAVED_OPERATION * (once + operations * passes)
        + saved.element * FORWARD_AND_BACKWARD * work.elements * passes
        + saved.parameter * sum(parameter.numel() for parameter in trained)
    )
    return Estimate(saves, COMPILER + COMPILED_OPERATION * (once + operations))


class _Counter(TorchDispatchMode):
    """Counts the operators that run within it."""

    def __init__(self) -> None:
        super().__init__()
        from torch.utils.flop_counter import flop_registry

        self.operations = self.elements = 0
        self._products = {*flop_registry, *cpu_attention()}

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Else torch wraps the method below in something that imports all of Dynamo, for a second and more."""
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run `func` and count it."""
        result = func(*args, **(kwargs or {}))
        if not func.is_view:
            self.operations += 1
            if func.overloadpacket not in self._products:
                results = result if isinstance(result, (list, tuple)) else (result,)
                self.elements += sum(each.numel() for each in results if isinstance(each, Tensor))
        return result
