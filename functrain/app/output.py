"""Standard output and error that outlast their readers: a closed pipe or terminal does not end a training run."""

import io
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any


class _LastingFile(io.FileIO):
    """A file to which every write succeeds; what cannot be written (no reader, no space) is dropped."""

    def write(self, data: Any) -> int:
        try:
            written = super().write(data)
        except OSError:
            written = None
        return memoryview(data).nbytes if written is None else written


@contextmanager
def lasting(*names: str) -> Iterator[None]:
    """Within this context, `sys.stdout` or `sys.stderr` drops what nobody can receive, instead of raising.

    A stream that somebody has replaced (a notebook, a test) stays as it is.

    Args:
        names: "stdout", "stderr" or both.
    """
    with ExitStack() as stack:
        for name in names:
            stack.enter_context(_lasting(name))
        yield


@contextmanager
def _lasting(name: str) -> Iterator[None]:
    usual = getattr(sys, name)
    if not isinstance(usual, io.TextIOWrapper) or usual is not getattr(sys, f"__{name}__"):
        yield
        return
    with suppress(OSError):
        usual.flush()
    raw = _LastingFile(usual.fileno(), "w", closefd=False)
    is_buffered = isinstance(usual.buffer, io.BufferedWriter)  # it is not with `python -u`
    stream = io.TextIOWrapper(
        io.BufferedWriter(raw) if is_buffered else raw,
        encoding=usual.encoding,
        errors=usual.errors,
        line_buffering=usual.line_buffering,
        write_through=usual.write_through,
    )
    setattr(sys, name, stream)
    try:
        yield
    finally:
        setattr(sys, name, usual)
        stream.flush()
