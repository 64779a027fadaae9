"""What import-linter cannot see of the layers: which functions and attributes a module uses."""

import ast
import functools
from pathlib import Path

import functrain as ft

PACKAGE = Path(ft.__file__).parent
# Types, settings of the process, and what becomes JSON.
OF_TORCH = {
    "Size", "Tensor", "__version__", "are_deterministic_algorithms_enabled", "backends", "cuda", "device", "dtype",
    "get_num_threads", "is_deterministic_algorithms_warn_only_enabled", "strided", "tensor", "uint8",
    "use_deterministic_algorithms", "OutOfMemoryError",
}  # fmt: skip


@functools.cache
def nodes(folder: str) -> list[tuple[str, ast.AST]]:
    paths = sorted((PACKAGE / folder).rglob("*.py"))
    return [(str(path.relative_to(PACKAGE)), node) for path in paths for node in ast.walk(ast.parse(path.read_text()))]


def test_the_loop_has_no_tensor_arithmetic() -> None:
    used = {
        (path, node.attr)
        for path, node in nodes("loop")
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "torch"
    }
    assert {(path, name) for path, name in used if name not in OF_TORCH} == set()


def test_runners_tell_what_they_are_by_declared_attributes() -> None:
    asked = {
        (path, ast.unparse(node))
        for path, node in nodes(".")
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("getattr", "hasattr")
        if ast.unparse(node.args[0]).rpartition(".")[2].strip("_") in ("run", "runner")
    }
    assert asked == set()


def test_metadata_of_a_checkpoint_are_read_in_one_place() -> None:
    readers = {
        path
        for path, node in nodes(".")
        if isinstance(node, ast.Attribute) and node.attr == "metadata"
        if "CheckpointInfo" in (PACKAGE / path).read_text()
        if isinstance(node.value, (ast.Name, ast.Attribute)) and ast.unparse(node.value).rpartition(".")[2] == "info"
    }
    assert readers == {"loop/resume/metadata.py"}
