"""The private names of torch that functrain needs outside of its compiler, each with a way to do without it.

torch has no public way to ask whether a transform, a trace or a dispatch mode is active, nor who else holds a tensor's
memory. A release may rename what this module uses. Each name is therefore looked up once, when the module is imported,
and where it is missing a public or a conservative substitute takes its place: steps get slower, not wrong.

`nn.Module` keeps its members in `_parameters`, `_buffers` and `_modules`. They have no substitute: every pickled module
holds these names.
"""

import contextlib
import functools
import importlib
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor, nn

from functrain.foundation.errors import FunctrainError


def _find(module: str, name: str, otherwise: Any = None) -> Any:
    """The attribute `name` (dotted) of a module, or the substitute in a release that has no such name."""
    try:
        return functools.reduce(getattr, name.split("."), importlib.import_module(module))
    except (ImportError, AttributeError):
        return otherwise


_probe = torch.empty(0)


def _interpreter_by_requires_grad() -> Any:
    """torch refuses `requires_grad_` within each of its transforms, in public."""
    try:
        _probe.requires_grad_()
    except RuntimeError:
        return _probe
    return None


def _proxy_mode_by_dispatch() -> Any:
    return _probe if _dispatch_modes() else None


def _some_mode() -> int:
    """Some dispatch mode may be active."""
    return 1


_interpreter = _find("torch._C", "_functorch.peek_interpreter_stack", _interpreter_by_requires_grad)
_dispatch_modes = _find("torch._C", "_len_torch_dispatch_stack", _some_mode)
_proxy_mode = _find("torch.fx.experimental.proxy_tensor", "get_proxy_mode", _proxy_mode_by_dispatch)
_fake_tensor = _find("torch._subclasses", "FakeTensor")
_has_flag = hasattr(torch.compiler, "_is_compiling_flag")


def inside_transform() -> bool:
    """Whether a torch.func transform is active: foreach operators have no batching rule (torch 2.13).

    Of the private ways to ask this is the one that torch.compile can trace.
    """
    return _interpreter() is not None


def is_eager() -> bool:
    """Whether what is done now is done at once and once: no graph, no transform, no recording of it is made."""
    return (
        not torch.compiler.is_compiling()
        and not inside_transform()
        and _proxy_mode() is None
        and _dispatch_modes() <= _substitutions
    )


_substitutions = 0
_rehearsals = 0


@contextlib.contextmanager
def rehearsing() -> Iterator[None]:
    """Within, tensors without values stand for real ones: what may reuse memory does, as for these.

    Example:
        >>> with rehearsing():
        ...     is_rehearsed()
        True
    """
    global _rehearsals
    _rehearsals += 1
    try:
        yield
    finally:
        _rehearsals -= 1


def is_rehearsed() -> bool:
    """Whether what is done now is to take the memory that it would take with values."""
    return _rehearsals > 0


def is_plain(tensor: Any) -> bool:
    """Whether it is a tensor of no subclass, or in a rehearsal one without values, which stands for such a one."""
    return type(tensor) is Tensor or (_rehearsals > 0 and isinstance(tensor, Tensor) and _is_fake(tensor))


def is_watched() -> bool:
    """Whether a dispatch mode sees each operation, such as one that records or traces what is done."""
    return _dispatch_modes() != 0


def is_traced() -> bool:
    """Whether a graph is being made of what is done."""
    return _proxy_mode() is not None


def have_no_values(tensors: list[Tensor]) -> bool:
    """Whether the tensors' values cannot be read, since a graph is being made of what is done to them."""
    return (
        torch.compiler.is_compiling() or _proxy_mode() is not None or inside_transform() or any(map(_is_fake, tensors))
    )


def _is_fake(tensor: Tensor) -> bool:
    return isinstance(tensor, _fake_tensor) if _fake_tensor else type(tensor).__name__ == "FakeTensor"


@contextlib.contextmanager
def compiling() -> Iterator[None]:
    """Make `torch.compiler.is_compiling()` true, as it is within torch.compile and torch.export.

    The flag is the process's, so all threads see it. A release without the flag leaves it as it is: what asks for it
    then runs as in eager mode, and tracing names the line that needs a value.

    Example:
        >>> with compiling():
        ...     torch.compiler.is_compiling()
        True
    """
    if not _has_flag:
        yield
        return
    before = torch.compiler._is_compiling_flag
    torch.compiler._is_compiling_flag = True
    try:
        yield
    finally:
        torch.compiler._is_compiling_flag = before


