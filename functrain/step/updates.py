"""Several updates in one call, without a state for each."""

from typing import Any

from functrain.foundation.keys import fold_in
from functrain.objectives.examples import count_examples
from functrain.objectives.unfit import raise_explained
from functrain.step.execution import Runner, refuse_autocast, refuse_inference_mode
from functrain.step.finish import Metrics
from functrain.step.state import TrainState
from functrain.step.train import UPDATE


class Updates:
    """`train_step` again and again, where nobody looks at the states in between: the same bits in less time.

    Args:
        state: where they begin, with no accumulation; it is as good as donated, if the runner donates.
        run: a runner that makes series, such as a compiled step's `runner`.

    Attributes:
        step, epoch, batch_idx, samples_seen: those of the state so far.

    Raises:
        ValueError: for a state with accumulation.

    Example:
        >>> import functrain as ft, torch
        >>> state = ft.init_state(torch.nn.Linear(2, 1), ft.regression(), ft.optim.sgd(0.1))
        >>> updates = Updates(state, ft.compile(ft.train_step, backend="eager").runner)
        >>> for _ in range(3):
        ...     metrics = updates((torch.ones(4, 2), torch.zeros(4, 1)))
        >>> updates.end().step, updates.samples_seen
        (3, 12)
    """

    def __init__(self, state: TrainState, run: Runner) -> None:
        refuse_autocast(state.device)
        refuse_inference_mode()
        if state.accumulator is not None or state.recipe.exchange is not None:
            raise ValueError(
                f"a series of updates needs a state with accumulate=1, and not from functrain.shard; this has "
                f"accumulate={state.recipe.accumulate}"
            )
        self.step, self.batch_idx, self.samples_seen = state.step, state.batch_idx, state.samples_seen
        self.epoch = state.epoch
        self._series, self._device = run.series(state), state.device
        self._key, self._rank = state.key, state.recipe.collectives.rank
        self._objective = state.recipe.objective
        self._count = count_examples(self._objective)

    def __call__(self, batch: Any, examples: int | None = None) -> Metrics:
        """One update; arguments as of `train_step`.

        Returns:
            Its metrics as the core gives them. `named_metrics` makes those of `train_step` of them: naming the 100
            numbers of a confusion matrix takes 40 us, and most updates are not recorded.
        """
        try:
            metrics: Metrics = self._series(UPDATE, batch, key=self._step_key, device=self._device)
        except Exception as error:
            raise_explained(error, batch, self._objective)
        self.step += 1
        self.batch_idx += 1
        self.samples_seen += self._count(batch) if examples is None else examples
        return metrics

    def _step_key(self) -> int:
        return fold_in(self._key, "step", self.step, 0, self._rank)

    def end(self) -> TrainState:
        """The state after the updates; nothing more may be done with the series."""
        state: TrainState = self._series.end()
        # The series' own object, so it is filled in rather than copied.
        state.__dict__.update(step=self.step, batch_idx=self.batch_idx, samples_seen=self.samples_seen)
        return state
