"""What functions and objects are configured with, as flat values that a checkpoint can keep and a resume compares.

An optimizer is a pair of closures, an objective a function, a transform an object: a value is described by what it is
made of, whoever wrote it. Of a function these are its code, defaults and the variables that it closes over; of a
module, and of an object that is called, its numbers, texts and parts. Nothing depends on addresses, hash seeds,
directories or the order of a set, so that the same script gives the same description in another process.
"""

import dataclasses
import functools
import hashlib
import math
import os
import sys
import sysconfig
import types
from collections.abc import Callable, Iterable, Mapping
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

Description = dict[str, Any]  # where -> a number, a text, None, or a function as `_function` names it

MOST = 2000  # entries; what has more is no configuration
LARGEST = 4096  # elements of a tensor or of a container
DEEPEST = 12
OWN = "functrain"

# Code that is installed is told by its name: its version is another matter. The rest is the user's own.
_INSTALLED = tuple(
    {os.path.realpath(sysconfig.get_path(name)) + os.sep for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    | {str(Path(__file__).resolve().parents[2]) + os.sep}  # functrain's own
)
_OF_EVERY_MODULE = frozenset({*vars(nn.Module()), "training"})
_PASSED_OVER = ("update", "init", "transforms", "fn")  # parts of an optimizer that no reader would miss in a name


def describe(value: Any) -> Description:
    """The description of a value.

    Example:
        >>> import functrain as ft
        >>> rates = describe(ft.optim.sgd(0.1, momentum=0.9))
        >>> [(name, value) for name, value in rates.items() if name.endswith("momentum")]
        [('2.momentum', 0.9)]
    """
    walk = _Walk()
    walk.add("", value, 0)
    return walk.found


def describe_modules(modules: Iterable[tuple[str, nn.Module]]) -> Description:
    """The description of a network: each module's class and plain attributes in a text, and the code of the user's own.

    Example:
        >>> describe_modules([("drop", nn.Dropout(0.1))])
        {'drop': 'Dropout(p=0.1, inplace=False)'}
    """
    walk = _Walk()
    for path, module in modules:
        walk.add_module(path, module)
    return walk.found


def describe_samples(dataset: Any, collate_fn: Any) -> Description:
    """What a data set makes of its contents: the code of its samples, its transforms, and its numbers with a fraction.

    Its other attributes tell where the contents are, how much was read and what is cached; contents are compared by
    `functrain.data.contents`.
    """
    walk = _Walk()
    walk.methods("", type(dataset), "__getitem__", 0)
    for name, value in getattr(dataset, "__dict__", {}).items():
        if name[:1] != "_" and (isinstance(value, float) or (callable(value) and not isinstance(value, type))):
            walk.add(name, value, 1)
    walk.add("collate_fn", collate_fn, 1)
    return walk.found


class _Walk:
    """Goes through a value once, each object at the first place where it is met."""

    def __init__(self) -> None:
        self.found: Description = {}
        self._seen_kinds: set[type] = set()
        self._seen: dict[int, Any] = {}  # kept alive, so that no two have one address

    def add(self, path: str, value: Any, depth: int) -> None:
        """Take down a value."""
        if depth > DEEPEST or len(self.found) >= MOST:
            return
        plain, known = _plain(value)
        if known:
            self._put(path, plain)
        elif id(value) not in self._seen:
            self._seen[id(value)] = value
            self._add_parts(path, value, depth + 1)

    def add_module(self, path: str, module: nn.Module) -> None:
        """Take down a module without its children."""
        kind = type(module)
        plain = {
            name: _plain(value)
            for name, value in vars(module).items()
            if name not in _OF_EVERY_MODULE and name[:1] != "_"
        }
        shown = ", ".join(f"{name}={value!r}" for name, (value, known) in plain.items() if known)
        if len(self.found) < MOST:
            self._put(path or "model", f"{kind.__qualname__}({shown})")
        if kind not in self._seen_kinds:
            self._seen_kinds.add(kind)
            self.methods(kind.__qualname__, kind, "forward", 1)

    def _put(self, path: str, value: Any) -> None:
        number, unique = 2, path
        while unique in self.found and self.found[unique] != value:
            unique, number = f"{path}#{number}", number + 1
        self.found[unique] = value

    def _add_parts(self, path: str, value: Any, depth: int) -> None:
        if isinstance(value, functools.partial):
            self.add(path, value.func, depth)
            self._items(path, enumerate(value.args), depth)
            self._items(path, value.keywords.items(), depth)
        elif isinstance(value, types.MethodType):
            self.add(path, value.__func__, depth)
            self.add(path, value.__self__, depth)
        elif isinstance(value, types.FunctionType):
            self._function(path, value, depth)
        elif isinstance(value, (type, types.BuiltinFunctionType)):
            self._put(path, _class(value))
        elif isinstance(value, nn.Module):
            for name, module in value.named_modules():
                self.add_module(_join(path, name), module)
        elif isinstance(value, Mapping):
            self._items(path, value.items(), depth)
        elif isinstance(value, tuple) and hasattr(value, "_fields"):
            self._items(path, zip(value._fields, value), depth)
        elif isinstance(value, (list, tuple)):
            named = len(value) > 0 and all(
                isinstance(item, tuple) and len(item) == 2 and isinstance(item[0], str) for item in value
            )
            self._items(path, value if named else enumerate(value), depth)
        elif isinstance(value, (set, frozenset)):
            self._put(path, str(sorted(repr(part) for part, known in map(_plain, value) if known)))
        elif not isinstance(value, types.ModuleType):
            self._object(path, value, depth)

    def _items(self, path: str, items: Iterable[tuple[Any, Any]], depth: int) -> None:
        for number, (name, item) in enumerate(items):
            if number == LARGEST:
                return
            plain, known = _plain(name)
            self.add(_join(path, plain if known else number), item, depth)

    def _object(self, path: str, value: Any, depth: int) -> None:
        kind = type(value)
        self._put(_join(path, "class"), _class(kind))
        self.methods(path, kind, "__call__", depth)
        if dataclasses.is_dataclass(value):
            self._items(path, ((f.name, getattr(value, f.name)) for f in dataclasses.fields(value)), depth)
        else:
            public = [(name, part) for name, part in getattr(value, "__dict__", {}).items() if name[:1] != "_"]
            self._items(path, public, depth)

    def _function(self, path: str, function: types.FunctionType, depth: int) -> None:
        self._put(_join(path, "function"), _named(function))
        defaults = function.__defaults__ or ()
        names = function.__code__.co_varnames[: function.__code__.co_argcount]
        self._items(path, zip(names[len(names) - len(defaults) :], defaults), depth)
        self._items(path, (function.__kwdefaults__ or {}).items(), depth)
        for name, cell in zip(function.__code__.co_freevars, function.__closure__ or ()):
            if _is_filled(cell):
                self.add(_join(path, name), cell.cell_contents, depth)
        if not _is_installed(function):
            self._globals(path, function, depth)

    def _globals(self, path: str, function: types.FunctionType, depth: int) -> None:
        """What the user's function uses of its module: functions and numbers."""
        for name in _names(function.__code__):
            value = function.__globals__.get(name)
            if isinstance(value, (types.FunctionType, int, float)) and not (
                isinstance(value, types.FunctionType) and _is_installed(value)
            ):
                self.add(_join(path, name), value, depth)

    def methods(self, path: str, kind: type, first: str, depth: int) -> None:
        """Take down the code of a user's class, from one of its methods on."""
        waiting, done = [first], set()
        while waiting:
            name = waiting.pop()
            method = getattr(kind, name, None)
            if name in done or not isinstance(method, types.FunctionType) or _is_installed(method):
                continue
            done.add(name)
            self._function(_join(path, name), method, depth)
            waiting += [other for other in _names(method.__code__) if other in dir(kind)]


def _plain(value: Any) -> tuple[Any, bool]:
    """A value that stands for itself, and whether it is one. Paths are none: a run may be moved."""
    if value is None or isinstance(value, (bool, int)):
        return value, True
    if isinstance(value, float):
        return (value if math.isfinite(value) else repr(value)), True
    if isinstance(value, str):
        return value, os.sep not in value and "\\" not in value
    if isinstance(value, Enum):
        return f"{type(value).__name__}.{value.name}", True
    if isinstance(value, (torch.dtype, torch.device, torch.Size, complex)):
        return str(value), True
    if isinstance(value, np.generic):
        item = value.item()
        return (str(item), True) if isinstance(item, np.generic) else _plain(item)
    if isinstance(value, (Tensor, np.ndarray)):
        return _array(value), True
    if isinstance(value, (list, tuple)) and len(value) <= LARGEST and all(is_number(item) for item in value):
        return str(list(value)), len(value) > 0
    return None, False


def is_number(value: Any) -> bool:
    """Whether a value is a plain number, or None."""
    return value is None or isinstance(value, (bool, int, float))


def _array(value: Any) -> str:
    form = f"{value.dtype}{list(value.shape)}"
    if isinstance(value, Tensor):
        if value.is_meta or value.numel() > LARGEST or value.layout is not torch.strided:
            return form
        value = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
    elif value.size > LARGEST or value.dtype.hasobject:
        return form
    return f"{form} {hashlib.blake2b(value.tobytes(), digest_size=8).hexdigest()}"


def _class(kind: Any) -> str:
    installed = _is_file_installed(getattr(sys.modules.get(kind.__module__), "__file__", None) or "")
    return _installed_name(kind) if installed else str(kind.__qualname__)


def _named(function: types.FunctionType) -> str:
    """A function's name, and of the user's own its code."""
    if _is_installed(function):
        return _installed_name(function)
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    return f"{function.__qualname__}@{version}:{_code_digest(function.__code__, function.__doc__)}"


def _installed_name(value: Any) -> str:
    """The full name; functrain's own without the module, since another release may have the function elsewhere."""
    if value.__module__.partition(".")[0] == OWN:
        return f"{OWN}:{value.__qualname__}"
    return f"{value.__module__}.{value.__qualname__}"


def _code_digest(code: types.CodeType, doc: str | None) -> str:
    found = hashlib.blake2b(code.co_code, digest_size=8)
    for name in code.co_names:
        found.update(name.encode() + b"\0")
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            found.update(_code_digest(constant, None).encode())
        elif isinstance(constant, frozenset):
            found.update(repr(sorted(map(repr, constant))).encode())
        elif constant is None or constant != doc:
            found.update(repr(constant).encode())
    return found.hexdigest()


def _names(code: types.CodeType) -> list[str]:
    """Names that a function's code, and that inside of it, looks up."""
    names = list(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            names += _names(constant)
    return names


def _is_installed(function: Callable[..., Any]) -> bool:
    code = getattr(function, "__code__", None)
    return code is None or _is_file_installed(code.co_filename)


@functools.lru_cache(maxsize=1000)
def _is_file_installed(file: str) -> bool:
    return file.startswith("<frozen") or os.path.realpath(file).startswith(_INSTALLED)


def _is_filled(cell: types.CellType) -> bool:
    try:
        cell.cell_contents  # noqa: B018
    except ValueError:
        return False
    return True


def _join(path: str, name: Any) -> str:
    if name in _PASSED_OVER:
        return path
    return f"{path}.{name}" if path else str(name)
