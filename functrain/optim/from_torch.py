"""Any torch.optim.Optimizer as a pure transformation."""

import inspect
from collections.abc import Callable
from typing import Any

import torch

from functrain.foundation import trees
from functrain.foundation.making import remembered
from functrain.foundation.torch_internals import have_no_values
from functrain.foundation.trees import Tree, node, static
from functrain.optim.base import Optimizer, zero_count, zeros_like
from functrain.optim.foreach import aligned_leaves, foreach
from functrain.optim.rates import LearningRateState, initial_rate, next_rate
from functrain.optim.torch_step import Slot, first_slots, layout, step_once


@node
class FromTorchState:
    """State of `from_torch`."""

    count: torch.Tensor  # updates so far, int64 []
    rate: LearningRateState | None  # with a schedule for the learning rate
    slots: Tree  # as params, in the place of each leaf a dictionary: what torch keeps in optimizer.state[parameter]
    special_start: bool = static()  # the first step is not the step from `slots` as they are at first


@remembered
def from_torch(optimizer_class: type[torch.optim.Optimizer], /, **kwargs: Any) -> Optimizer:
    """A torch optimizer, torch's own or anybody's, as a pure function of gradients, state and parameters.

    It must keep all that changes in tensors of `optimizer.state[parameter]`, as torch's own do; and its step
    must take no closure and no sparse gradients (LBFGS, SparseAdam). One that computes with tensors alone is
    also traced and compiled: all of torch's but Adafactor, which asks for a norm's value (use `adafactor`).

    Each update copies parameters, gradients and state, on which the optimizer then works in place; the
    optimizers of `functrain.optim` do not. An optimizer whose first step is special (SGD with momentum and
    dampening) is computed both ways in a traced update, and one is taken.

    Args:
        optimizer_class: the class.
        kwargs: its arguments, `params` left out. `foreach=True` is added where the class knows it. A schedule
            for `lr` enters a traced update as a tensor, with which the optimizer must be able to compute, and
            is in the state, where `reduce_learning_rate` finds it; a number is a constant of the graph.

    Raises:
        TypeError: not a class of optimizers, or its step needs a closure; from `init`, its state is not all tensors.

    Example:
        >>> optimizer, params = from_torch(torch.optim.Adam, lr=0.1), {"w": torch.tensor(1.0)}
        >>> optimizer.update({"w": torch.tensor(2.0)}, optimizer.init(params), params)[0]
        {'w': tensor(-0.1000)}
    """
    _require_class(optimizer_class)
    schedule = kwargs.get("lr") if callable(kwargs.get("lr")) else None
    options = {key: value for key, value in kwargs.items() if key != "lr" or schedule is None}
    if "foreach" in inspect.signature(optimizer_class).parameters:
        options = {"foreach": True, **options}

    def factory(leaves: list[torch.Tensor]) -> torch.optim.Optimizer:
        return optimizer_class(leaves, **options)

    def init(params: Tree) -> FromTorchState:
        zeros_like(params)  # refuses what is no real floating-point tensor
        leaves, spec = trees.flatten(params)
        slots, faithful = first_slots(factory, leaves) if leaves else ([], True)
        rate = None if schedule is None else initial_rate(schedule, params)
        return FromTorchState(zero_count(params), rate, trees.unflatten(spec, list(slots)), not faithful)

    def update(updates: Tree, state: FromTorchState, params: Tree) -> tuple[Tree, FromTorchState]:
        spec, (grads, leaves) = aligned_leaves(updates=updates, params=params)
        if not leaves:
            return updates, state
        old: list[Slot] = spec.flatten_up_to(state.slots)  # type: ignore[assignment]
        lr, rate = (None, None) if schedule is None or state.rate is None else next_rate(schedule, state.rate)
        new, slots = _stepped(state, old, lambda slots: step_once(factory, leaves, grads, slots, lr))
        _same_form(optimizer_class, trees.paths(params), old, slots)
        new_state = FromTorchState(state.count + 1, rate, trees.unflatten(spec, list(slots)), state.special_start)
        return trees.unflatten(spec, foreach("sub", new, leaves)), new_state

    return Optimizer(init, update)


def _require_class(given: Any) -> None:
    if not (isinstance(given, type) and issubclass(given, torch.optim.Optimizer)):
        raise TypeError(f"from_torch takes a subclass of torch.optim.Optimizer, not an instance; got {given!r}")
    closure = inspect.signature(given.step).parameters.get("closure")
    if closure is not None and closure.default is inspect.Parameter.empty:
        raise TypeError(
            f"the step of {given.__name__} needs a closure, to evaluate the loss as often as it likes; "
            "from_torch takes optimizers whose step is a function of one gradient"
        )


Stepped = tuple[list[torch.Tensor], list[Slot]]


def _stepped(state: FromTorchState, old: list[Slot], step: Callable[[list[Slot] | None], Stepped]) -> Stepped:
    """A step from the old state; where the first one is special, that one if it is the first."""
    if not state.special_start:
        return step(old)
    first = state.count == 0
    if not have_no_values([first]):
        return step(None if first else old)
    return trees.tree_map(lambda one, other: torch.where(first, one, other), step(None), step(old))


def _same_form(optimizer_class: type, paths: list[str], old: list[Slot], new: list[Slot]) -> None:
    for path, before, after in zip(paths, old, new):
        if layout(before) != layout(after):
            raise TypeError(
                f"{optimizer_class.__name__} changes the form of its state for {path!r} from {layout(before)} to "
                f"{layout(after)}; from_torch takes optimizers whose state keeps its shapes and dtypes"
            )