class _NoDispatchMode:
    def __enter__(self) -> Any:
        raise FunctrainError(
            f"torch {torch.__version__} has no TorchDispatchMode, which this needs. "
            "Install a release that functrain was tested with (docs/versions.md), or run without compiling"
        )

    def __exit__(self, *error: Any) -> None:
        """Never entered."""


TorchDispatchMode: Any = _find("torch.utils._python_dispatch", "TorchDispatchMode", _NoDispatchMode)


class TraceableDispatchMode(TorchDispatchMode):
    """A dispatch mode within which a step may be traced, and that costs no import of Dynamo."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Else torch wraps `__torch_dispatch__` in something that imports all of Dynamo, for a second and more."""
        return False

    @classmethod
    def ignore_compile_internals(cls) -> bool:
        """Let Dynamo, which torch.cond calls for its branches, work within this mode."""
        return True


class SubstitutingDispatchMode(TraceableDispatchMode):
    """A mode that puts other numbers in the place of some, and changes no operation: what is eager stays so."""

    def __enter__(self) -> Any:
        global _substitutions
        if not torch.compiler.is_compiling():
            _substitutions += 1
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        global _substitutions
        if not torch.compiler.is_compiling():
            _substitutions -= 1
        super().__exit__(*error)


_use_count = _find("torch._C", "_storage_Use_Count")


def references(leaves: list[Tensor]) -> list[tuple[int, int]] | None:
    """Of each tensor: how many references its Python object has, and its memory; None where torch has no count."""
    if _use_count is None:
        return None
    return [(sys.getrefcount(leaf), _use_count(leaf.untyped_storage()._cdata)) for leaf in leaves]


_version = _find("torch", "Tensor._version.__get__")


def writes_to(tensor: Tensor) -> int:
    """How often a tensor, not one of `inference_mode`, was written to; some number where torch does not count."""
    return 1 if _version is None else int(_version(tensor))


def is_readable(tensor: Tensor) -> bool:
    """Whether reading a tensor's values costs nothing and is not part of a graph, a transform or a recording."""
    if _rehearsals and isinstance(tensor, Tensor) and _is_fake(tensor):
        return tensor.is_cpu and not tensor.ndim and not inside_transform()
    return type(tensor) is Tensor and tensor.is_cpu and is_eager()


def foreach_operator(name: str) -> Callable[..., Any] | None:
    """torch's operator on lists of tensors, such as "add" or "add_" (in place); None if torch has none."""
    return getattr(torch, f"_foreach_{name}", None)


def draws(operation: Any) -> bool:
    """Whether an operation of a graph, or one that is dispatched, draws random numbers."""
    return isinstance(operation, torch._ops.OpOverload) and torch.Tag.nondeterministic_seeded in operation.tags


def draws_now(operation: Any, args: Any, kwargs: Any) -> bool:
    """Whether a call of an operation draws random numbers: attention does with a dropout only.

    Example:
        >>> draws_now(torch.ops.aten.rand.default, ([2],), {})
        True
        >>> draws_now(torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default, (None, None, None, 0.0), {})
        False
    """
    if not draws(operation):
        return False
    names = [argument.name for argument in operation._schema.arguments]
    given = dict(zip(names, args)) | dict(kwargs)
    return "dropout_p" not in names or bool(given.get("dropout_p", 0.0))


def operation_name(operation: Any) -> str:
    """An operation's name with its overload.

    Example:
        >>> operation_name(torch.ops.aten.bernoulli_.float)
        'bernoulli_.float'
    """
    return f"{operation._schema.name.rpartition('::')[2]}.{operation._overloadname}"


def writes_to_argument(operation: Any) -> bool:
    """Whether an operation changes its first argument."""
    return bool(operation._schema.is_mutable)


def storage_number(tensor: Tensor) -> int:
    """A number that tensors have in common if they share memory, also those without values."""
    return int(tensor.untyped_storage()._cdata)


