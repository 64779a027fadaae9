"""Whose code a configuration may run; docs/trust.md has the rules.

A `Config` as it is read may name functions of functrain's registry only. The functions here return one that may also
import the functions it names, or raise.
"""

from collections.abc import Sequence
from pathlib import Path

from functrain.app.config.files import STAGES_FILE, is_run, is_staged_run
from functrain.app.config.schema import Config
from functrain.checkpoint import CheckpointInfo
from functrain.foundation.errors import ConfigError
from functrain.foundation.signature import canonical, is_signed, is_signed_yaml
from functrain.loop.resume.metadata import metadata_of

WAY_OUT = "If you trust where it comes from, give --trust"


def trust_users_config(config: Config, trust: bool) -> Config:
    """A configuration that the user has named: it may run code, but not code that came with somebody's run.

    Args:
        config: as it was read.
        trust: `--trust` was given.

    Raises:
        ConfigError: if its code lies in the directory of a run that this user has not written.
    """
    names = config.references
    for folder in config.code_paths if names and not trust else ():
        run = _run_around(folder)
        if run is not None and not is_own_run(run):
            raise ConfigError(
                f"this configuration runs code ({_listed(names)}) out of {folder}, which lies in the directory of "
                f"a run that somebody else wrote. {WAY_OUT}"
            )
    return _allowed(config)


def trust_run(config: Config, run: Path, trust: bool) -> Config:
    """The configuration in a run's directory, which somebody else may have written.

    Args:
        config: as it was read from the run's config.yaml.
        run: the run's directory.
        trust: `--trust` was given.

    Raises:
        ConfigError: if it names functions, and this user has not written it or the code lies in the directory.
    """
    return _trust_foreign(config, run, run, is_own_run(run), trust)


def trust_staged(config: Config, folder: Path, trust: bool) -> Config:
    """The configuration of a stage, as the directory with the runs of all stages records it, likewise."""
    return _trust_foreign(config, folder, folder, _is_own(folder / STAGES_FILE), trust)


def trust_checkpoint(config: Config, info: CheckpointInfo, trust: bool) -> Config:
    """The configuration that a checkpoint carries, likewise."""
    metadata = metadata_of(info)
    own = isinstance(metadata.config, dict) and is_signed(canonical(metadata.config), metadata.signature)
    return _trust_foreign(config, info.path, info.path.resolve().parent.parent, own, trust)


def is_own_run(run: Path) -> bool:
    """Whether this user's `functrain train` wrote the configuration in a directory of a run, or of one with stages."""
    file = run / "config.yaml"
    return _is_own(file if file.is_file() else run / STAGES_FILE)


def _is_own(file: Path) -> bool:
    try:
        return is_signed_yaml(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError):
        return False


def _trust_foreign(config: Config, origin: Path, run: Path, own: bool, trust: bool) -> Config:
    names = config.references
    if not names or trust:
        return _allowed(config)
    if not own:
        raise ConfigError(
            f"{origin} names functions that are not functrain's own ({_listed(names)}), and you did not write it: it "
            f"carries no signature of yours. To run them would run its author's code. {WAY_OUT}"
        )
    for folder in config.code_paths:
        if folder.resolve().is_relative_to(run.resolve()):
            raise ConfigError(
                f"{origin} runs code ({_listed(names)}) out of {folder}, which lies in the run's directory: whoever "
                f"sends the run sends that code. {WAY_OUT}"
            )
    return _allowed(config)


def _allowed(config: Config) -> Config:
    folders = config.code_paths
    here = Path.cwd()
    if _run_around(here) is None:
        folders.append(here)
    return config.with_code(list(dict.fromkeys(folders)))


def _run_around(folder: Path) -> Path | None:
    """The run's directory that a folder is, or lies in."""
    folder = folder.resolve()
    for place in (folder, *folder.parents):
        if is_run(place) or is_staged_run(place):
            return place
    return None


def _listed(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names))
