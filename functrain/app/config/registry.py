"""What a configuration can name.

The tables are written out; no import registers anything. A user's own function is named
"package.module:function" and imported from the configuration's folder or the current directory, where
`functrain.app.config.trust` allows it.
"""

import importlib
import inspect
import sys
import traceback
from collections.abc import Callable, Iterable, Mapping
from functools import partial, reduce
from pathlib import Path
from types import ModuleType
from typing import Any

from functrain import metrics, models, optim
from functrain.app.config.suggestions import did_you_mean
from functrain.data import (
    breast_cancer,
    coffee,
    diabetes,
    digits,
    image_folder,
    masked_digits,
    memory_mapped,
    mnist,
    segmented_digits,
    standard_library,
    table,
    tokens,
    transforms,
)
from functrain.foundation.errors import ConfigError
from functrain.objectives import (
    binary_classification,
    classification,
    composed,
    distillation,
    language_modelling,
    losses,
    masked_reconstruction,
    model_loss,
    regression,
    segmentation,
    supervised,
)
from functrain.optim import schedules

REGISTRY: Mapping[str, Mapping[str, Callable[..., Any]]] = {
    "model": models.REGISTRY,
    "data": {
        "breast_cancer": breast_cancer,
        "coffee": coffee,
        "diabetes": diabetes,
        "digits": digits,
        "image_folder": image_folder,
        "masked_digits": masked_digits,
        "memory_mapped": memory_mapped,
        "mnist": mnist,
        "standard_library": standard_library,
        "segmented_digits": segmented_digits,
        "table": table,
        "tokens": tokens,
    },
    "objective": {
        "binary_classification": binary_classification,
        "classification": classification,
        "distillation": distillation,
        "language_modelling": language_modelling,
        "masked_reconstruction": masked_reconstruction,
        "model_loss": model_loss,
        "regression": regression,
        "segmentation": segmentation,
        "supervised": supervised,
        "weighted_sum": composed,
    },
    "loss": losses.REGISTRY,
    "optimizer": optim.REGISTRY,
    "schedule": schedules.REGISTRY,
    "metric": metrics.REGISTRY,
    "transform": transforms.REGISTRY,
    "callback": {},
}


def lookup(kind: str, name: str, folders: Iterable[Path] | None = None) -> Callable[..., Any]:
    """The function that a name stands for.

    Args:
        kind: a key of `REGISTRY`.
        name: a key of its table, or "package.module:function".
        folders: where modules are looked for, besides the installed ones; None: nothing may be imported.

    Raises:
        ConfigError: if there is none.

    Example:
        >>> lookup("optimizer", "sgd").__name__
        'sgd'
        >>> lookup("optimizer", "adamww")
        Traceback (most recent call last):
        ...
        functrain.foundation.errors.ConfigError: unknown optimizer 'adamww'; did you mean 'adamw'? known: ...
    """
    if ":" in name:
        if folders is None:
            raise ConfigError(
                f"{name!r} is not imported here; functions of functrain's own have no colon in their name"
            )
        return _imported(name, [str(folder) for folder in folders])
    table = REGISTRY[kind]
    if name not in table:
        kind = "data set" if kind == "data" else kind
        known = f"known: {', '.join(sorted(table))}, or your own" if table else "give your own"
        raise ConfigError(f"unknown {kind} {name!r}{did_you_mean(name, table)} {known} as package.module:function")
    return table[name]


def _imported(reference: str, folders: list[str]) -> Callable[..., Any]:
    module_name, _, attribute = reference.partition(":")
    if not all(part.isidentifier() for part in (*module_name.split("."), *attribute.split("."))):
        raise ConfigError(f"{reference!r} is not of the form package.module:function")
    _refuse_if_foreign(reference, module_name)
    # At the end, so that a file beside the configuration cannot take the place of an installed module.
    sys.path.extend(folder for folder in folders if folder not in sys.path)
    importlib.invalidate_caches()
    try:
        module = importlib.import_module(module_name)
    except Exception as error:
        raise ConfigError(_import_message(reference, module_name, error, folders)) from error
    try:
        found: Any = reduce(partial(_member, reference), attribute.split("."), module)
    except AttributeError:
        public = [key for key in vars(module) if not key.startswith("_")]
        hint = did_you_mean(attribute, public).rstrip(";")
        raise ConfigError(f"module {module_name!r} ({module.__file__}) has no {attribute!r}{hint}") from None
    if not callable(found):
        raise ConfigError(f"{reference!r} is a {type(found).__name__}, not a function or class")
    if not isinstance(found, partial) and (isinstance(found, type) or inspect.isroutine(found)):
        _refuse_if_foreign(reference, found.__module__)
    return found


def _member(reference: str, owner: Any, name: str) -> Any:
    found = getattr(owner, name)
    if isinstance(found, ModuleType):
        _refuse_if_foreign(reference, found.__name__)
    return found


def _refuse_if_foreign(reference: str, module: str | None) -> None:
    """Refuse what no model, data set or optimizer is made by: `os:system`, `torch:load`, `my_package:os.system`.

    Raises:
        ConfigError: if the module belongs to Python or torch.
    """
    package = (module or "builtins").partition(".")[0]
    if package == "torch":
        owner, way_out = "torch", "write a function of your own that calls torch, and name that"
    elif package in sys.stdlib_module_names or package == "__main__":
        owner, way_out = "Python's standard library", "name a function of your own; a file of yours needs another name"
    else:
        return
    raise ConfigError(f"{reference!r} is not allowed: {package!r} belongs to {owner}; {way_out}")


def _import_message(reference: str, module: str, error: Exception, folders: list[str]) -> str:
    missing = error.name if isinstance(error, ModuleNotFoundError) else None
    if missing is not None and (module == missing or module.startswith(f"{missing}.")):
        return f"{reference!r}: there is no module {missing!r} in {' or '.join(folders)}, nor among the installed ones"
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return (
        f"{reference!r}: importing {module} failed: {type(error).__name__}: {error} ({frame.filename}:{frame.lineno})"
    )
