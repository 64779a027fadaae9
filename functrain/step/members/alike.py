"""What members of a stack have in common: one recipe of their hyperparameters, or the reason why there is none."""

import dataclasses
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from functrain.foundation.making import made_by
from functrain.foundation.numbers import MemberValue, is_number
from functrain.foundation.trees import tree_map
from functrain.objectives.binding import smoothing_of, with_smoothing
from functrain.optim import Optimizer
from functrain.step.members.dropping import is_dropout, rate_of
from functrain.step.network import Network
from functrain.step.state import Recipe, TrainState

Make = Callable[[Mapping[str, Tensor]], Any]  # a value of a member's hyperparameters
Named = tuple[str, nn.Module]
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
        ValueError: they differ in precision, accumulation, metrics, statistics or `refuse_nonfinite`.
    """
    for name in ("precision", "accumulate", "metrics", "statistics", "activations", "refuse_nonfinite"):
        given = [getattr(recipe, name) for recipe in recipes]
        if any(value != given[0] for value in given):
            raise ValueError(f"members of a stack must have one {name}; got {given[0]!r} and others: {given!r}")


def one_recipe(states: Sequence[TrainState]) -> tuple[Make, Hyperparameters]:
    """What a recipe has in other places for a member, and the hyperparameters of all.

    Returns:
        A function of a member's hyperparameters to fields of its recipe, for one vectorised step of all.

    Raises:
        DifferentError: the members are not alike.
    """
    recipes = [state.recipe for state in states]
    first = recipes[0]
    for name in ("clip_norm", "clip_value", "ema", "loss_scale"):
        if any(not _same(getattr(first, name), getattr(recipe, name)) for recipe in recipes):
            raise DifferentError(f"they differ in {name}")
    found = Hyperparameters()
    optimizer = found.of([recipe.optimizer for recipe in recipes], "optimizer")
    if found.values:
        _try(optimizer, found, states[0])
    objective = _one_objective([recipe.objective for recipe in recipes], found)
    network = _one_network([recipe.network for recipe in recipes], found)

    def make(values: Mapping[str, Tensor]) -> dict[str, Any]:
        return {"optimizer": optimizer(values), "objective": objective(values), "network": network}

    return make, found


def _one_objective(objectives: Sequence[Any], found: Hyperparameters) -> Make:
    """The objective of all, which may differ in the label smoothing of a cross-entropy."""
    first = objectives[0]
    if all(_same(first, other) for other in objectives):
        return lambda _: first
    losses = [getattr(objective, "loss", None) for objective in objectives]
    smoothings = [smoothing_of(loss) for loss in losses]
    if any(rate is None for rate in smoothings):
        raise DifferentError("they differ in the objective")
    plain = [
        dataclasses.replace(objective, loss=with_smoothing(loss, 0.0)) for objective, loss in zip(objectives, losses)
    ]
    if any(not _same(plain[0], other) for other in plain):
        raise DifferentError("they differ in the objective")
    own = found.of(smoothings, "label_smoothing")
    return lambda values: dataclasses.replace(first, loss=with_smoothing(losses[0], own(values)))


def _one_network(networks: Sequence[Network], found: Hyperparameters) -> Network:
    """The network of all, whose dropout modules have each member's rate where that differs."""
    first = networks[0]
    others = [network for network in networks if network is not first]
    rates: dict[str, list[float]] = {}
    for rows in zip(first.given(), *(network.given() for network in others), strict=True):
        modules = [module for _, module in rows]
        _require_alike(*rows, rated=all(map(is_dropout, modules)))
        if all(map(is_dropout, modules)) and any(module.p != modules[0].p for module in modules):
            own = iter(modules[1:])
            rates[rows[0][0]] = [float((modules[0] if n is first else next(own)).p) for n in networks]
    if not rates:
        return first
    settings = {path: rate_of(path) for path in rates}
    found.values |= {settings[path].name: values for path, values in rates.items()}
    return first.with_settings({path: {"p": rate} for path, rate in settings.items()})


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


def _require_alike(first: Named, *others: Named, rated: bool) -> None:
    """Refuse modules that may compute differently: of other types, or with other simple attributes.

    Args:
        first, others: path and module.
        rated: the modules are dropouts, whose rates may differ.
    """
    path, one = first
    for _, other in others:
        if type(one) is not type(other):
            raise DifferentError(f"they differ in the module {path!r}")
        ours, theirs = _settings(one), _settings(other)
        for name in (ours.keys() | theirs.keys()) - ({"p"} if rated else set()):
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
