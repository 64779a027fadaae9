"""The console that commands print on."""

from contextlib import AbstractContextManager, nullcontext

from rich.console import Console


class Screen(Console):
    """A console that lets its caller decide what happens when nobody reads its output any more."""

    def on_broken_pipe(self) -> None:
        """Called by rich where BrokenPipeError was caught; rich's own way is to end the process with exit code 1."""
        raise


def busy(console: Console, text: str) -> AbstractContextManager[object]:
    """Show on a terminal what a block is at, as long as it takes."""
    return console.status(text) if console.is_terminal else nullcontext()
