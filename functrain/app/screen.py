"""The console that commands print on."""

from rich.console import Console


class Screen(Console):
    """A console that lets its caller decide what happens when nobody reads its output any more."""

    def on_broken_pipe(self) -> None:
        """Called by rich where BrokenPipeError was caught; rich's own way is to end the process with exit code 1."""
        raise
