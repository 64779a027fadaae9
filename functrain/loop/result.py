"""What training came to. Imports step and the neighbouring modules."""

from dataclasses import dataclass

from functrain.loop.records import Record
from functrain.step.state import TrainState


@dataclass(frozen=True)
class FitResult:
    """What training came to.

    Attributes:
        state: the last state.
        history: a record per epoch: `epoch, step, lr, train_loss, ..., eval_loss, ...`.
        stopped_by: "epochs", "steps", "early_stopping", "callback", "signal" or "time".
    """

    state: TrainState
    history: list[Record]
    stopped_by: str
