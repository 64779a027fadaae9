"""A step within a user's own `torch.compile`: one call in Dynamo's graph, whose inside torch traces afterwards.

Dynamo reads Python line by line, and cannot read all of a step: the copies of a network, autograd, the keys. So it
reads how a state and a batch are taken apart, calls one function of tensors, and reads how the results are put
together. That function is traced as `functrain.compile` traces a core: it runs on tensors without data, and its
operations are recorded.

Importing this module imports Dynamo, so only code that Dynamo is reading does it.
"""

import dataclasses
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from functrain.foundation.errors import TracingError
from functrain.foundation.names import name_of, named
from functrain.foundation.torch_internals import TorchDispatchMode
from functrain.step.evaluate import EVALUATE
from functrain.step.execution import HOST, Core, run_again
from functrain.step.state import Recipe
from functrain.step.train import ACCUMULATE, UPDATE

Form = Any  # a tree without its tensors: nested tuples of constants, which a graph can hold

_TENSOR, _HOST = "tensor", "host"
torch.compiler.assume_constant_result(Recipe.name_in_graphs)
_CORES = {core.name: core for core in (UPDATE, ACCUMULATE, EVALUATE)}
_calls: dict[str, tuple[Form, ...]] = {}
_out_forms: dict[str, Form] = {}


def run(core: Core, state: Any, batch: Any, **_seeding: Any) -> Any:
    """Run `core` as one call in the graph that Dynamo makes. It may draw nothing, so it needs no key."""
    tensors: list[Tensor] = []
    call = _call(core.name, _form(state, tensors), _form(batch, tensors))
    results = iter(_in_graph(call, tensors))
    if not core.carries_state:
        return _filled(_out_form(call), results)
    return _like(state, results), _filled(_out_form(call), results)


@torch.compiler.allow_in_graph
def _in_graph(call: str, tensors: list[Tensor]) -> list[Tensor]:
    """The tensors of the core's results; the carried state's come first."""
    name, state_form, batch_form = _calls[call]
    core, given = _CORES[name], iter(tensors)
    state, batch = _filled(state_form, given), _filled(batch_form, given)
    with _NoDraws(name):
        result = run_again(lambda: core.fn(state, batch))
    results: list[Tensor] = []
    if core.carries_state:
        new_state, result = result
        _form(new_state, results)
    _out_forms[call] = _form(result, results)
    return results


class _NoDraws(TorchDispatchMode):
    """Refuses random numbers: torch's compilers draw them from the process's generators, not from the state's key."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run `func`, or refuse it."""
        if torch.Tag.nondeterministic_seeded in func.tags:
            raise TracingError(
                f"the {self.name} step draws random numbers ({func}), which are a function of the state only in "
                "functrain's own compilation: use functrain.compile(step) in place of torch.compile(step), or run "
                "without compiling"
            )
        return func(*args, **(kwargs or {}))


@torch.compiler.assume_constant_result
def _call(*forms: Form) -> str:
    """A short name for the forms of a call: torch's messages print the arguments of a graph's calls."""
    call = f"{forms[0]} {len(_calls)}"
    _calls[call] = forms
    return call


@torch.compiler.assume_constant_result
def _name_of(kind: type) -> str:
    """A name for a class, by which a graph finds it."""
    return name_of(kind)


@torch.compiler.assume_constant_result
def _named_class(name: str) -> Any:
    return named(name)


@torch.compiler.assume_constant_result
def _out_form(call: str) -> Form:
    """The form of the results besides the carried state, known when Dynamo has run `_in_graph`."""
    return _out_forms[call]


def _form(tree: Any, tensors: list[Tensor]) -> Form:
    """The form of a tree, whose tensors are appended to `tensors`. Host values are no part of it."""
    if tree is None:
        return None
    if isinstance(tree, Tensor):
        tensors.append(tree)
        return _TENSOR
    if isinstance(tree, dict):
        return "dict", tuple(tree), tuple([_form(child, tensors) for child in tree.values()])
    if isinstance(tree, list):
        return "list", (), tuple([_form(child, tensors) for child in tree])
    if isinstance(tree, tuple):
        names: Any = getattr(tree, "_fields", None)  # of a named tuple
        forms = tuple([_form(child, tensors) for child in tree])
        return ("tuple", (), forms) if names is None else (_name_of(type(tree)), names, forms)
    if dataclasses.is_dataclass(tree):
        fields = dataclasses.fields(tree)
        children = [
            _static(getattr(tree, field.name))
            if field.metadata.get("static")
            else _form(getattr(tree, field.name), tensors)
            for field in fields
        ]
        return _name_of(type(tree)), tuple([field.name for field in fields]), tuple(children)
    return _HOST


def _static(value: Any) -> Form:
    if not isinstance(value, Recipe):
        return "static", value, ()
    id(value)  # Dynamo then sees to it that the graph serves no other recipe
    return "named", value.name_in_graphs(), ()


def _filled(form: Form, tensors: Iterator[Tensor]) -> Any:
    """The tree of this form with these tensors; `HOST` stands for host values."""
    if form is None:
        return None
    if form == _TENSOR:
        return next(tensors)
    if form == _HOST:
        return HOST
    kind, names, forms = form
    if kind == "static":
        return names
    if kind == "named":
        return named(names)
    children = [_filled(child, tensors) for child in forms]
    if kind == "dict":
        return dict(zip(names, children))
    if kind == "list":
        return children
    if kind == "tuple":
        return tuple(children)
    return _named_class(kind)(**dict(zip(names, children)))


def _like(tree: Any, tensors: Iterator[Tensor]) -> Any:
    """The tree with other tensors."""
    if isinstance(tree, Tensor):
        return next(tensors)
    if isinstance(tree, dict):
        return {key: _like(child, tensors) for key, child in tree.items()}
    if isinstance(tree, list):
        return [_like(child, tensors) for child in tree]
    if isinstance(tree, tuple):
        children = [_like(child, tensors) for child in tree]
        return type(tree)(*children) if hasattr(tree, "_fields") else tuple(children)
    if dataclasses.is_dataclass(tree):
        values = {}
        for field in dataclasses.fields(tree):
            value = getattr(tree, field.name)
            values[field.name] = value if field.metadata.get("static") else _like(value, tensors)
        kind: Any = type(tree)
        return kind(**values)
    return tree
