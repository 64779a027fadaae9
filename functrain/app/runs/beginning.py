"""A run that begins with parameters of another run, of another stage, or of a file."""

import json
import os
import shutil
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from functrain.app.config.schema import Config, InitFromConfig
from functrain.app.runs.ancestry import FILE, START, Ancestry, ancestry_of, start_of
from functrain.app.runs.digests import Moment, digests
from functrain.app.runs.directory import write_json
from functrain.checkpoint import init_from, read_info
from functrain.checkpoint.index import INDEX_FILE
from functrain.foundation.errors import CheckpointError, ConfigError
from functrain.foundation.paths import shown_path
from functrain.foundation.scratch import scratch_folder
from functrain.loop.resume.metadata import metadata_of
from functrain.step import TrainState, digest


class Origin(NamedTuple):
    """What a fresh run begins with.

    Attributes:
        path: of the checkpoint or file.
        ancestry: what the run records of it.
    """

    path: Path
    ancestry: Ancestry


def begin_override(path: Path | None, resume: str) -> list[str]:
    """What `--init-from` comes to among the overrides of the configuration.

    Raises:
        ConfigError: if `--resume` names a checkpoint, too.

    Example:
        >>> begin_override(Path("/models/a.pt"), "auto"), begin_override(None, "auto")
        (['init_from.path="/models/a.pt"', 'init_from.stage=null'], [])
    """
    if path is None:
        return []
    if resume not in ("auto", "never"):
        raise ConfigError(
            f"--init-from begins a run with {path}, --resume continues the one of {resume}: give one of them"
        )
    # JSON is YAML, whatever is in the name.
    return [f"init_from.path={json.dumps(str(path.absolute()))}", "init_from.stage=null"]


def source_of(begins: InitFromConfig, run: Path) -> Path:
    """The checkpoint or file that a run takes its first parameters from.

    Args:
        begins: the configuration's `init_from`.
        run: the run's directory; those of other stages are beside it.

    Raises:
        ConfigError: there is no such stage, or it has no checkpoint.
    """
    path = Path(begins.path) if begins.path is not None else run.parent / str(begins.stage)
    linked = path / "checkpoints" / begins.which
    if linked.is_dir():
        return Path(os.path.realpath(linked))  # what is read, recorded and kept is one, whatever becomes of the link
    if begins.stage is not None:
        raise ConfigError(
            f"init_from: the stage {begins.stage!r} has no checkpoint yet: there is no {shown_path(linked)}. Train it "
            f"first, with --stage {begins.stage} or --all-stages"
        )
    if begins.which != "last":
        what = "is a checkpoint itself" if (path / INDEX_FILE).is_file() else "is no run with such a checkpoint"
        raise ConfigError(f"init_from.which: {shown_path(path)} {what}, so leave out which={begins.which}")
    return path


def begin(state: TrainState, begins: InitFromConfig, run: Path) -> tuple[TrainState, Origin]:
    """A fresh state with parameters and buffers of a checkpoint or file.

    Args:
        state: a fresh one.
        begins: the configuration's `init_from`.
        run: the run's directory.

    Raises:
        CheckpointError: it cannot be read, or does not fit; the message names the leaves.
        ConfigError: there is no such stage, or a pattern fits nothing.
    """
    path = source_of(begins, run)
    begun = _taken_over(state, path, begins)
    return begun, Origin(path, replace(_ancestry(path), begins=digest(begun)))


def _ancestry(path: Path) -> Ancestry:
    """What is known of a checkpoint or file to begin with."""
    if not (path / INDEX_FILE).is_file():
        return Ancestry(shown_path(path), 0, "", (), "", "parameters")
    info = read_info(path)
    at_end = info.step > 0 and metadata_of(info).batch_idx == 0
    known = digests(path.parent.parent).get(Moment(info.step, at_end), "")
    return Ancestry(shown_path(path.parent.parent), info.step, known, (), info.name, "parameters")


def begun_again(state: TrainState, config: Config, run: Path) -> TrainState:
    """The first state of a run that has begun already: with the parameters that are kept in its directory.

    Args:
        state: a fresh one.
        config: the run's.
        run: its directory.

    Raises:
        ConfigError: it is another state than the run began with.
    """
    if config.init_from is None:
        return state
    ancestry = ancestry_of(run)
    kept = None if ancestry is None or not ancestry.checkpoint else start_of(run, ancestry)
    path = kept if kept is not None and kept.is_dir() else source_of(config.init_from, run)
    begun = _taken_over(state, path, config.init_from)
    if ancestry is not None and ancestry.begins not in ("", digest(begun)):
        raise ConfigError(
            f"{shown_path(run)} cannot be trained again: its first state had the digest {ancestry.begins}, and with "
            f"the parameters in {shown_path(path)} it has {digest(begun)}. The file, or the model's code, has changed"
        )
    return begun


def record(run: Path, origin: Origin | None) -> None:
    """Write down what a fresh run begins with, and keep that checkpoint; forget what an earlier run here began with.

    The files of a checkpoint are linked where the file system can do that, since functrain never changes them.
    """
    before = ancestry_of(run)
    if before is not None and not before.is_branch:
        (run / FILE).unlink()
        shutil.rmtree(run / START, ignore_errors=True)
    if origin is None:
        return
    if origin.ancestry.checkpoint:
        with scratch_folder(run, ".keeping-") as folder:
            kept = folder / "checkpoints" / origin.ancestry.checkpoint
            shutil.copytree(origin.path, kept, copy_function=_linked)
            (folder / "checkpoints").rename(_made(run / START) / "checkpoints")
    write_json(run / FILE, origin.ancestry.to_json())


def moved_on(run: Path, begins: InitFromConfig) -> str | None:
    """Whether a run began with another checkpoint than it would begin with today; None if not."""
    ancestry = ancestry_of(run)
    if ancestry is None or ancestry.is_branch or begins.stage is None:
        return None
    with suppress(ConfigError, CheckpointError):
        now = _ancestry(source_of(begins, run))
        if (now.checkpoint, now.digest) != (ancestry.checkpoint, ancestry.digest):
            return (
                f"this run began with {ancestry}. The {begins.which} checkpoint of stage {begins.stage} is another one "
                f"now: {now.checkpoint} (digest {now.digest}). To begin again with that one: --resume never"
            )
    return None


def _taken_over(state: TrainState, path: Path, begins: InitFromConfig) -> TrainState:
    """The state with parameters and buffers of a checkpoint or file."""
    try:
        return init_from(state, path, allow_new=begins.new, allow_dropped=begins.dropped, prefix=begins.prefix)
    except CheckpointError as error:
        if "does not fit the model" not in str(error):
            raise
        raise CheckpointError(
            f"{error}\nIn a configuration: init_from.new=[...] (allow_new), init_from.dropped=[...] (allow_dropped), "
            "init_from.prefix=..."
        ) from error
    except ValueError as error:
        renamed = str(error).replace("allow_new", "init_from.new").replace("allow_dropped", "init_from.dropped")
        raise ConfigError(renamed) from error


def _linked(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without links
        shutil.copy2(source, target)


def _made(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    return folder
