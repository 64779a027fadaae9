"""What training came to."""

from collections.abc import Mapping
from dataclasses import dataclass

from functrain.loop.output.progress_line import exact
from functrain.loop.output.records import Record
from functrain.step.state import DonatedState, TrainState
from functrain.step.summary import as_html, as_text, facts_of


@dataclass(frozen=True)
class FitResult:
    """What training came to.

    Attributes:
        state: the last state.
        history: a record per epoch: `kind, epoch, step, samples, train_loss, ..., eval_loss, ...`.
        stopped_by: "epochs", "steps", "early_stopping", "callback", "signal" or "time".
    """

    state: TrainState
    history: list[Record]
    stopped_by: str

    def __repr__(self) -> str:
        """A few lines, not the numbers of the state."""
        return as_text("FitResult", self._facts())

    def _repr_html_(self) -> str:
        """A small table, which notebooks show."""
        return as_html("FitResult", self._facts())

    def _facts(self) -> Mapping[str, str]:
        last = self.history[-1] if self.history else {}
        metrics = {
            name.replace("_", " ", 1): exact(float(value))
            for name, value in last.items()
            if name.startswith(("train_", "eval_", "ema_"))
        }
        donated = isinstance(self.state, DonatedState)
        return {"stopped by": self.stopped_by} | metrics | ({"state": "donated"} if donated else facts_of(self.state))