def reads_a_value(operator: Any) -> bool:
    """Whether an operator of torch's is that which a tensor's one value is read with, as by `item()`."""
    return str(operator).startswith("aten._local_scalar_dense")


def fake_store() -> Any:
    """A store for torch's fake process group, whose collectives then take tensors without values, too.

    Raises:
        FunctrainError: this release of torch has none.
    """
    store = _find("torch.testing._internal.distributed.fake_pg", "FakeStore")
    if store is None or _find("torch.distributed._tools.fake_collectives", "__name__") is None:
        raise FunctrainError("this release of torch has no process group that takes the place of many")
    return store()


def copy_all(targets: list[Tensor], sources: list[Tensor]) -> None:
    """Copy each source into its target."""
    copy = foreach_operator("copy_")
    if copy is not None:
        copy(targets, sources)
        return
    for target, source in zip(targets, sources, strict=True):
        target.copy_(source)


def all_reduced(tensor: Tensor, group: Any) -> Tensor:
    """The sum of a tensor over the ranks of a process group: a new tensor, in a form that a compiled graph can hold.

    The substitute is torch's sum in place, of a copy, which not every compiler takes.
    """
    if _collectives() is not None:
        # The operators themselves: torch's functions around them import its compiler, which takes 1.5 s of CPU time.
        operators = torch.ops._c10d_functional
        total: Tensor = operators.wait_tensor(operators.all_reduce(tensor, "sum", group.group_name))
        return total
    total = tensor.clone()
    torch.distributed.all_reduce(total, group=group)
    return total


def gathered(tensor: Tensor, ranks: int, group: Any = None) -> Tensor:
    """A tensor of all processes of a group, `[ranks, ...]`; it must have one shape on all. None: of all there are."""
    found = tensor.new_empty(ranks, *tensor.shape)
    gather = getattr(torch.distributed, "all_gather_single", None) or torch.distributed.all_gather_into_tensor
    gather(found.view(-1), tensor.reshape(-1), group=group)
    return found


def group_timeout() -> timedelta | None:
    """How long the processes that train wait for each other; None: torch does not say."""
    for device in ("cpu", "cuda"):
        with contextlib.suppress(AttributeError, RuntimeError):  # it sends between devices of the other kind only
            group: Any = torch.distributed.group.WORLD
            timeout: timedelta = group._get_backend(torch.device(device)).options._timeout
            return timeout
    return None


def ranks_of(arguments: Sequence[Any]) -> int | None:
    """How many processes a collective operator is over, by its arguments; None: torch does not say."""
    unbox = getattr(getattr(torch.distributed, "ProcessGroup", None), "unbox", None)
    by_name = _find("torch.distributed.distributed_c10d", "_resolve_process_group")
    for each in arguments:
        try:
            if isinstance(each, torch.ScriptObject) and unbox is not None:
                return int(unbox(each).size())
            if isinstance(each, str) and by_name is not None and each not in ("sum", "avg", "max", "min"):
                return int(by_name(each).size())
        except (RuntimeError, TypeError, ValueError):  # another object, or another text
            continue
    return None


_DispatchMode: Any = _find("torch.utils._python_dispatch", "TorchDispatchMode")


