"""Lets what a C++ compiler writes appear by a rename, so that half of a file is never taken over.

Inductor takes over what it finds. Half of a precompiled header, left by a compiler that was killed, would fail each
later compilation, and half of the trial for vector instructions would make programs do without them.
"""

import contextlib
import importlib
import os
from collections.abc import Callable
from typing import Any

from functrain.compiler.patches.patch import Patch, replaced


def _enter() -> contextlib.AbstractContextManager[Any]:
    builder = importlib.import_module("torch._inductor.cpp_builder").CppBuilder
    build: Callable[[Any], None] = builder.build

    def build_whole(self: Any) -> None:
        target, command = self.get_target_file_path(), self.get_command_line()
        part = f"{target}.{os.getpid()}"
        try:
            with replaced(self, "get_command_line", lambda: command.replace(f"-o {target}", f"-o {part}")):
                build(self)
            if os.path.exists(part):
                os.replace(part, target)
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(part)

    return replaced(builder, "build", build_whole)


PATCH = Patch(
    name="whole_files",
    does="lets the C++ compiler write to a file beside, which is then renamed",
    gain="a start after a killed compilation works: no half of a header or library is taken over",
    checked=("2.11", "2.13", "2.15"),
    needed="kill a first compilation without it while the headers are compiled: the next one fails",
    enter=_enter,
)
