"""torch's flag that says whether code is compiled, which torch and other libraries ask."""

import contextlib
from collections.abc import Iterator

import torch


@contextlib.contextmanager
def compiling() -> Iterator[None]:
    """Make `torch.compiler.is_compiling()` true, as it is within torch.compile and torch.export.

    The flag is the process's, so all threads see it.

    Example:
        >>> with compiling():
        ...     torch.compiler.is_compiling()
        True
    """
    before = torch.compiler._is_compiling_flag
    torch.compiler._is_compiling_flag = True
    try:
        yield
    finally:
        torch.compiler._is_compiling_flag = before
