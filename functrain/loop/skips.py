"""Updates that were refused, and whether they end a run.

A window whose weights sum to 0 is left out too, but is no failure and ends nothing.

Whether an update was refused is known on the device alone. On a CPU looking costs nothing; elsewhere the host would
wait for the device, so it looks once in `log_every` updates.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch

from functrain.loop.settings import Settings
from functrain.metrics.reading import numbers
from functrain.step.nonfinite import nonfinite_message, too_many_skips_message
from functrain.step.state import TrainState

COUNTERS = ("step", "epoch", "batch_idx", "samples_seen")


class Update(NamedTuple):
    """An update, but for the state after it.

    Attributes:
        old: the state before it, if there is one still.
        counters: those of `COUNTERS` before it.
        batch: the micro-batch that ended its window.
        metrics: its metrics.
    """

    old: TrainState | None
    counters: Sequence[int]
    batch: Any
    metrics: Mapping[str, Any]


class Refusal(NamedTuple):
    """An update that was refused, and that ends the run.

    Attributes:
        state: to be saved: that before the update, or the last good one.
        message: what happened.
        message_when_saved: the same, if the state was saved.
    """

    state: TrainState
    message: str
    message_when_saved: str


class SkipWatch:
    """Finds updates that were refused and end the run, as `on_nonfinite` says: the first, or too many in a row.

    Args:
        settings: the run's.
        state: the run's first.
    """

    def __init__(self, settings: Settings, state: TrainState) -> None:
        adapts = state.loss_scale is not None and state.recipe.scaling is not None
        if settings.on_nonfinite == "skip" and not state.recipe.refuse_nonfinite:
            raise ValueError(
                'on_nonfinite="skip" leaves updates out, and a state of refuse_nonfinite=False takes all: make it with '
                'refuse_nonfinite=True, or take on_nonfinite="stop"'
            )
        self._stops_at_first = settings.on_nonfinite == "stop" and not adapts
        self._most = settings.max_consecutive_skips
        self._look_every = 1 if reading_is_free(state.device) else settings.log_every
        self._unread: list[tuple[int, torch.Tensor, torch.Tensor]] = []  # step, skipped, weight_sum: not looked at yet

    def after(self, new: TrainState, update: Update) -> Refusal | None:
        """Look at an update, if its turn has come.

        Args:
            new: the state after it.
            update: it.
        """
        metrics = update.metrics
        if self._stops_at_first:
            if self._look_every == 1 and not _was_refused(metrics):
                return None
            self._unread.append((new.step, metrics["skipped"], metrics["weight_sum"]))
            if len(self._unread) == self._look_every:
                return self.look(new, update)
        elif self._most is not None and new.step % self._look_every == 0:
            skips = int(new.counts.skipped_in_a_row.item())
            if skips >= self._most:
                before = _before(new, update)
                message = too_many_skips_message(before, update.batch, skips, self._most, metrics)
                return Refusal(before, message, f"{message} The state was saved (status NONFINITE).")
        return None

    def look(self, state: TrainState, update: Update | None = None) -> Refusal | None:
        """The first update that was refused since the last look, unless that is wanted; `update` is the last one."""
        unread, self._unread = self._unread, []
        # One transfer, however many steps: each flag by itself would make the host wait for the device.
        read = numbers(number for _, *flags in unread for number in flags)
        bad = [step for (step, *_), skipped, weight in zip(unread, read[::2], read[1::2]) if skipped and weight != 0]
        if not bad:
            return None
        if update is not None and bad[0] == state.step:
            state = _before(state, update)
            message = nonfinite_message(state, update.batch, update.metrics)
        else:
            message = f"the loss or the gradient was not finite at step {bad[0]} (seen at step {state.step}" + (
                "; the updates since then were applied, that one was not)." if state.recipe.refuse_nonfinite else ")."
            )
        message = message.removesuffix(".")
        return Refusal(state, message, f"{message}. The last good state was saved (status NONFINITE)")

    def wants(self, step: int, metrics: Mapping[str, Any]) -> bool:
        """Within a call of several updates: whether this one must be the call's last, for `after` to look at it."""
        if not self._stops_at_first and self._most is None:
            return False
        if self._look_every == 1:
            return _was_refused(metrics)
        if step % self._look_every == 0 or len(self._unread) + 1 == self._look_every:
            return True
        if self._stops_at_first:
            self._unread.append((step, metrics["skipped"], metrics["weight_sum"]))
        return False


def _was_refused(metrics: Mapping[str, Any]) -> bool:
    """Whether an update was refused as a failure: one whose window has weight 0 is left out, and training goes on."""
    return bool(metrics["skipped"].item()) and metrics["weight_sum"].item() != 0


def reading_is_free(device: torch.device) -> bool:
    """Whether the host may read a number of the device's without waiting for what it has asked it to compute."""
    return device.type == "cpu"


def _before(new: TrainState, update: Update) -> TrainState:
    """The state before a refused update: an update that is refused keeps every leaf but the counters."""
    if update.old is not None:
        return update.old
    return new.replace(**dict(zip(COUNTERS, update.counters))) if new.accumulator is None else new
