"""What members of a stack have in common: one optimizer of their hyperparameters, or the reason why there is none."""

import dataclasses
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from functrain.foundation.making import made_by
from functrain.foundation.numbers import MemberValue, is_number
from functrain.foundation.trees import tree_map
from functrain.optim import Optimizer
from functrain.step.network import Network
from functrain.step.state import Recipe, TrainState

Make = Callable[[Mapping[str, Tensor]], Any]  # a value of a member's hyperparameters
_INDEX = "member"  # among the hyperparameters: the member's number


class DifferentError(ValueError):
    """Members differ in what cannot be a hyperparameter of one vectorised step; the message says in what."""


class Hyperparameters:
    """The numbers in which things that were made alike differ.

    Attributes:
        values: of each number its value for each member.
    """

    def __init__(self) -> None:
        self.values: dict[str, list[float]] = {}

    def tensors(self, device: torch.device) -> dict[str, Tensor]:
        """Name -> float64 `[N]`; the member's number is int64."""
        return {
            name: torch.tensor(values, dtype=torch.int64 if name == _INDEX else torch.float64, device=device)
            for name, values in self.values.items()
        }

    def of(self, members: Sequence[Any], name: str) -> Make:
        """Makes a member's value of its hyperparameters.

        Args:
            members: the value of each.
            name: for messages and `values`.

        Raises:
            DifferentError: they differ in more than numbers.
        """
        first = members[0]
        if all(map(is_number, members)) and not all(_same(first, other) for other in members):
            return self._number(members, name)
        if all(isinstance(member, Optimizer) for member in members):
            return self._made(members, name)
        if all(isinstance(member, (tuple, list)) and len(member) == len(first) for member in members):
            parts = [self.of(column, f"{name}[{number}]") for number, column in enumerate(zip(*members))]
            return lambda values: type(first)([part(values) for part in parts])
        if all(isinstance(member, Mapping) and member.keys() == first.keys() for member in members):
            named = {key: self.of([member[key] for member in members], f"{name}.{key}") for key in first}
            return lambda values: {key: part(values) for key, part in named.items()}
        if all(_same(first, other) for other in members):
            return lambda _: first
        if all(_is_schedule(member) for member in members):
            return self._schedule(members)
        raise DifferentError(f"they differ in {name}")

    def _number(self, members: Sequence[float], name: str) -> Make:
        if not any(isinstance(member, float) for member in members):
            raise DifferentError(f"they differ in {name}, a whole number")
        self.values[name] = [float(member) for member in members]
        largest = max(self.values[name])  # for checks; of 0 and another number not the one that switches a part off
        return lambda values: MemberValue(largest, values[name])

    def _made(self, members: Sequence[Any], name: str) -> Make:
        calls = [made_by(member) for member in members]
        first = calls[0]
        if all(member is members[0] for member in members):
            return lambda _: members[0]
        if first is None or any(call is None or call.factory is not first.factory for call in calls):
            raise DifferentError(f"they differ in {name}")
        if first.factory.__name__ == "from_torch" and not all(_same(members[0], member) for member in members):
            raise DifferentError(f"they differ in {name}, which is torch's")
        arguments = {
            key: self.of([call.arguments[key] for call in calls if call], f"{name}.{key}") for key in first.arguments
        }
        return lambda values: first.again(**{key: make(values) for key, make in arguments.items()})

    def _schedule(self, members: Sequence[Callable[[Any], Any]]) -> Make:
        """The member's schedule among all different ones, each of which gives its value."""
        self.values[_INDEX] = list(range(len(members)))

        def make(values: Mapping[str, Tensor]) -> Callable[[Any], Any]:
            def schedule(count: Any) -> Any:
                rates = [torch.as_tensor(member(count), dtype=torch.float64) for member in members]
                return torch.stack(rates).index_select(0, values[_INDEX].view(1)).view(())

            return schedule

        return make


