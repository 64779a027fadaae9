"""The pages of the API reference: every public name, found in the `__init__` files without importing them."""

import ast
from functools import cache
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]

# page: its title, and the module whose public names are on it. A name of several modules is on the first page.
API = {
    "errors": ("Errors", "functrain.errors"),
    "step": ("State and step", "functrain.step"),
    "compiler": ("Compiled steps", "functrain.compiler"),
    "loop": ("Training", "functrain.loop"),
    "objectives": ("Objectives", "functrain.objectives"),
    "losses": ("ft.losses", "functrain.objectives.losses"),
    "schedules": ("ft.schedules", "functrain.optim.schedules"),
    "optim": ("ft.optim", "functrain.optim"),
    "metrics": ("ft.metrics", "functrain.metrics"),
    "data": ("ft.data", "functrain.data"),
    "models": ("ft.models", "functrain.models"),
    "evaluation": ("ft.evaluation", "functrain.evaluation"),
    "transforms": ("ft.transforms", "functrain.transforms"),
    "attribution": ("ft.attribution", "functrain.attribution"),
    "diagnostics": ("ft.diagnostics", "functrain.diagnostics"),
    "checkpoint": ("ft.checkpoint", "functrain.checkpoint"),
    "distributed": ("ft.distributed", "functrain.distributed"),
}
KINDS = (ast.FunctionDef, ast.ClassDef, ast.AnnAssign, ast.Assign)  # in this order
NOT_PUBLIC = ("step", "compiler", "loop", "objectives")  # modules: of these, only what `functrain` itself shows


class Name(NamedTuple):
    """A public name."""

    name: str
    path: str  # where it is defined
    summary: str
    kind: int  # of KINDS


def api_pages() -> dict[str, str]:
    """Path and Markdown of the pages."""
    pages, seen = dict[str, str](), set[str]()
    for page, (title, module) in API.items():
        names = _names(module, page in NOT_PUBLIC)
        new = [name for name in names if name.path not in seen]
        seen |= {name.path for name in new}
        blocks = "".join(f"::: {name.path}\n\n" for name in new)
        text = docstring_of(_file(module))
        pages[f"api/{page}.md"] = f"# {title}\n\n{text}\n\n{_table(names)}\n{blocks}"
    rows = "".join(
        f"| [{title}]({page}.md) | {docstring_of(_file(module)).partition(chr(10))[0]} |\n"
        for page, (title, module) in API.items()
    )
    own = _table(_names("functrain", False), "ft.")
    pages["api/index.md"] = f"# API\n\n| page | what |\n|---|---|\n{rows}\nNames of `import functrain as ft`:\n\n{own}"
    return pages


def docstring_of(path: Path) -> str:
    """The docstring of a file."""
    return ast.get_docstring(_tree(path)) or ""


def _table(names: list[Name], prefix: str = "") -> str:
    rows = "".join(f"| [`{prefix}{each.name}`][{each.path}] | {each.summary} |\n" for each in names)
    return f"| name | what |\n|---|---|\n{rows}"


def _names(module: str, only_at_top: bool) -> list[Name]:
    """The public names of a module, without modules among them."""
    names = _exported(module)
    if only_at_top:
        names = [name for name in names if name in _exported("functrain")]
    found = [_defined(module, name) for name in names]
    return sorted((each for each in found if each is not None), key=lambda each: (each.kind, each.name.lower()))


def _exported(module: str) -> list[str]:
    """`__all__`; without it the names of `import name as name`."""
    names = []
    for node in ast.walk(_tree(_file(module))):
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__all__":
            return list(ast.literal_eval(node.value))
        if isinstance(node, ast.ImportFrom):
            names += [each.name for each in node.names if each.name == each.asname]
    return names


def _defined(module: str, name: str) -> Name | None:
    """Follow the imports to where a name is defined; None for a module."""
    for node in ast.walk(_tree(_file(module))):
        if isinstance(node, ast.ImportFrom) and name in [each.asname or each.name for each in node.names]:
            source = next(each.name for each in node.names if (each.asname or each.name) == name)
            is_module = _file(f"{node.module}.{source}").exists() and not _defines(node.module, source)
            return None if is_module else _defined(str(node.module), source)
    body = _tree(_file(module)).body
    at = next(at for at, node in enumerate(body) if name in _names_of(node))
    text = _docstring(body[at], body[at + 1 : at + 2])
    return Name(name, f"{module}.{name}", text.partition("\n")[0], KINDS.index(type(body[at])))


def _docstring(node: ast.stmt, following: list[ast.stmt]) -> str:
    """Of a function or class its own; of a constant the text after it."""
    if isinstance(node, ast.ClassDef | ast.FunctionDef):
        return ast.get_docstring(node) or ""
    return ast.get_docstring(ast.Module(following, [])) or ""


def _defines(module: str | None, name: str) -> bool:
    """Whether the module's own file defines or imports the name, so that it is not only a module within it."""
    imports = (node for node in ast.walk(_tree(_file(str(module)))) if isinstance(node, ast.ImportFrom))
    imported = {each.asname or each.name for node in imports if node.module != module for each in node.names}
    return name in imported or any(name in _names_of(node) for node in _tree(_file(str(module))).body)


def _names_of(node: ast.stmt) -> list[str]:
    if isinstance(node, ast.ClassDef | ast.FunctionDef):
        return [node.name]
    if isinstance(node, ast.AnnAssign):
        return [getattr(node.target, "id", "")]
    return [getattr(target, "id", "") for target in node.targets] if isinstance(node, ast.Assign) else []


def _file(module: str) -> Path:
    path = ROOT / module.replace(".", "/")
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


@cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text())
