"""Paths as users write them: `~` is expanded, and a later change of the working directory does not move them."""

import os
from pathlib import Path


def absolute(path: str | os.PathLike[str]) -> Path:
    """The absolute path; links are not followed, and nothing need exist.

    Example:
        >>> absolute("~/runs").is_absolute(), absolute("/a/../b").name
        (True, 'b')
    """
    return Path(os.path.abspath(os.path.expanduser(path)))


def shown_path(path: Path) -> str:
    """A path for people: relative to the working directory if it lies in it.

    Example:
        >>> shown_path(absolute("runs/digits")).replace(os.sep, "/")
        'runs/digits'
    """
    try:
        return str(path.relative_to(Path.cwd()))
    except (ValueError, FileNotFoundError):  # elsewhere, or the working directory is gone
        return str(path)
