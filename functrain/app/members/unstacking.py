"""Write the members of a stack's run as ordinary runs."""

import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from functrain.app.config.build import build_rules, fit_settings
from functrain.app.config.loading import plain, save_config
from functrain.app.config.schema import Config
from functrain.app.runs import outcome, surroundings
from functrain.app.runs.directory import RunDirectory, write_json
from functrain.checkpoint import CheckpointInfo
from functrain.data import Loader
from functrain.foundation.errors import CheckpointError, FunctrainError
from functrain.foundation.paths import shown_path
from functrain.foundation.scratch import scratch_folder
from functrain.foundation.signature import canonical, sign
from functrain.loop.member_runs import Alone, Moment, write_member
from functrain.loop.resume.metadata import metadata_of
from functrain.loop.settings import Settings
from functrain.step import TrainState, unstack

MARK = "unstacked.json"  # in a member's directory: where it comes from
STATUSES = {"COMPLETE": outcome.FINISHED, "NONFINITE": outcome.FAILED}


@dataclass(frozen=True)
class MemberRun:
    """A member's run, as it is to be written.

    Attributes:
        config: of a run of its own.
        path: its directory.
        train, val: its loaders.
        data: digests of its data by split; None: those of the stack's run.
    """

    config: Config
    path: Path
    train: Loader
    val: Loader | None
    data: dict[str, str | None] | None = None


def write_members(
    run: RunDirectory, fresh: TrainState, members: Sequence[MemberRun], say: Callable[[str], None]
) -> list[Path]:
    """Write the runs of all members. A kill leaves the run that was there before, or the new one.

    A member that was trained on in its directory stays as it is.

    Args:
        run: the stack's.
        fresh: the stack's first state.
        members: in the stack's order.
        say: gets a line for each member that stays.

    Returns:
        The directories that were written.

    Raises:
        CheckpointError: the stack's run has no checkpoint, or none that can be read.
        FunctrainError: a file cannot be written.
    """
    found = list(_restored(run, fresh, say))
    if not found:
        raise CheckpointError(f"{shown_path(run.path)} has no checkpoint yet: train it first")
    last, records, begun = found[-1][0], run.records(), unstack(fresh)
    moments = [[Moment(info, states[number]) for info, states in found] for number in range(len(members))]
    written = []
    for number, member in enumerate(members):
        if _is_current(member.path, last):
            continue
        if _was_trained_on(member.path):
            say(f"{shown_path(member.path)} was trained on after it was written, and stays as it is")
            continue
        alone = Alone(begun[number], member.train, _settings(member))
        try:
            member.path.parent.mkdir(parents=True, exist_ok=True)
            with scratch_folder(member.path.parent, ".unstacking-") as folder:
                status = write_member(_made(folder / "run"), number, moments[number], records, alone)
                _write_rest(folder / "run", run, number, member, status, last)
                _put(folder, member.path)
        except OSError as error:
            raise FunctrainError(f"{shown_path(member.path)} cannot be written: {error.strerror}") from error
        written.append(member.path)
    return written


def _restored(
    run: RunDirectory, fresh: TrainState, say: Callable[[str], None]
) -> Iterator[tuple[CheckpointInfo, list[TrainState]]]:
    """The checkpoints of the stack's run, and the members in each; one that is damaged is left out."""
    infos = run.checkpoints()
    with run.open() as checkpointer:
        for info in infos:
            try:
                state = checkpointer.restore(fresh, info.name).tree
            except CheckpointError as error:
                if info is infos[-1]:
                    raise
                say(f"note: members have no checkpoint {info.name}: {error}")
                continue
            yield info, unstack(state)


def _settings(member: MemberRun) -> Settings:
    """Those of `fit` in the member's own run."""
    config, rules = member.config, build_rules(member.config)
    written = plain(config)
    return Settings(
        **fit_settings(config),
        run_dir=member.path,
        eval_loader=member.val,
        plateau=rules.plateau,
        early_stopping=rules.early_stopping,
        metadata={"config": written, "signature": sign(canonical(written)), "functrain": version("functrain")},
    )


def _write_rest(
    folder: Path, stack: RunDirectory, number: int, member: MemberRun, status: str, of: CheckpointInfo
) -> None:
    """What a run's directory has beside checkpoints and log."""
    save_config(member.config, folder / "config.yaml")
    starts = surroundings.read(stack.path)
    if starts:
        surroundings.copy(stack.path, folder, member.data)
    watch = member.config.evaluation.watch or ("train_loss" if member.val is None else "eval_loss")
    detail = "its loss or gradient was not finite" if status == "NONFINITE" else ""
    outcome.write_outcome(folder, STATUSES.get(status, outcome.INTERRUPTED), watch, detail)
    about: dict[str, Any] = {"stack": shown_path(stack.path), "member": number, "of": _known(of)}
    about["members"] = metadata_of(of).settings.get("members")  # how many, and in which form of the step
    write_json(folder / MARK, {**about, "checkpoint": RunDirectory(folder).name_of("last")})


def _known(of: CheckpointInfo) -> list[str]:
    """Which of all the checkpoints it is."""
    return [of.name, of.time]


def _mark(path: Path) -> dict[str, Any]:
    """What is noted in a member's directory; nothing if it was not written here."""
    with suppress(OSError, ValueError):
        found = json.loads((path / MARK).read_bytes())
        return found if isinstance(found, dict) else {}
    return {}


def _is_current(path: Path, last: CheckpointInfo) -> bool:
    """Whether a member's directory was made of the stack's last checkpoint."""
    return _mark(path).get("of") == _known(last) and (path / "checkpoints" / "last").is_dir()


def _was_trained_on(path: Path) -> bool:
    """Whether a member's directory has another checkpoint than was written into it, or was not written so at all."""
    has = RunDirectory(path).name_of("last")
    return has is not None and has != _mark(path).get("checkpoint")


def _put(folder: Path, path: Path) -> None:
    """Put the run in its place; what stood there goes with the scratch folder."""
    if path.exists():
        os.replace(path, folder / "before")
    os.replace(folder / "run", path)


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder
