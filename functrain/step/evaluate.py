"""The pure evaluation step."""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, NoReturn

import torch

from functrain.foundation.dtypes import cast_floating
from functrain.foundation.keys import fold_in
from functrain.metrics.totals import Totals
from functrain.objectives.loss import totals_of_each
from functrain.objectives.unfit import raise_explained
from functrain.step.execution import Core, Runner, eager, refuse_autocast
from functrain.step.members.cores import Fed, over_members
from functrain.step.members.stepping import fed, first_batch
from functrain.step.objective import evaluated_losses, run_objective
from functrain.step.passes import Pass
from functrain.step.state import TrainState, require_state
from functrain.step.to_module import to_evaluate


def eval_step(state: TrainState, batch: Any, *, ema: bool = False, run: Runner = eager) -> Totals:
    """The metric sums of one batch, the model in evaluation mode. Changes nothing.

    Pure as `train_step` is: what a model or objective draws at random here depends on the state alone.

    Args:
        state: any state.
        batch: what the objective takes.
        ema: evaluate the averaged parameters (with the averaged buffers, if there are).
        run: what executes the tensor part; `functrain.compile` sets it.

    Returns:
        Sums that can be added over batches: `(totals + totals).means()`. Of a stack, sums have a row for each member.

    Example:
        >>> import functrain as ft, torch
        >>> state = ft.init_state(torch.nn.Linear(2, 1), ft.regression(), ft.optim.sgd(0.1))
        >>> batch = (torch.ones(4, 2), torch.zeros(4, 1))
        >>> totals = ft.eval_step(state, batch) + ft.eval_step(state, batch)
        >>> sorted(totals.means()), totals.weight.item()
        (['loss', 'mae'], 8.0)
    """
    return Evaluation(state, ema=ema, run=run)(batch)


class Evaluation:
    """`eval_step` with one state for batch after batch: what depends on the state alone is done once.

    Args:
        state, ema, run: as of `eval_step`.

    Example:
        >>> import functrain as ft, torch
        >>> state = ft.init_state(torch.nn.Linear(2, 1), ft.regression(), ft.optim.sgd(0.1))
        >>> evaluate = Evaluation(state)
        >>> (evaluate((torch.ones(4, 2), torch.zeros(4, 1))) + evaluate((torch.ones(1, 2), torch.zeros(1, 1)))).weight
        tensor(5., dtype=torch.float64)
    """

    def __init__(self, state: TrainState, *, ema: bool = False, run: Runner = eager) -> None:
        require_state("eval_step", state, members=True)
        refuse_autocast(state.device)
        self._objective = state.recipe.objective
        self._of_members = None if state.members is None else _MEMBER[ema]
        self._state = to_evaluate(state, ema=ema) if self._of_members is None else state
        core = EVALUATE if self._of_members is None else _MEMBERS[self._of_members]
        self._within_users_compile = torch.compiler.is_dynamo_compiling() and run is eager
        if not self._within_users_compile:
            key = partial(fold_in, state.key, "evaluate", state.step)
            self._pass = Pass(run, core, self._state, key, state.device, self._explain)

    def __call__(self, batch: Any) -> Totals:
        """The metric sums of a batch."""
        totals: Totals
        if self._of_members:
            batch = self._fed(batch)
        if not self._within_users_compile:
            totals = self._pass(batch)
            return totals
        from functrain.step import users_compile

        try:
            totals = users_compile.run(EVALUATE, self._state, batch)
        except Exception as error:
            self._explain(error, batch)
        return totals

    def each(self, batches: Sequence[Any], go_on: Callable[[], bool] = lambda: True) -> list[Totals]:
        """The metric sums of each of several batches in memory; they end where `go_on`, asked before each, says no."""
        return self._pass.each([self._fed(batch) for batch in batches] if self._of_members else batches, go_on)

    def _fed(self, batch: Any) -> Any:
        """What the core of a stack gets."""
        assert self._of_members is not None
        try:
            return fed(self._of_members, self._state, batch, ("evaluate", self._state.step))
        except Exception as error:
            self._explain(error, batch)

    def _explain(self, error: Exception, batch: Any) -> NoReturn:
        raise_explained(error, first_batch(batch.batch if isinstance(batch, Fed) else batch), self._objective)


def _evaluate(state: TrainState, batch: Any) -> Totals:
    batch = cast_floating(batch, state.recipe.param_dtype)
    params = state.recipe.collectives.gather(state.params)
    loss, _ = run_objective(state, params, state.buffers, batch, training=False)
    return loss.totals().counted()


def _evaluate_each(state: TrainState, batches: Iterable[Any]) -> list[Totals]:
    params = state.recipe.collectives.gather(state.params)
    return totals_of_each(evaluated_losses(state, params, batches))


EVALUATE = Core(_evaluate, "evaluate", carries_state=False, each=_evaluate_each)


def _evaluate_member(state: TrainState, batch: Any, *, ema: bool) -> Totals:
    return _evaluate(to_evaluate(state, ema=ema), batch)


_MEMBER = {ema: Core(partial(_evaluate_member, ema=ema), "evaluate", carries_state=False) for ema in (False, True)}
_MEMBERS = {core: over_members(core) for core in _MEMBER.values()}