def operators_of(fn: Callable[[], Any]) -> list[tuple[Any, tuple[Tensor, ...]]] | None:
    """torch's operators that a call comes to, each with the tensors that it takes; None where torch cannot say."""
    if _DispatchMode is None:
        return None
    found: list[tuple[Any, tuple[Tensor, ...]]] = []

    class Recording(_DispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            taken = torch.utils._pytree.tree_leaves((args, kwargs or {}))
            found.append((func, tuple(each for each in taken if isinstance(each, Tensor))))
            return func(*args, **(kwargs or {}))

    with Recording():
        fn()
    return found


# Copies, and new tensors that depend on the form of others.
_COPIES = re.compile(r"(clone|detach|copy_|_to_copy|lift_fresh|alias|(zeros|ones|full|empty)_like|scalar_tensor)$")
_REDUCTIONS = re.compile(r"_foreach_(norm|max|powsum)$")


def is_by_element(operator: Any, tensors: tuple[Tensor, ...]) -> bool:
    """Whether an operator of torch, given these tensors, computes each element from one of each: for all one knows.

    Example:
        >>> [is_by_element(each.default, (_probe,)) for each in (torch.ops.aten.sqrt, torch.ops.aten.sum)]
        [True, False]
    """
    name = operator.name().removeprefix("aten::").partition(".")[0]
    if torch.Tag.nondeterministic_seeded in operator.tags:
        return False
    if all(tensor.ndim == 0 for tensor in tensors):  # counts and rates; or a tensor made of numbers alone
        return True
    if name.startswith("_foreach_"):
        return not _REDUCTIONS.match(name)
    return torch.Tag.pointwise in operator.tags or bool(_COPIES.match(name))


@functools.cache
def _collectives() -> Any:
    """torch's traceable collectives, imported with the first sum over ranks; None in a release without them."""
    with contextlib.suppress(ImportError):
        return importlib.import_module("torch.distributed._functional_collectives")
    return None


def cpu_attention() -> list[Any]:
    """The operators of attention on a CPU, forward and backward; empty in a release that has others."""
    name = "_scaled_dot_product_flash_attention_for_cpu"
    found = [getattr(torch.ops.aten, each, None) for each in (name, f"{name}_backward")]
    return [] if None in found else found


_register_node = _find("torch.utils._pytree", "register_pytree_node")
_attribute_key = _find("torch.utils._pytree", "GetAttrKey", str)
torch_nodes: dict[type, Any] = _find("torch.utils._pytree", "SUPPORTED_NODES", {})
"""The types that torch's pytree knows, with how each is flattened; empty where torch does not say."""


def register_with_torch(
    kind: type,
    flatten: Callable[[Any], tuple[list[Any], Any]],
    unflatten: Callable[[list[Any], Any], Any],
    names: tuple[str, ...],
) -> None:
    """Let torch.func, torch.export and torch.compile see through a type; without this they take it as one value.

    Args:
        kind: the class.
        flatten: gives the children and all else.
        unflatten: puts them together again.
        names: the children's attributes.
    """
    if _register_node is None:
        return

    def with_keys(value: Any) -> tuple[list[tuple[Any, Any]], Any]:
        children, rest = flatten(value)
        return list(zip(map(_attribute_key, names), children)), rest

    name = f"{kind.__module__}.{kind.__qualname__}"
    _register_node(kind, flatten, unflatten, serialized_type_name=name, flatten_with_keys_fn=with_keys)


MEMBERS = ("_parameters", "_buffers", "_modules")  # where a module keeps them, each a dictionary


def own_parameters(module: nn.Module) -> dict[str, Tensor | None]:
    """The dictionary in which a module keeps its own parameters."""
    return module._parameters  # type: ignore[return-value]


def own_buffers(module: nn.Module) -> dict[str, Tensor | None]:
    """The dictionary in which a module keeps its own buffers."""
    return module._buffers


def apply_by(module: nn.Module, fn: Callable[[Callable[[Tensor], Tensor], bool], Any]) -> None:
    """Let `module.to(...)`, and the like, call `fn(convert, recurse)`."""
    vars(module)["_apply"] = fn


def apply(module: nn.Module, convert: Callable[[Tensor], Tensor]) -> None:
    """Convert a module's tensors, as `module.to(...)` does."""
    module._apply(convert)


def has_gradient_hook(parameter: Tensor) -> bool:
    """Whether something is called with a parameter's gradient, as far as torch says."""
    return bool(getattr(parameter, "_backward_hooks", None) or getattr(parameter, "_post_accumulate_grad_hooks", None))


def has_forward_hook(module: nn.Module) -> bool:
    """Whether something is called with what a module gives out, as far as torch says; if it does not say, yes."""
    return bool(getattr(module, "_forward_hooks", True))


def inductor_settings() -> Any:
    """Inductor's settings, if something has imported them; to import them takes seconds."""
    return sys.modules.get("torch._inductor.config")


def inside_compiled(module: nn.Module) -> nn.Module | None:
    """The module that `torch.compile` was given, if `module` is what it made of it."""
    dynamo = sys.modules.get("torch._dynamo")  # nobody has called torch.compile without it
    if dynamo is None:
        return None
    wrapper = getattr(dynamo, "OptimizedModule", nn.Module)
    inner = module._modules.get("_orig_mod")
    return inner if isinstance(module, wrapper) else None
