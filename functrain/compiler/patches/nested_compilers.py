"""Traces functions that a user gave to torch.compile as plain Python, since the whole step is compiled."""

import contextlib
import sys
from typing import Any

from functrain.compiler.patches.patch import Patch


def _enter() -> contextlib.AbstractContextManager[Any]:
    dynamo = sys.modules.get("torch._dynamo")  # slow to import, and nobody calls torch.compile without it
    return contextlib.nullcontext() if dynamo is None else dynamo.config.patch(error_on_nested_fx_trace=False)


PATCH = Patch(
    name="nested_compilers",
    does="switches off Dynamo's error about torch.compile within a trace",
    gain="models that have compiled functions or modules within them are compiled",
    checked=("2.11", "2.13", "2.15"),
    needed="tests/compiler/test_users_models.py fails without it for such models",
    enter=_enter,
)
