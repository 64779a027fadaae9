"""Names of torch's that are private, and may change with any release, stand in one module and in the compiler."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

import functrain

PACKAGE = Path(functrain.__file__).parent
ROOMS = (PACKAGE / "compiler", PACKAGE / "foundation" / "torch_internals.py")
_CLASSES = (torch.Tensor, nn.Module, nn.Parameter, torch.Generator, torch.optim.Optimizer, torch.utils.data.DataLoader)
OF_OBJECTS = {
    name
    for names in (*map(dir, _CLASSES), vars(nn.Module()), vars(torch.optim.SGD([torch.ones(1)], 0.1)))
    for name in names
    if name.startswith("_") and not name.endswith("__")
} | {"_cdata", "_orig_mod", "_schema"}
_IN_TEXT = re.compile(r"\btorch(\.\w+)*\._[a-z]|^_foreach_|^aten\._|\btorch\.fx\.experimental\b")


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.endswith("__")


def torch_names(tree: ast.Module) -> set[str]:
    """What a module calls torch and parts of it."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {(a.asname or a.name).partition(".")[0] for a in node.names if a.name.split(".")[0] == "torch"}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "torch":
            names |= {a.asname or a.name for a in node.names}
    return names


def texts_of_documentation(tree: ast.Module) -> set[ast.AST]:
    """Strings that stand alone."""
    return {
        node.value for node in ast.walk(tree) if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }


def private_names(source: str) -> Iterator[tuple[int, str]]:
    """Line and name of each private name of torch's in a module."""
    tree = ast.parse(source)
    known, documentation = torch_names(tree), texts_of_documentation(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found = [a.name for a in node.names]
        elif isinstance(node, ast.ImportFrom):
            found = [f"{node.module}.{a.name}" for a in node.names]
        elif isinstance(node, ast.Attribute) and is_private(node.attr):
            chain = ast.unparse(node.value)
            of_torch = re.split(r"\W", chain)[0] in known
            of_object = node.attr in OF_OBJECTS and chain not in ("self", "cls")
            found = [f"torch.{node.attr}"] if of_torch or of_object else []
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in documentation:
            found = [f"torch.{node.value}"] if node.value in OF_OBJECTS else []
            found += ["torch._text"] if _IN_TEXT.search(node.value) else []
        else:
            continue
        for name in found:
            parts = name.split(".")
            if parts[0] == "torch" and (any(map(is_private, parts)) or parts[1:3] == ["fx", "experimental"]):
                yield node.lineno, ast.unparse(node)


def test_private_names_of_torch_stand_in_their_rooms() -> None:
    elsewhere = [
        f"{path.relative_to(PACKAGE.parent)}, line {line}: {text}"
        for path in sorted(PACKAGE.rglob("*.py"))
        if not any(path.is_relative_to(room) for room in ROOMS)
        for line, text in private_names(path.read_text())
    ]
    assert elsewhere == [], "put the name into functrain/foundation/torch_internals.py, with a substitute"


@pytest.mark.parametrize(
    "source",
    [
        "import torch._dynamo",
        "import torch.utils._pytree as pytree",
        "from torch._subclasses import FakeTensor",
        "from torch.utils import _pytree",
        "from torch.fx.experimental.proxy_tensor import get_proxy_mode",
        "import torch\ntorch._C._len_torch_dispatch_stack()",
        "import torch\ntorch.compiler._is_compiling_flag = True",
        "from torch import nn\nnn.modules._functions",
        "tensor._version",
        "module._parameters",
        "getattr(module, '_buffers')",
        "import sys\nsys.modules.get('torch._inductor.config')",
        "importlib.import_module('torch.utils._python_dispatch')",
        "getattr(torch, f'_foreach_{op}')",
    ],
)
def test_it_would_find(source: str) -> None:
    assert list(private_names(source))


@pytest.mark.parametrize(
    "source",
    [
        "import torch\ntorch.utils.data.DataLoader.__init__",
        "import os\nos._exit(1)",
        "named._replace(a=1)",
        "class A:\n    def f(self):\n        return self._base",
        '"""As torch._foreach_add does."""',
        "from torch.utils.flop_counter import FlopCounterMode",
    ],
)
def test_it_lets_pass(source: str) -> None:
    assert not list(private_names(source))
