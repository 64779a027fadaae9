"""Read one configuration file: YAML, JSON or TOML, by its suffix."""

import io
from pathlib import Path

from functrain.app.config.source import Source
from functrain.app.config.yaml_text import parse, parse_json
from functrain.foundation.errors import ConfigError
from functrain.foundation.regular_files import read_regular

LARGEST_FILE = 1_000_000
SUFFIXES = (".yaml", ".yml", ".json", ".toml")
STAGES_FILE = "stages.yaml"  # the configuration of a run with stages, in the directory that holds theirs


def is_run(folder: Path) -> bool:
    """Whether a folder is the directory of a run."""
    return (folder / "checkpoints").is_dir() and (folder / "config.yaml").is_file()


def is_staged_run(folder: Path) -> bool:
    """Whether a folder holds the runs of stages."""
    return (folder / STAGES_FILE).is_file()


def is_recorded(path: Path) -> bool:
    """Whether a file is the configuration that a run recorded."""
    if path.name == STAGES_FILE:
        return any(is_run(each.parent) for each in path.parent.glob("*/config.yaml"))
    return path.name == "config.yaml" and is_run(path.parent)


def read_source(path: Path, *, recorded: bool = False) -> Source:
    """Read a configuration file.

    Args:
        path: ".json" and ".toml" say the format; everything else is YAML.
        recorded: a run recorded it, so that it refers to no environment variable.

    Returns:
        The values; `problems` names what is wrong with some of them.

    Raises:
        ConfigError: if there is no such file, or it is not in its format.
    """
    text = _text(path)
    suffix = path.suffix.lower()
    if suffix == ".json":
        return parse_json(text, str(path))
    if suffix == ".toml":
        from functrain.app.config.toml_text import parse_toml

        return parse_toml(text, str(path))
    return parse(text, str(path), recorded=recorded)


def _text(path: Path) -> str:
    try:
        if path.is_dir():
            raise IsADirectoryError
        if path.stat().st_size > LARGEST_FILE:
            raise ConfigError(f"{path} has more than {LARGEST_FILE:,} bytes, so it is no configuration")
        return io.TextIOWrapper(io.BytesIO(read_regular(path, LARGEST_FILE)), encoding="utf-8-sig").read()
    except FileNotFoundError:
        first = "; the first argument is the configuration file, overrides follow it" if "=" in str(path) else ""
        raise ConfigError(f"there is no configuration file {path}{_nearby(path)}{first}") from None
    except IsADirectoryError:
        hint = f"; did you mean {path / 'config.yaml'}?" if (path / "config.yaml").is_file() else ""
        raise ConfigError(f"{path} is a directory, not a configuration file{hint}") from None
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        if isinstance(error, UnicodeDecodeError):
            raise ConfigError(f"{path} is not text in UTF-8: {error}") from error
        raise ConfigError(f"{str(path)!r} is no path: {error}") from error  # it holds a null character


def _nearby(path: Path) -> str:
    import difflib

    folder = path.parent
    names = [p.name for p in folder.iterdir() if p.suffix in SUFFIXES] if folder.is_dir() else []
    close = difflib.get_close_matches(path.name, names, n=1)
    return f"; did you mean {folder / close[0]}?" if close else ""
