"""One step of a torch.optim.Optimizer as a function of parameters, gradients and state.

The optimizer object lives for one call: it is built around copies, given its state, stepped and thrown away.
"""

import collections
import contextlib
from collections.abc import Callable, Mapping
from typing import Any

import torch

from functrain.foundation.torch_internals import compiling, have_no_values

Slot = dict[str, Any]  # the state of one parameter: name -> tensor or None
Factory = Callable[[list[torch.Tensor]], torch.optim.Optimizer]


def step_once(
    factory: Factory,
    params: list[torch.Tensor],
    grads: list[torch.Tensor],
    slots: list[Slot] | None,
    lr: torch.Tensor | None,
) -> tuple[list[torch.Tensor], list[Slot]]:
    """The parameters and the state after a step; no argument is changed.

    Args:
        factory: makes the optimizer of a list of tensors.
        params: before the step.
        grads: one for each.
        slots: the state of each parameter, or None for the first step, which makes it.
        lr: learning rate in place of the optimizer's own.

    Raises:
        TypeError: the optimizer keeps something that changes elsewhere than in tensors of its state.
    """
    optimizer, leaves = _built(factory, params, grads)
    if slots is not None:
        optimizer.state.update({leaf: _copied(slot) for leaf, slot in zip(leaves, slots)})
    _step(optimizer, lr, traced=have_no_values([*params, *grads]))
    return leaves, _slots(optimizer, leaves)


def first_slots(factory: Factory, params: list[torch.Tensor]) -> tuple[list[Slot], bool]:
    """A state to begin with, and whether a first step from it is the optimizer's own first step.

    torch's optimizers make their state within their first step: most of them zeros and ones, before they use
    it; SGD's momentum buffer is the first gradient, as if it came from zero. So a step is tried, what the
    optimizer puts into its state is copied as it comes in, and second steps from these copies, and from zeros,
    show bit by bit whether they will do.
    """
    grads = [_probe_gradient(leaf) for leaf in params]
    optimizer, leaves = _built(factory, params, grads)
    recorded: dict[torch.Tensor, Slot] = {}
    optimizer.state = _Recorder(recorded, optimizer.state)
    _step(optimizer, None, traced=False)
    after = _slots(optimizer, leaves)
    copies = [{key: recorded.get(leaf, {}).get(key) for key in slot} for leaf, slot in zip(leaves, after)]
    zeros = [{key: None if old is None else torch.zeros_like(old) for key, old in slot.items()} for slot in after]
    for begin in (copies, zeros):
        if [layout(slot) for slot in begin] == [layout(slot) for slot in after]:
            again_leaves, again = step_once(factory, params, grads, begin, None)
            if _same_bits([*leaves, *_values(after)], [*again_leaves, *_values(again)]):
                return begin, True
    return zeros, False


def _built(
    factory: Factory, params: list[torch.Tensor], grads: list[torch.Tensor]
) -> tuple[torch.optim.Optimizer, list[torch.Tensor]]:
    leaves = [leaf.detach().clone() for leaf in params]
    for leaf, grad in zip(leaves, grads):
        leaf.grad = grad.detach().clone()  # which an optimizer may change in place
    return factory(leaves), leaves


def _step(optimizer: torch.optim.Optimizer, lr: torch.Tensor | None, *, traced: bool) -> None:
    for group in optimizer.param_groups:
        if lr is not None:
            group["lr"] = lr if traced else lr.item()
        if traced and "capturable" in group:
            group["capturable"] = True
    before = [_hyperparameters(group) for group in optimizer.param_groups]
    step: Any = type(optimizer).step
    if getattr(step, "hooked", False):  # by the profiler, whose marks would end up in the graph
        step = step.__wrapped__
    # So that they compute with their step counts and rates as tensors.
    with compiling() if traced else contextlib.nullcontext():
        step(optimizer)
    for group, old in zip(optimizer.param_groups, before):
        if changed := [key for key, value in _hyperparameters(group).items() if value is not old.get(key)]:
            raise TypeError(
                f"{type(optimizer).__name__} changes {changed[0]!r} of its param_groups with a step; from_torch takes "
                "optimizers that keep what changes in tensors of their state"
            )


def _hyperparameters(group: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in group.items() if key != "params"}


def _slots(optimizer: torch.optim.Optimizer, leaves: list[torch.Tensor]) -> list[Slot]:
    name, state = type(optimizer).__name__, optimizer.state
    if len(state) > sum(leaf in state for leaf in leaves):
        raise TypeError(f"{name} keeps a state that belongs to no parameter, which from_torch cannot carry on")
    slots = [dict(state[leaf]) if leaf in state else {} for leaf in leaves]
    for slot in slots:
        for key, value in slot.items():
            if not (value is None or isinstance(value, torch.Tensor)):
                raise TypeError(
                    f"{name} keeps {key!r} of its state as {type(value).__name__}; from_torch takes optimizers that "
                    "keep their state in tensors"
                )
    return [{key: _widened(key, value) for key, value in slot.items()} for slot in slots]


def _widened(key: str, value: torch.Tensor | None) -> torch.Tensor | None:
    """Step counts in float64: traced, `1 - beta^step` is computed in their dtype, and float32 is off by 5e-5."""
    if value is not None and key == "step" and value.ndim == 0 and value.dtype == torch.float32:
        return value.double()
    return value


def _copied(slot: Slot) -> Slot:
    return {key: value.clone() if isinstance(value, torch.Tensor) else value for key, value in slot.items()}


class _Recorder(collections.defaultdict[torch.Tensor, Slot]):
    """An optimizer's state that copies each entry as it is made; those that its constructor made, at once."""

    def __init__(self, recorded: dict[torch.Tensor, Slot], made: Mapping[torch.Tensor, Slot]) -> None:
        super().__init__()
        self.recorded = recorded
        for leaf, slot in made.items():
            own = self[leaf]
            for key, value in slot.items():
                own[key] = value

    def __missing__(self, leaf: torch.Tensor) -> Slot:
        self[leaf] = slot = _RecordingSlot(self.recorded.setdefault(leaf, {}))
        return slot


class _RecordingSlot(Slot):
    def __init__(self, recorded: Slot) -> None:
        super().__init__()
        self.recorded = recorded

    def __setitem__(self, key: str, value: Any) -> None:
        if key not in self.recorded:
            self.recorded[key] = _widened(key, value.clone()) if isinstance(value, torch.Tensor) else value
        super().__setitem__(key, value)


def _probe_gradient(leaf: torch.Tensor) -> torch.Tensor:
    """A gradient of both signs and many sizes, without a random number."""
    waves = torch.arange(leaf.numel(), device=leaf.device, dtype=torch.float64).add(1).mul(0.7).sin()
    return waves.reshape(leaf.shape).to(leaf.dtype)


def layout(slot: Slot) -> dict[str, Any]:
    """Shapes and dtypes of a parameter's state.

    Example:
        >>> layout({"step": torch.tensor(0.0)})
        {'step': (torch.Size([]), torch.float32)}
    """
    return {
        key: (value.shape, value.dtype) if isinstance(value, torch.Tensor) else value for key, value in slot.items()
    }


def _values(slots: list[Slot]) -> list[Any]:
    return [value for slot in slots for value in slot.values()]


def _same_bits(left: list[Any], right: list[Any]) -> bool:
    pairs = [(a, b) for a, b in zip(left, right) if isinstance(a, torch.Tensor)]
    return not any(a.is_meta for a, _ in pairs) and all(torch.equal(a, b) for a, b in pairs)
