"""A run's directory, opened for one run at a time."""

import dataclasses
import shutil
import warnings
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from functrain.checkpoint import (
    Checkpointer,
    CheckpointInfo,
    CheckpointWarning,
    Peers,
    PieceWriter,
    RunLock,
    import_orbax,
    without_sight_of,
)
from functrain.distributed import ProcessPeers, World, all_ranks, barrier
from functrain.foundation.errors import CheckpointError
from functrain.loop.output.log_files import CSV, JSON, NO_MARK
from functrain.loop.output.tensorboard import FOLDER
from functrain.loop.output.timing import FILE as TIMING
from functrain.loop.resume.metadata import RunMetadata
from functrain.loop.resume.saving import Saver, restore
from functrain.loop.settings import TRACKERS
from functrain.step.state import TrainState

LOGS = (JSON, CSV, FOLDER, *(f"{tracker.name}.json" for tracker in TRACKERS), TIMING)


@dataclass(frozen=True)
class Opening:
    """How a run's directory is opened.

    Attributes:
        run_dir: the directory; None keeps nothing.
        resume: "auto", "never", or a checkpoint's name or path.
        keep, keep_best: how many of the newest and of the best checkpoints stay.
        watch_mode: whether a smaller ("min") or a larger ("max") metric is better.
        metadata: of the run at hand, with what every checkpoint of it says.
        copy: a saved state's storage will be written to while it is being saved (donation).
        leads: this process writes; of several ranks one does.
        strict_resume: refuse a resume that would not be bit for bit.
        peers: the processes that keep the state in pieces, of which each writes and reads its own.
    """

    run_dir: Path | None
    resume: str
    keep: int
    keep_best: int
    watch_mode: Literal["min", "max"]
    metadata: RunMetadata
    copy: bool
    leads: bool
    strict_resume: bool = False
    peers: Peers | None = None


class Opened(NamedTuple):
    """A run's directory, opened.

    Attributes:
        saver: writes the run's checkpoints; None: nothing is kept, or another rank writes.
        piece_writer: writes this process's pieces into the checkpoints of another's.
        state: to start from.
        found: what its checkpoint says beside it.
        status: of that checkpoint; "" for a run that starts afresh.
    """

    saver: Saver | None
    state: TrainState
    piece_writer: PieceWriter | None = None
    found: RunMetadata = RunMetadata()
    status: str = ""


def open_run(opening: Opening, state: TrainState, stack: ExitStack, *, like: TrainState | None = None) -> Opened:
    """What writes the run's checkpoints, and what to start from.

    Args:
        opening: how.
        state: the state of a run that starts afresh.
        like: the same with the pieces that this process reads, if it reads pieces.
        stack: keeps the directory locked, and the checkpoints open, until it is closed.

    Raises:
        RunLockedError: if another run is writing to the directory.
        CheckpointError: if the directory cannot be written to, or holds another model's checkpoints.
        ResumeRefusedError: see `strict_resume`.
    """
    if opening.run_dir is None:
        if opening.resume not in ("auto", "never"):
            raise ValueError("resume=PATH continues in a run directory: give run_dir too")
        return Opened(None, state)
    run_dir, leads, like = opening.run_dir, opening.leads, state if like is None else like
    if opening.resume not in ("auto", "never"):
        Checkpointer(run_dir / "checkpoints", read_only=True).locate(opening.resume)  # before the directory is made
    lock: RunLock | None = None
    if leads:
        # Before anything is moved or written, and released last: after the checkpoint that is in flight is on disk.
        lock = _lock(run_dir, stack)
        if opening.resume == "never":
            set_aside(run_dir)
    barrier()
    checkpointer = stack.enter_context(
        Checkpointer(
            run_dir / "checkpoints",
            keep=opening.keep,
            keep_best=opening.keep_best,
            mode=opening.watch_mode,
            read_only=not leads,
            peers=opening.peers,
        )
    )
    writer = None
    if opening.peers is not None and not leads:
        writer = stack.enter_context(PieceWriter(run_dir / "checkpoints", opening.peers, copy=opening.copy))
    if leads:
        import_orbax()  # before anything is drawn
    saver = Saver(checkpointer, copy=opening.copy, lock=lock) if leads else None
    opened = Opened(saver, state, writer)
    if opening.resume not in ("auto", "never"):
        state, found, info = restore(checkpointer, like, opening.metadata, opening.resume, strict=opening.strict_resume)
        found = _make_room(run_dir, checkpointer, info, found, leads)
        opened = Opened(saver, state, writer, found, info.status)
    elif checkpointer.names():
        state, found, info = restore(checkpointer, like, opening.metadata, "last", strict=opening.strict_resume)
        opened = Opened(saver, state, writer, found, info.status)
    if leads:
        checkpointer.tidy()  # a run that is finished saves nothing more, which would do it
    barrier()  # nobody reads logs that are still being arranged, nobody writes what is still being read
    return opened


