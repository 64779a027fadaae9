"""Refuses access to the memory of tensors without data while a step is traced, which would read anything."""

import contextlib
import importlib
from typing import Any

from functrain.compiler.patches.patch import Patch


def _enter() -> contextlib.AbstractContextManager[Any]:
    config = importlib.import_module("torch._functorch.config")
    return config.patch(fake_tensor_allow_unsafe_data_ptr_access=False)


PATCH = Patch(
    name="data_pointers",
    does="switches off fake_tensor_allow_unsafe_data_ptr_access",
    gain="`.numpy()` and `.tolist()` in a model are refused with their line, and read no memory",
    checked=("2.11", "2.13", "2.15"),
    needed="tests/compiler/test_trace.py fails without it where a model calls .numpy()",
    enter=_enter,
)
