"""The starter project of `functrain init`; its files lie in `starter/`, with `.txt` behind their names."""

import shlex
from collections.abc import Iterator
from pathlib import Path

from functrain.foundation.errors import ConfigError

TEMPLATES = Path(__file__).parent / "starter"
SUFFIX = ".txt"  # else pytest and the type checker would take them for functrain's own


def project_files() -> dict[str, str]:
    """The files of a project, by name."""
    named = {path.name.removesuffix(SUFFIX): path.read_text(encoding="utf-8") for path in TEMPLATES.glob(f"*{SUFFIX}")}
    named[".gitignore"] = named.pop("gitignore")
    return dict(sorted(named.items()))


def start_project(folder: Path) -> Iterator[str]:
    """Write the project, and say how to go on.

    Args:
        folder: where to.

    Raises:
        ConfigError: one of the files exists, or `folder` is one. Nothing is written then.
        OSError: a file cannot be written.
    """
    files = project_files()
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"{folder} is a file; give the directory of the project")
    present = [name for name in files if (folder / name).exists() or (folder / name).is_symlink()]
    if present:
        raise ConfigError(f"{folder} holds {', '.join(present)} already; nothing is written. Give another directory")
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        with (folder / name).open("x", encoding="utf-8") as file:  # "x": another process may be as quick
            file.write(text)
        yield f"wrote {folder / name}"
    yield ""
    yield "go on with:"
    for command in [] if folder.resolve() == Path.cwd() else [shlex.join(["cd", str(folder)])]:
        yield f"  {command}"
    yield "  functrain train config.yaml"
    yield "  pytest"
