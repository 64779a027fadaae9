"""Which parameters and buffers of a state to evaluate with, and the way back to a module."""

from torch import nn

from functrain.optim import evaluation_params
from functrain.step.state import Params, TrainState, require_state


def to_module(state: TrainState, *, ema: bool = False) -> nn.Module:
    """The trained `nn.Module`, in the mode that the model was given in: call `.eval()` before you predict with it.

    It has copies of the state's parameters and buffers. A model is mostly given in training mode, in which dropout and
    BatchNorm work. The modes are kept, for each module by itself, so that `init_state(to_module(state), ...)` trains on
    as before, with a frozen BatchNorm that was in evaluation mode. `functrain.predict` needs no module.

    Of the state of an optimizer that averages (schedule-free, ASGD) it has the averages, which are the ones to use.

    Args:
        state: any state.
        ema: take the averaged parameters instead.

    Raises:
        ValueError: if `ema` is asked of a state without one.

    Example:
        >>> import functrain as ft
        >>> state = ft.init_state(nn.Linear(2, 1), ft.regression(), ft.optim.sgd(0.1))
        >>> ft.to_module(state)
        Linear(in_features=2, out_features=1, bias=True)
    """
    require_state("to_module", state)
    state = _whole(state, ema=ema)
    params = state.recipe.collectives.gather(chosen_params(state, ema=ema))
    return state.recipe.network.module(params, chosen_buffers(state, ema=ema))


def chosen_params(state: TrainState, *, ema: bool) -> Params:
    """The parameters to evaluate with: the optimizer's own averages, if it makes such, or the moving ones."""
    if not ema:
        trainable = {name: state.params[name] for name in state.recipe.network.trainable}
        chosen = evaluation_params(state.opt_state, trainable)
        return state.params if chosen is trainable else {**state.params, **chosen}
    if state.ema is None:
        raise ValueError("this state keeps no moving average; give init_state an ema_decay, such as 0.999")
    return {**state.params, **state.ema.params}


def chosen_buffers(state: TrainState, *, ema: bool) -> Params:
    """The state's buffers, or their averages if it keeps such."""
    averaged = ema and state.ema is not None and state.recipe.ema is not None and state.recipe.ema.average_buffers
    return state.ema.buffers if averaged and state.ema is not None else state.buffers


def to_evaluate(state: TrainState, *, ema: bool) -> TrainState:
    """What an evaluation needs of a state: the parameters and buffers to evaluate with, and none of training's own."""
    state = _whole(state, ema=ema)
    return state.replace(
        params=chosen_params(state, ema=ema),
        buffers=chosen_buffers(state, ema=ema),
        opt_state=(),
        accumulator=None,
        epoch_metrics=None,
        ema=None,
        loss_scale=None,
    )


def _whole(state: TrainState, *, ema: bool) -> TrainState:
    """With what is chosen from below whole, if the state is kept in shards: then all processes must ask together."""
    exchange = state.recipe.exchange
    return state if exchange is None else exchange.to_evaluate(state, ema=ema)