def with_peers(opening: Opening, state: TrainState, world: World) -> Opening:
    """The opening with the processes that write and read their pieces of the state, if they keep it in pieces.

    Where one of them does not see the run's directory, process 0 gathers the state and writes all of it.

    Raises:
        CheckpointError: such a process cannot go on from the checkpoints that process 0 sees.
    """
    exchange = state.recipe.exchange
    if opening.run_dir is None or exchange is None or not exchange.is_in_pieces:
        return opening
    peers = ProcessPeers.of(world)
    blind = without_sight_of(opening.run_dir, peers)
    if not blind:
        return dataclasses.replace(opening, peers=peers)
    who = f"process{'es' if len(blind) > 1 else ''} {', '.join(map(str, blind))} cannot see {opening.run_dir}"
    to_resume = opening.resume != "never" and (opening.run_dir / "checkpoints").is_dir()
    if any(all_ranks(to_resume, world)):
        raise CheckpointError(
            f"{who}, where there are checkpoints to go on from: give a run directory that all processes see, "
            "or resume='never'"
        )
    if opening.leads:
        warnings.warn(
            f"{who}: process 0 gathers the state for each checkpoint, and writes all of it. In a run directory that "
            "all processes see, each writes its own part",
            CheckpointWarning,
            stacklevel=4,
        )
    return opening


def _lock(run_dir: Path, stack: ExitStack) -> RunLock:
    lock = stack.enter_context(RunLock(run_dir))
    if lock.previous is not None:
        warnings.warn(
            f"the last run in {run_dir} ({lock.previous}) was killed, or its machine went down, before it could end "
            "in good order; what it did after its newest checkpoint is done again",
            CheckpointWarning,
            stacklevel=5,
        )
    return lock


def best_state(run_dir: Path, like: TrainState, peers: Peers | None = None) -> TrainState:
    """The state of the run's best checkpoint, once everything is saved.

    Raises:
        CheckpointError: if there is none that can be read.
    """
    barrier()
    checkpointer = Checkpointer(run_dir / "checkpoints", read_only=True, peers=peers)
    restored: TrainState = checkpointer.restore(like, "best").tree
    return restored


def set_aside(run_dir: Path) -> None:
    """Move an earlier run's checkpoints and logs to `previous-N`, if there is one."""
    _move([run_dir / name for name in ("checkpoints", *LOGS)], run_dir)


def _make_room(
    run_dir: Path, checkpointer: Checkpointer, info: CheckpointInfo, found: RunMetadata, leads: bool
) -> RunMetadata:
    """Arrange the run's directory behind a checkpoint that was named: what came after it must not be the newest.

    Continuing a checkpoint from elsewhere, the log that belongs to it comes along.
    """
    log = info.path.parent.parent / LOGS[0]
    inside = info.path.parent == checkpointer.directory.resolve()
    if not inside and not log.is_file():
        found = dataclasses.replace(found, records=0, log=NO_MARK)
    barrier()
    if leads and inside:
        names = checkpointer.names()
        _move([checkpointer.directory / name for name in names[names.index(info.name) + 1 :]], run_dir)
    elif leads:
        set_aside(run_dir)
        for name in LOGS[:2]:  # the second to mend the first by
            if log.with_name(name).is_file():
                shutil.copyfile(log.with_name(name), run_dir / name)
    return found


def _move(paths: Iterable[Path], run_dir: Path) -> None:
    present = [path for path in paths if path.exists()]
    if not present:
        return
    number = 1
    while (target := run_dir / f"previous-{number}").exists():
        number += 1
    target.mkdir()
    for path in present:
        path.rename(target / path.name)
