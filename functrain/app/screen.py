"""The console that commands print on."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console


class Screen(Console):
    """A console that lets its caller decide what happens when nobody reads its output any more."""

    def on_broken_pipe(self) -> None:
        """Called by rich where BrokenPipeError was caught; rich's own way is to end the process with exit code 1."""
        raise


@contextmanager
def busy(console: Console, text: str) -> Iterator[Callable[[str], None]]:
    """Show on a terminal what a block is at, as long as it takes.

    Yields:
        A function that changes the text.
    """
    if not console.is_terminal:
        yield lambda _text: None
        return
    with console.status(text) as status:
        yield status.update
