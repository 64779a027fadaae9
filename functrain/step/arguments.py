"""The checks of `init_state`'s arguments."""

import functools
import inspect
from typing import Any

import torch
from torch import nn

from functrain.foundation.dtypes import PRECISIONS
from functrain.foundation.numbers import is_integer
from functrain.foundation.trees import paths
from functrain.metrics.layer_statistics import LAYERS
from functrain.optim import Ema, Optimizer, frozen_paths, takes_two_gradients
from functrain.optim import ema as ema_rule
from functrain.optim.checks import require_number
from functrain.step.scaling import LossScaling


def check_arguments(
    model: Any,
    objective: Any,
    optimizer: Any,
    *,
    precision: str,
    accumulate: int,
    clip_norm: float | None,
    clip_value: float | None,
    loss_scale: float | LossScaling | None,
    statistics: str | None,
    activations: bool,
    refuse_nonfinite: bool,
) -> None:
    """Refuse what `init_state` cannot make a state of.

    Raises:
        TypeError: for a model, objective or optimizer of the wrong kind.
        ValueError: for a value that is not allowed, or a model without trainable parameters.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}")
    if isinstance(objective, nn.Module) or not callable(objective):
        raise TypeError(
            f"objective must be a function (model, batch) -> Loss, got {type(objective).__name__}; an "
            "ordinary loss becomes one with functrain.supervised(loss)"
        )
    _check_takes_two(objective)
    torch_class = optimizer if isinstance(optimizer, type) else type(optimizer)
    if issubclass(torch_class, torch.optim.Optimizer):
        name = torch_class.__name__
        raise TypeError(
            f"optimizer is torch's {name}, which changes parameters in place; write "
            f"optim.from_torch(torch.optim.{name}, lr=...), or take one of functrain.optim, such as optim.adamw(1e-3)"
        )
    if not isinstance(optimizer, Optimizer):
        raise TypeError(
            f"optimizer must be a pair (init, update) from functrain.optim, such as optim.adamw(1e-3); got "
            f"{type(optimizer).__name__}"
        )
    if precision not in PRECISIONS:
        raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}; got {precision!r}")
    if not is_integer(accumulate, 1):
        raise ValueError(f"accumulate must be a whole number of micro-batches, 1 or more; got {accumulate!r}")
    for name, value in (("clip_norm", clip_norm), ("clip_value", clip_value)):
        if value is not None:
            require_number(name, value)
        if value is not None and not value > 0:
            raise ValueError(f"{name} must be greater than 0, or None for no clipping; got {value!r}")
    if statistics is not None and statistics not in LAYERS:
        raise ValueError(f"statistics must be one of {', '.join(LAYERS)}, or None; got {statistics!r}")
    if not isinstance(activations, bool):
        raise TypeError(f"activations must be True or False, got {activations!r}")
    if not (loss_scale is None or isinstance(loss_scale, LossScaling)):
        require_number("loss_scale", loss_scale)
    if not (loss_scale is None or isinstance(loss_scale, LossScaling) or 0 < loss_scale < float("inf")):
        raise ValueError(f"loss_scale must be a number greater than 0, a power of two best; got {loss_scale!r}")
    if not isinstance(refuse_nonfinite, bool):
        raise TypeError(f"refuse_nonfinite must be True or False, got {refuse_nonfinite!r}")
    adapts = isinstance(loss_scale, LossScaling) or (precision == "fp16" and loss_scale is None)
    if adapts and not refuse_nonfinite:
        raise ValueError(
            "refuse_nonfinite=False goes with no loss scale that adapts itself, which tries scales until an update "
            "overflows. Give a constant loss_scale, or precision='bf16'"
        )
    if not any(p.requires_grad for p in model.parameters()):
        raise ValueError(
            f"the model ({type(model).__name__}) has no trainable parameter: every one has "
            "requires_grad=False, or there is none"
        )


def check_trains(opt_state: Any, trainable: Any) -> None:
    """Refuse an optimizer that leaves every parameter as it is.

    Raises:
        ValueError: if it does.
    """
    if frozen_paths(opt_state) >= set(paths(trainable)):
        raise ValueError(
            "the optimizer freezes every parameter (optim.freeze()), so nothing would be trained. Give at least one "
            "group of parameters another optimizer"
        )


def _check_takes_two(objective: Any) -> None:
    """Refuse a factory that was not called, and an ordinary loss of outputs and targets."""
    name = getattr(objective, "__name__", type(objective).__name__)
    if (getattr(objective, "__module__", None) or "").partition(".")[0] == "torch":
        raise TypeError(
            f"objective must be a function (model, batch) -> Loss, got torch's {name}, a loss of outputs and targets: "
            f"write functrain.supervised({name})"
        )
    try:
        signature = inspect.signature(objective)
    except (TypeError, ValueError):  # it does not say
        return
    try:
        signature.bind(None, None)
    except TypeError:
        makes = not isinstance(objective, functools.partial)
        call = f" If {name} makes an objective, call it: {name}()" if makes else ""
        raise TypeError(
            f"objective must be a function (model, batch) -> Loss; got {name}{signature}, which does not take these "
            f"two.{call}"
        ) from None


def check_whole_batches(opt_state: Any, parts: str) -> None:
    """Refuse `optim.sam` where an update's batch comes in parts, said how.

    Raises:
        ValueError: if the optimizer's state has it.
    """
    if takes_two_gradients(opt_state):
        raise ValueError(
            f"optim.sam needs the batch of an update whole, got {parts}: it climbs along the gradient of all of it, "
            "after which every part would have to come again. Take a larger batch, or the optimizer without optim.sam"
        )


def one_average(ema_decay: float | None, ema: Ema | None) -> Ema | None:
    """The rule that two ways of giving it come to.

    Raises:
        TypeError: `ema` is no rule.
        ValueError: both are given, or the decay is out of range.
    """
    if ema is not None and not isinstance(ema, Ema):
        raise TypeError(f"ema must be a rule made by optim.ema, such as optim.ema(0.999), got {ema!r}")
    if ema_decay is None:
        return ema
    if ema is not None:
        raise ValueError("give ema_decay or ema, not both: ema_decay=0.9 is short for ema=optim.ema(0.9)")
    require_number("ema_decay", ema_decay)
    if not 0.0 <= ema_decay < 1.0:
        raise ValueError(f"ema_decay must be at least 0 and less than 1; got {ema_decay!r}")
    return ema_rule(ema_decay)
