"""The state before the first step."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from functrain.foundation.keys import root_key
from functrain.metrics.registry import measures
from functrain.metrics.totals import no_totals
from functrain.optim import Ema, Optimizer, early_stopping, plateau
from functrain.step.arguments import check_arguments, check_trains, check_whole_batches, one_average
from functrain.step.devices import usable_device
from functrain.step.execution import refuse_inference_mode
from functrain.step.freezing import frozen
from functrain.step.modules import without_compilers
from functrain.step.network import Network
from functrain.step.scaling import LossScaling, initial_loss_scale
from functrain.step.state import Params, Recipe, TrainState, UpdateCounts, empty_accumulator


def init_state(
    model: nn.Module,
    objective: Callable[[Any, Any], Any],
    optimizer: Optimizer,
    *,
    seed: int = 0,
    precision: str = "fp32",
    accumulate: int = 1,
    clip_norm: float | None = None,
    clip_value: float | None = None,
    ema_decay: float | None = None,
    ema: Ema | None = None,
    loss_scale: float | LossScaling | None = None,
    statistics: str | None = None,
    activation_checkpointing: str | Sequence[str] = (),
    activations: bool = False,
    metrics: Any = None,
    freeze: str | Sequence[str] = (),
    refuse_nonfinite: bool = True,
    device: torch.device | str | None = None,
) -> TrainState:
    """The state before the first step. The model is copied, never changed.

    Args:
        model: any module. Parameters with `requires_grad=False` are frozen. If it is in training mode its
            submodules' modes are kept as they are (a BatchNorm in eval mode stays so); if it is in
            evaluation mode it is trained in training mode.
        objective: `(model, batch) -> Loss`, such as `classification()` or `supervised(F.cross_entropy)`.
        optimizer: a pair (init, update), such as `optim.adamw(1e-3)`.
        seed: of the run's randomness: order of the data, dropout, augmentation. Not of the model's
            initial parameters, which are the model's own.
        precision: "fp32", "bf16", "fp16" (forward and backward under autocast, parameters float32) or
            "fp64" (everything float64). Parameters and floating-point inputs are cast accordingly.
        accumulate: micro-batches per update.
        clip_norm: largest global norm of the gradient.
        clip_value: largest magnitude of a gradient's element, applied before `clip_norm`.
        ema_decay: decay of an exponential moving average of the parameters, kept when given; short for
            `ema=optim.ema(ema_decay)`.
        ema: the rule of that average: with a warm-up of the decay, every so many updates, of the buffers too.
        loss_scale: a constant to multiply the loss by before the backward pass, in any precision (the gradient is
            divided by it again), instead of fp16's scale that adapts itself (a power of two changes no bit); or
            how it adapts itself, such as `LossScaling(growth_interval=100)`.
        statistics: "parameter" or "module": each update's metrics hold `grad/<layer>/...` and `update/<layer>/...` of
            each parameter, or of each module's parameters together: norm, mean, max (of the magnitudes), zeros (the
            fraction) and, of updates, ratio (to the weights' norm). None costs nothing.
        activation_checkpointing: patterns of the paths of modules, such as "blocks.*", that keep no activations but
            their inputs, and run again in the backward pass: less memory for more time, the same gradients.
        activations: each update's metrics hold `activation/<module>/...` of the output of each module that has no
            modules in it: norm, mean, max, zeros; of the last micro-batch in the window, on this process, padding
            included. False costs nothing.
        metrics: what steps measure beside the objective's own metrics, such as `["f1", "auroc"]`, as `fit` takes
            them; see docs/metrics.md.
        freeze: names of parameters that are not trained, or patterns such as "encoder.*": they have no gradient, no
            optimizer state, no update and no weight decay, and keep every bit. Buffers still change.
        refuse_nonfinite: whether an update that is not finite is left out. False: it is applied, and `skipped` tells.
            A compiled, donated step without `clip_norm` then frees each gradient after its update: an eighth of the
            memory above the state for large matrices (docs/memory.md).
        device: where the state goes; default: where the model is.

    Raises:
        TypeError: for a model, objective or optimizer of the wrong kind.
        ValueError: for a value that is not allowed, a pattern that fits no parameter, a model without trainable
            parameters, or a lazy one, or an optimizer that freezes all of them.
        FunctrainError: within `torch.inference_mode()`.

    Example:
        >>> import functrain as ft
        >>> state = ft.init_state(nn.Linear(2, 1), ft.regression(), ft.optim.sgd(0.1))
        >>> sorted(state.params), state.step
        (['bias', 'weight'], 0)
    """
    refuse_inference_mode()
    with frozen(model, freeze):
        check_arguments(
            model,
            objective,
            optimizer,
            precision=precision,
            accumulate=accumulate,
            clip_norm=clip_norm,
            clip_value=clip_value,
            loss_scale=loss_scale,
            statistics=statistics,
            activations=activations,
            refuse_nonfinite=refuse_nonfinite,
        )
        average, device = one_average(ema_decay, ema), usable_device(device)
        model = without_compilers(model)
        recipe = Recipe(
            network=Network(model, activation_checkpointing),
            objective=objective,
            optimizer=optimizer,
            precision=precision,
            accumulate=accumulate,
            clip_norm=clip_norm,
            clip_value=clip_value,
            ema=average,
            loss_scale=loss_scale,
            statistics=statistics,
            activations=activations,
            metrics=measures(metrics),
            refuse_nonfinite=refuse_nonfinite,
        )
        return _first_state(recipe, model, device, seed)


def _first_state(recipe: Recipe, model: nn.Module, device: torch.device | str | None, seed: int) -> TrainState:
    """The state before the first step, with copies of the model's parameters and buffers."""
    params = _copies(model.named_parameters(), recipe.param_dtype, device)
    buffers = _copies(model.named_buffers(), recipe.param_dtype, device)
    trainable = {name: params[name] for name in recipe.network.trainable}
    device = next(iter(trainable.values())).device
    opt_state = recipe.optimizer.init(trainable)
    check_trains(opt_state, trainable)
    accumulates = recipe.accumulate > 1
    if accumulates:
        check_whole_batches(opt_state, f"accumulate={recipe.accumulate}")
    return TrainState(
        params=params,
        buffers=buffers,
        opt_state=opt_state,
        loss_scale=initial_loss_scale(recipe.precision, recipe.loss_scale, device),
        accumulator=empty_accumulator(trainable, buffers) if accumulates else None,
        ema=None if recipe.ema is None else recipe.ema.init(trainable, buffers),
        counts=UpdateCounts(*(torch.zeros((), dtype=torch.int64, device=device) for _ in range(2))),
        epoch_totals=no_totals(device),
        epoch_metrics=None,
        plateau=plateau().init(),
        stopper=early_stopping().init(),
        key=root_key(seed),
        step=0,
        epoch=0,
        batch_idx=0,
        samples_seen=0,
        members=None,
        recipe=recipe,
    )


def _copies(named: Any, dtype: torch.dtype, device: torch.device | str | None) -> Params:
    def copy(tensor: Tensor) -> Tensor:
        target = dtype if tensor.dtype.is_floating_point else tensor.dtype
        return tensor.detach().to(device=device, dtype=target, copy=True)

    return {name: copy(tensor) for name, tensor in named}
