"""Random numbers of members: each draws its own, those that it would draw alone.

Within `torch.func.vmap` one operation would draw for all members together. So what a member's step draws is noted once,
drawn ahead with each member's key, and given to the step in the place of its random operations. A graph of such a step
draws nothing.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from functrain.foundation.errors import FunctrainError
from functrain.foundation.keys import for_each_key
from functrain.foundation.torch_internals import (
    SubstitutingDispatchMode,
    TraceableDispatchMode,
    draws_now,
    operation_name,
    writes_to_argument,
)
from functrain.foundation.trees import tree_map

_OTHERWISE = (
    "a member of a stack draws otherwise than in its first step ({}): what it draws must not depend on Python's random "
    "numbers, on a counter or on values. Train such members one by one"
)
# Operations whose results do not depend on the values of tensors, and the overloads of which that holds.
_BY_SHAPE = (
    *("rand", "randn", "randint", "randperm", "rand_like", "randn_like", "randint_like"),
    *("uniform_", "normal_", "exponential_", "geometric_", "cauchy_", "log_normal_", "random_", "normal_functional"),
)
_BY_SHAPE_OVERLOADS = ("bernoulli_.float", "bernoulli.p", "normal.float_float", "native_dropout.default")


class Draw(NamedTuple):
    """A random operation of a step.

    Attributes:
        operation: of torch.
        args, kwargs: its arguments; in the place of a tensor an empty one of its form.
        again: the number of the draw whose numbers come again, as where a generator was put back; None: new ones.
    """

    operation: Any
    args: Any
    kwargs: Any
    again: int | None

    def __call__(self) -> Tensor:
        """Draw from torch's generators."""
        if self.operation is torch.ops.aten.native_dropout.default:
            mask: Tensor = self.operation(torch.ones_like(self.args[0]), *self.args[1:])[1]
            return mask
        args = tree_map(lambda leaf: torch.empty_like(leaf) if isinstance(leaf, Tensor) else leaf, self.args)
        drawn: Tensor = self.operation(*args, **self.kwargs)
        return drawn


def noted(run: Callable[[], Any]) -> tuple[Draw, ...]:
    """What `run` draws, in order; it is run once.

    Raises:
        FunctrainError: it draws with probabilities that it has computed, which cannot be done ahead.
    """
    with _Noting() as noting:
        run()
    return tuple(noting.found)


def drawn_by(plans: Sequence[tuple[Draw, ...]], keys: Sequence[int], device: torch.device) -> list[tuple[Tensor, ...]]:
    """What each member draws.

    Args:
        plans: of each member.
        keys: likewise.
        device: where.
    """
    rest = iter(plans)

    def own() -> tuple[Tensor, ...]:
        found: list[Tensor] = []
        for draw in next(rest):
            found.append(draw() if draw.again is None else found[draw.again])
        return tuple(found)

    return for_each_key(keys, own, device)


class Given(SubstitutingDispatchMode):
    """Within it random operations give these numbers, one after another.

    Args:
        drawn: one tensor for each random operation.
    """

    supports_higher_order_operators = True

    def __init__(self, drawn: Sequence[Tensor]) -> None:
        super().__init__()
        self._drawn = iter(drawn)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run `func`, or give the next numbers."""
        if not draws_now(func, args, kwargs or {}):
            return func(*args, **(kwargs or {}))
        value = next(self._drawn, None)
        if value is None or value.shape != _size(args):
            raise FunctrainError(_OTHERWISE.format(func))
        if func is torch.ops.aten.native_dropout.default:
            return args[0] * value / (1 - args[1]), value
        if writes_to_argument(func):
            return args[0].copy_(value)
        dtype = (kwargs or {}).get("dtype") or (args[0].dtype if args and isinstance(args[0], Tensor) else value.dtype)
        return value.to(dtype, copy=True)  # which the model may write to

    def __exit__(self, *error: Any) -> None:
        """Refuse numbers that nobody has asked for."""
        super().__exit__(*error)
        if error[0] is None and next(self._drawn, None) is not None:
            raise FunctrainError(_OTHERWISE.format("fewer numbers"))


def _size(args: Any) -> torch.Size:
    """Of what a random operation gives: that of its tensor, or the size it is called with."""
    sizes = [arg for arg in args if isinstance(arg, (list, tuple))]
    return args[0].shape if isinstance(args[0], Tensor) else torch.Size(sizes[0] if sizes else args[:1])


class _Noting(TraceableDispatchMode):
    """Notes random operations.

    Attributes:
        found: those that ran within it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.found: list[Draw] = []
        self._states: list[Tensor] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if draws_now(func, args, kwargs):
            self._note(func, args, kwargs)
        return func(*args, **kwargs)

    def _note(self, func: Any, args: Any, kwargs: Any) -> None:
        name = operation_name(func)
        if name.partition(".")[0] not in _BY_SHAPE and name not in _BY_SHAPE_OVERLOADS:
            raise FunctrainError(
                f"members of a stack cannot draw with {func}, whose probabilities are computed in the step. Write it "
                "as a comparison with torch.rand_like, or train the members one by one"
            )
        if kwargs.get("generator") is not None:
            raise FunctrainError(
                f"members of a stack cannot draw from a torch.Generator of the model's own ({func}): draw without "
                "generator=, so that the step seeds each member's"
            )
        device = next((arg.device for arg in args if isinstance(arg, Tensor)), kwargs.get("device"))
        state = _generator_state(torch.device(device or "cpu"))
        again = next((number for number, old in enumerate(self._states) if torch.equal(old, state)), None)
        self._states.append(state)
        forms = tree_map(lambda leaf: torch.empty_like(leaf) if isinstance(leaf, Tensor) else leaf, tuple(args))
        self.found.append(Draw(func, forms, kwargs, again))


def _generator_state(device: torch.device) -> Tensor:
    if device.type == "cuda":
        return torch.cuda.get_rng_state(device)
    return torch.default_generator.get_state()