def require_one_step(recipes: Sequence[Recipe]) -> None:
    """Refuse members that cannot be in one step in any form.

    Raises:
        ValueError: they differ in precision, accumulation, metrics or statistics.
    """
    for name in ("precision", "accumulate", "metrics", "statistics", "activations"):
        given = [getattr(recipe, name) for recipe in recipes]
        if any(value != given[0] for value in given):
            raise ValueError(f"members of a stack must have one {name}; got {given[0]!r} and others: {given!r}")


def one_optimizer(states: Sequence[TrainState]) -> tuple[Make, Hyperparameters]:
    """The optimizer of members whose steps are one vectorised step, and their hyperparameters.

    Raises:
        DifferentError: they are not alike.
    """
    recipes = [state.recipe for state in states]
    first = recipes[0]
    for name in ("clip_norm", "clip_value", "ema", "loss_scale"):
        if any(not _same(getattr(first, name), getattr(recipe, name)) for recipe in recipes):
            raise DifferentError(f"they differ in {name}")
    if any(not _same(first.objective, recipe.objective) for recipe in recipes):
        raise DifferentError("they differ in the objective")
    for recipe in recipes:
        if recipe.network is not first.network:
            _require_alike(first.network, recipe.network)
    found = Hyperparameters()
    make = found.of([recipe.optimizer for recipe in recipes], "optimizer")
    if found.values:
        _try(make, found, states[0])
    return make, found


def _try(make: Make, found: Hyperparameters, state: TrainState) -> None:
    """Refuse numbers that an optimizer reckons with in Python: one update tells."""
    params = {name: state.params[name] for name in state.recipe.network.trainable}
    values = {name: column[0] for name, column in found.tensors(state.device).items()}
    try:
        make(values).update(tree_map(torch.zeros_like, params), state.opt_state, params)
    except TypeError as error:
        named = ", ".join(name for name in found.values if name != _INDEX)
        raise DifferentError(
            f"they differ in {named}, and this optimizer cannot have such a number as a tensor ({error})"
        ) from None


def _require_alike(one: Network, other: Network) -> None:
    """Refuse networks that may compute differently: modules of other types, or with other simple attributes."""
    for (path, left), (_, right) in zip(one.given(), other.given(), strict=True):
        if type(left) is not type(right):
            raise DifferentError(f"they differ in the module {path!r}")
        ours, theirs = _settings(left), _settings(right)
        for name in ours.keys() | theirs.keys():
            if not _same(ours.get(name), theirs.get(name)):
                raise DifferentError(f"they differ in {name!r} of the module {path or 'itself'!r}")


def _settings(module: nn.Module) -> dict[str, Any]:
    """What a module has of numbers, texts and tuples of such."""
    plain = (int, float, str, bytes, tuple, list, type(None))
    return {name: value for name, value in vars(module).items() if isinstance(value, plain)}


def _same(one: Any, other: Any) -> bool:
    if one is other:
        return True
    left, right = made_by(one), made_by(other)
    if left is not None and right is not None:
        return left.factory is right.factory and _same(dict(left.arguments), dict(right.arguments))
    if isinstance(one, (tuple, list)) and type(one) is type(other):
        return len(one) == len(other) and all(map(_same, one, other))
    if isinstance(one, dict) and type(one) is type(other):
        return one.keys() == other.keys() and all(_same(value, other[key]) for key, value in one.items())
    if type(one) is not type(other):
        return False
    if dataclasses.is_dataclass(one):
        fields = [field.name for field in dataclasses.fields(one)]
        return all(_same(getattr(one, name), getattr(other, name)) for name in fields)
    try:
        return bool(one == other)
    except Exception:  # a comparison of somebody's own
        return False


def _is_schedule(value: Any) -> bool:
    made = made_by(value)
    home = getattr(inspect.getmodule(made.factory), "__name__", "") if made is not None else ""
    return home.startswith("functrain.optim.schedules")
