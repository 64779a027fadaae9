"""States between states: averages of weights, and the line from one to another."""

import os
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from functrain.checkpoint import Checkpointer, read_checkpoint
from functrain.foundation.errors import CheckpointError, FunctrainError
from functrain.foundation.numbers import is_integer, is_number
from functrain.foundation.trees import tree_map
from functrain.step.state import Params, TrainState, require_state
from functrain.step.to_module import chosen_params


def average_states(states: Sequence[TrainState], weights: Sequence[float] | None = None) -> TrainState:
    """The state whose parameters are the weighted mean of several: a model soup.

    Floating-point buffers are averaged, too; BatchNorm's statistics do not fit averaged weights, so call
    `recompute_buffers` on the result. Of an optimizer that averages (schedule-free), its averages are taken. The
    optimizer begins anew; objective, counters and all else are those of the first state.

    Args:
        states: of one network, one or more; not changed. Soups are good of runs that began with one pretrained model.
        weights: one for each state; they are divided by their sum. None: all alike.

    Raises:
        ValueError: there is no state, the networks differ, or the weights do not fit or sum to 0.

    References:
        Wortsman et al. 2022, "Model soups: averaging weights of multiple fine-tuned models improves accuracy without
        increasing inference time".

    Example:
        >>> import functrain as ft
        >>> state = ft.init_state(torch.nn.Linear(2, 1, bias=False), ft.regression(), ft.optim.sgd(0.1))
        >>> one, two = (state.replace(params={"weight": torch.full((1, 2), value)}) for value in (1.0, 5.0))
        >>> average_states([one, two], weights=[3, 1]).params
        {'weight': tensor([[2., 2.]])}
    """
    shares = _shares(len(states), weights)
    for state in states:
        require_state("average_states", state)
        _require_like(state, states[0])
    first = states[0]
    params = _mean([chosen_params(state, ema=False) for state in states], shares)
    buffers = _mean([state.buffers for state in states], shares)
    trainable = {name: params[name] for name in first.recipe.network.trainable}
    changed = first.replace(params=params, buffers=buffers, opt_state=first.recipe.optimizer.init(trainable))
    if first.recipe.ema is None:
        return changed
    return changed.replace(ema=first.recipe.ema.init(trainable, buffers))


def interpolate(state_a: TrainState, state_b: TrainState, t: float) -> TrainState:
    """The state at `(1 - t) a + t b`, as `average_states` makes it; t beyond 0 and 1 goes further along the line.

    Raises:
        ValueError: the networks differ, or t is no finite number.

    Example:
        >>> import functrain as ft
        >>> state = ft.init_state(torch.nn.Linear(2, 1, bias=False), ft.regression(), ft.optim.sgd(0.1))
        >>> one, two = (state.replace(params={"weight": torch.full((1, 2), value)}) for value in (1.0, 5.0))
        >>> interpolate(one, two, 0.25).params
        {'weight': tensor([[2., 2.]])}
    """
    if not is_number(t) or not abs(t) < float("inf"):
        raise ValueError(f"t must be a finite number, 0 for the first state and 1 for the second; got {t!r}")
    return average_states([state_a, state_b], [1 - t, t])


def average_along(state: TrainState, run_dir: str | os.PathLike[str], *, last: int = 5) -> TrainState:
    """The average of the last checkpoints of a run: its weights along the trajectory.

    Keep that many checkpoints while you train, `fit(..., keep=5)`. Checkpoints of a state that was not finite are
    passed over.

    Args:
        state: of the form of the run's, such as the one that it began with.
        run_dir: the run's directory.
        last: how many checkpoints, 1 or more; all, if there are fewer.

    Raises:
        CheckpointError: there is no checkpoint, or one does not fit the state.
        ValueError: `last` is not 1 or more.

    References:
        Izmailov et al. 2018, "Averaging Weights Leads to Wider Optima and Better Generalization".

    Example:
        >>> import tempfile, functrain as ft
        >>> state = ft.init_state(torch.nn.Linear(2, 1), ft.regression(), ft.optim.sgd(0.1))
        >>> data = [(torch.ones(4, 2), torch.zeros(4, 1))]
        >>> with tempfile.TemporaryDirectory() as run:
        ...     _ = ft.fit(state, data, epochs=4, keep=3, run_dir=run, compile=False, progress=False)
        ...     average_along(state, run, last=3).step
        4
    """
    require_state("average_along", state)
    if not is_integer(last, 1):
        raise ValueError(f"last must be a whole number of checkpoints, 1 or more; got {last!r}")
    folder = Path(run_dir) / "checkpoints"
    infos = Checkpointer(folder, read_only=True).infos() if folder.is_dir() else []
    finite = [info for info in infos if info.status != "NONFINITE"]
    if not finite:
        raise CheckpointError(f"{run_dir} has no checkpoint to average: give the directory of a run of fit")
    # The newest first: its counters are those of the average.
    return average_states([read_checkpoint(info.path, state).tree for info in reversed(finite[-last:])])


def _mean(trees: Sequence[Params], shares: Sequence[float]) -> Params:
    def mean(*leaves: Tensor) -> Tensor:
        first = leaves[0]
        if not first.is_floating_point():
            return first.clone()
        total = sum(leaf.detach().to(first.device, torch.float64) * share for leaf, share in zip(leaves, shares))
        assert isinstance(total, Tensor)
        return total.to(first.dtype)

    found: Params = tree_map(mean, *[{name: tree[name] for name in trees[0]} for tree in trees])
    return {name: found[name] for name in trees[0]}


def _shares(count: int, weights: Sequence[float] | None) -> list[float]:
    if not count:
        raise ValueError("there is no state to average; give one or more")
    if weights is None:
        return [1 / count] * count
    if len(weights) != count or not all(map(is_number, weights)):
        raise ValueError(f"weights must be a number for each of the {count} states; got {weights!r}")
    total = float(sum(weights))
    if not abs(total) < float("inf") or total == 0:
        raise ValueError(f"weights must have a finite sum other than 0; got {weights!r}")
    return [float(weight) / total for weight in weights]


def _require_like(state: TrainState, first: TrainState) -> None:
    if state.recipe.exchange is not None:
        raise FunctrainError("a state in shards cannot be averaged: call functrain.unshard on it first")
    for kind, own, other in (("parameter", first.params, state.params), ("buffer", first.buffers, state.buffers)):
        if set(own) != set(other):
            name = sorted(set(own) ^ set(other))[0]
            raise ValueError(f"the states are not of one network: only one of them has the {kind} {name!r}")
        for name, leaf in own.items():
            if leaf.shape != other[name].shape:
                raise ValueError(
                    f"the states are not of one network: {kind} {name!r} is {list(leaf.shape)} in the first, and "
                    f"{list(other[name].shape)} in another"
                )
