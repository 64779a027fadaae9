"""Whether there is a metric of the name that a run watches: found out before anything is compiled, where it can be."""

from collections.abc import Mapping
from typing import Any

from functrain.foundation.errors import NoLossError
from functrain.loop.memory import split_batch
from functrain.loop.settings import Settings
from functrain.loop.watched_names import watched_prefixes
from functrain.objectives.examples import takes_lists
from functrain.objectives.supervised import Objective, may_lack_loss
from functrain.step.naming import metric_names
from functrain.step.state import TrainState

LOSS = "loss"  # every objective has it


def watched_metric(settings: Settings, objective: Objective) -> "Watched":
    """What a run watches; the default counts as named where a rule decides by it."""
    evaluates = settings.eval_loader is not None
    name = settings.watch or ("eval_loss" if evaluates and settings.decisions.decide else None)
    return Watched(name, evaluates, has_loss=not (evaluates and may_lack_loss(objective)))


class Watched:
    """The name of the watched record, and whether it is known to be right.

    Args:
        name: as given to `fit`; None for the default, where nothing depends on it.
        evaluates: whether there is an eval_loader.
        has_loss: whether an evaluation is sure to have a loss.

    Attributes:
        is_known: whether some record will have it.
        was_sought: whether it is known, or was looked for in vain.
    """

    def __init__(self, name: str | None, evaluates: bool, *, has_loss: bool = True) -> None:
        self.name = name
        self._evaluates = evaluates
        self.is_known = self.was_sought = name is None or (name.partition("_")[2] == LOSS and has_loss)

    def before_training(self, state: TrainState, batch: Any, rows: int | None) -> None:
        """Run the objective once, eagerly and without a gradient, to hear the names of its metrics.

        If that fails, training will say why, and the name is looked for in the records.

        Args:
            state: the run's first.
            batch: its first.
            rows: examples that fit into memory at a time; None: all.

        Raises:
            ValueError: no metric has the name.
            NoLossError: a metric of the evaluation has it, and the model has no loss there.
        """
        self.was_sought = True
        prefixes = watched_prefixes(self._evaluates, state.ema is not None)
        try:
            part = split_batch(batch, rows, pads=False, lists=takes_lists(state.recipe.objective))[0]
            names = {training: self._names(state, part, training) for training in {p == "train_" for p in prefixes}}
        except NoLossError:
            raise
        except Exception:
            return
        self._look([prefix + name for prefix in prefixes for name in names[prefix == "train_"]])

    def _names(self, state: TrainState, batch: Any, training: bool) -> tuple[str, ...]:
        try:
            return metric_names(state, batch, training=training)
        except NoLossError as error:
            if not training:
                self.unevaluated(error)
            return ()

    def unevaluated(self, error: NoLossError) -> None:
        """Take notice that the model has no loss in evaluation mode.

        Raises:
            NoLossError: the watched metric is one of the evaluation.
        """
        if self.name is not None and not self.name.startswith("train_"):
            raise NoLossError(
                f"{self.name!r} cannot be watched (for the best checkpoint, plateau or early_stopping): {error}. Set "
                "watch='train_loss'"
            ) from error

    def in_record(self, record: Mapping[str, Any]) -> None:
        """Look for the name in an epoch's record.

        Raises:
            ValueError: it is not there, and would be.
        """
        assert self.name is not None
        known = [name for name in record if name.startswith(("train_", "eval_", "ema_"))]
        if f"{self.name.partition('_')[0]}_{LOSS}" in known:  # else this epoch is not evaluated
            self._look(known)

    def _look(self, known: list[str]) -> None:
        if self.name not in known:
            raise ValueError(f"watch must be one of {', '.join(known)}; got {self.name!r}")
        self.is_known = True
