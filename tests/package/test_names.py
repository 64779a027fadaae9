"""What `import functrain` offers."""

import importlib
import inspect
import pkgutil
from pathlib import Path

import functrain as ft
from functrain.foundation.errors import FunctrainError

PACKAGE = Path(ft.__file__).parent
WITHIN = {
    "IrregularFileError",
    "ModuleInputError",
    "RunAgainError",
    "UnknownSizeError",
}  # always caught, or seen as a base class


def error_classes() -> dict[str, type]:
    """Every error and warning class that is written in the package."""
    found = {}
    for module in pkgutil.walk_packages([str(PACKAGE)], "functrain."):
        if module.name != "functrain.__main__":
            for name, value in vars(importlib.import_module(module.name)).items():
                if inspect.isclass(value) and issubclass(value, (FunctrainError, Warning, SystemExit)):
                    found[name] = value
    return {name: value for name, value in found.items() if value.__module__.startswith("functrain.")}


def test_every_error_is_in_errors_and_its_table():
    for name, value in error_classes().items():
        if not name.startswith("_") and name not in WITHIN:
            assert getattr(ft.errors, name) is value
            assert f"`{name}`" in ft.errors.__doc__


def test_the_version_is_the_packages():
    from importlib.metadata import version

    assert ft.__version__ == version("functrain")
