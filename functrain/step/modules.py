"""What becomes of a user's module before it is functionalised."""

import contextlib
import copy
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from functrain.foundation.errors import TracingError
from functrain.foundation.recursion import deep_calls
from functrain.foundation.torch_internals import (
    MEMBERS,
    apply,
    apply_by,
    inside_compiled,
    own_buffers,
    own_parameters,
)


def deep_copy(module: nn.Module, memo: dict[int, Any] | None = None) -> nn.Module:
    """A deep copy of a module, however deeply it is nested.

    Args:
        module: what is copied.
        memo: id -> what stands for an object in the copy, as in `copy.deepcopy`.
    """
    with deep_calls():
        return copy.deepcopy(module, memo)


def without_compilers(model: nn.Module) -> nn.Module:
    """The model without `torch.compile` around it or around its submodules; the tensors are the same.

    A step is compiled as a whole, and a compiled module reads parameters of its own. Its parameters' names would begin
    with `_orig_mod.`, too.

    Example:
        >>> net = nn.Sequential(torch.compile(nn.Linear(2, 1), backend="eager"))
        >>> [name for name, _ in without_compilers(net).named_parameters()]
        ['0.weight', '0.bias']
    """
    wrapped = [(module, inner) for module in model.modules() if (inner := inside_compiled(module)) is not None]
    if not wrapped:
        return model
    memo: dict[int, Any] = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    for wrapper, inner in reversed(wrapped):  # inner ones first
        memo[id(wrapper)] = deep_copy(inner, memo)
    return deep_copy(model, memo)


def convert_purely(model: nn.Module) -> None:
    """Let `module.to(...)` in a forward pass, and the like, put converted tensors in the places of the module's.

    torch writes into the parameters themselves, which no graph can hold, and no gradient passes.
    """
    for module in model.modules():
        if not isinstance(module, torch.jit.ScriptModule):
            apply_by(module, partial(_converted, module))


def _converted(module: nn.Module, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> nn.Module:
    if recurse:
        for child in module.children():
            apply(child, fn)
    places: tuple[dict[str, Any], ...] = (own_parameters(module), own_buffers(module))
    for members in places:
        members.update({key: fn(tensor) for key, tensor in members.items() if tensor is not None})
    return module


@contextlib.contextmanager
def put_back(model: nn.Module) -> Iterator[None]:
    """Give the modules, at the end of the context, the attributes and members that they had at its beginning."""
    kept: list[tuple[dict[str, Any], dict[str, Any]]] = [
        (own, own.copy())
        for module in model.modules()
        for own in (vars(module), *(vars(module)[name] for name in MEMBERS))
    ]
    try:
        yield
    finally:
        for own, before in kept:
            own.clear()
            own.update(before)


def refuse_growth(before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> None:
    """Refuse a buffer that changes its shape while a step is traced: the state must keep its form.

    Raises:
        TracingError: naming the buffer and what to do.
    """
    for name, tensor in before.items():
        if after[name].shape != tensor.shape:
            shapes = f"from {list(tensor.shape)} to {list(after[name].shape)}"
            raise TracingError(
                f"the step cannot be compiled: the model changes the shape of its buffer {name!r} {shapes}, but a "
                "compiled step keeps the state's shapes. If it does so at its first call only, run one batch through "
                "the model before init_state. Else run without compiling (compile=False; in a config "
                "compile: false)"
            )


def refuse_unregistered(model: nn.Module) -> None:
    """Refuse parameters that the module does not know of: nothing would train them.

    Raises:
        ValueError: naming the module, the attribute and what registers them.

    Example:
        >>> net = nn.Linear(2, 1)
        >>> net.others = [nn.Linear(2, 2)]
        >>> refuse_unregistered(net)
        Traceback (most recent call last):
        ValueError: the model (Linear) keeps parameters in its attribute 'others', a list, which torch does not ...
    """
    known = {id(p) for p in model.parameters()}
    for path, module in model.named_modules():
        for name, value in vars(module).items():
            if isinstance(value, (list, tuple, set, dict)) and name not in _OWN and _unknown(value, known):
                where = f"module {path!r} ({type(module).__name__})" if path else f"the model ({type(module).__name__})"
                raise ValueError(
                    f"{where} keeps parameters in its attribute {name!r}, a {type(value).__name__}, which torch does "
                    "not register: model.parameters() lacks them, and no optimizer would train them. Make it an "
                    "nn.ParameterList, nn.ModuleList or nn.ModuleDict, or freeze them with requires_grad_(False)"
                )


def containers(module: nn.Module) -> Iterator[tuple[Any, list[tuple[Any, Any]]]]:
    """The lists and dicts among a module's attributes, where it may keep tensors a second time, with their items."""
    for name, value in vars(module).items():
        if name not in _OWN and isinstance(value, (list, dict)):
            yield value, list(value.items() if isinstance(value, dict) else enumerate(value))


def _unknown(value: Any, known: set[int], depth: int = 3) -> bool:
    """Whether a trainable parameter that is not known is within containers in containers."""
    if isinstance(value, nn.Parameter):
        return value.requires_grad and id(value) not in known
    if isinstance(value, nn.Module):
        return any(_unknown(p, known) for p in value.parameters())
    if isinstance(value, dict):
        value = list(value.values())
    inner = isinstance(value, (list, tuple, set)) and depth > 0 and not isinstance(value, Tensor)
    return inner and any(_unknown(part, known, depth - 1) for part in value)


_OWN = frozenset(vars(nn.Module()))  # where torch itself keeps a module's members and hooks
