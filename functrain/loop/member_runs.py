"""The members of a stack's run as runs of their own: directories as each would have, had it trained alone."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

from functrain.checkpoint import Checkpointer, CheckpointInfo
from functrain.distributed import World
from functrain.loop.feeds import training_feed
from functrain.loop.members import most_refused
from functrain.loop.output.log_files import DIGEST, MEMBERS
from functrain.loop.output.records import Record, Records
from functrain.loop.resume.constant import constant_metadata
from functrain.loop.resume.metadata import metadata_of
from functrain.loop.settings import Settings
from functrain.step import digest
from functrain.step.state import TrainState


class Moment(NamedTuple):
    """A checkpoint of the stack's run.

    Attributes:
        info: what it says about itself.
        state: the member's.
    """

    info: CheckpointInfo
    state: TrainState


class Alone(NamedTuple):
    """What the member's own run would be started with.

    Attributes:
        state: its first one.
        loader: its training data.
        settings: of `fit`; what they say of compiling, each checkpoint of the stack's run says.
    """

    state: TrainState
    loader: Any
    settings: Settings


def write_member(run_dir: Path, number: int, moments: Sequence[Moment], records: Sequence[Record], alone: Alone) -> str:
    """Write the checkpoints and the log of a member's run.

    Records have no digest, but for those that a checkpoint belongs to: a digest is of a whole state.

    Args:
        run_dir: an empty directory.
        number: the member's.
        moments: of the run, the oldest first.
        records: the log of the stack's run.
        alone: what the member's run would be started with.

    Returns:
        The last checkpoint's status.
    """
    settings = alone.settings
    log = Records(run_dir, tensorboard=settings.tensorboard)
    feed = training_feed(alone.state, alone.loader, World(), settings.portion)
    constant = constant_metadata(settings, alone.state, alone.loader, feed)
    written, done, status = 0, None, ""
    with (
        closing(log),
        closing(feed.stream),
        Checkpointer(
            run_dir / "checkpoints", keep=settings.keep, keep_best=settings.keep_best, mode=settings.watch_mode
        ) as checkpointer,
    ):
        for info, state in moments:
            if done == (state.step, state.micro_step):  # the member had stopped before
                continue
            known = metadata_of(info)
            own = list(_own_records(records[written : known.records], number))
            written, done = known.records, (state.step, state.micro_step)
            _append(log, own, state)
            status = _status(info.status, state, settings)
            metadata = dataclasses.replace(constant, environment=known.environment).at(
                state,
                records=len(log),
                log=log.mark(),
                metric_names=known.metric_names,
                batch_size=feed.size,
                stream=feed.stream.state_dict(),
            )
            checkpointer.save(
                state,
                step=state.step,
                micro_step=state.micro_step,
                status=status,
                metric=_metric(own, state, settings),
                metadata=metadata.to_json(),
            )
            checkpointer.wait()
    return status


def _append(log: Records, records: Sequence[Record], state: TrainState) -> None:
    for record in records:
        holds = record is records[-1] and record["step"] == state.step and record["kind"] != "step"
        log.append(record | {DIGEST: digest(state)} if holds else record)


def _own_records(records: Sequence[Record], number: int) -> Iterator[Record]:
    """The records that the member's own run would have, without digests; none after it has stopped."""
    for record in records:
        values: Mapping[str, Sequence[Any]] = record.get(MEMBERS, {})
        own = {name: each[number] for name, each in values.items()}
        if own and all(value is None for value in own.values()):
            return
        yield {name: own.get(name, value) for name, value in record.items() if name not in (MEMBERS, DIGEST)}


def _metric(records: Sequence[Record], state: TrainState, settings: Settings) -> float | None:
    """The watched metric of a checkpoint: in the record that was written with it."""
    if not records or records[-1]["kind"] == "step" or records[-1]["step"] != state.step:
        return None
    return records[-1].get(settings.watch or ("train_loss" if settings.eval_loader is None else "eval_loss"))


def _status(of_stack: str, state: TrainState, settings: Settings) -> str:
    """The status that the member's own checkpoint would have."""
    rule, bad = settings.decisions.early_stopping, int(state.counts.skipped_in_a_row)
    most = most_refused(settings, state)
    if most is not None and bad >= most:
        return "NONFINITE"
    ended = rule is not None and state.stopper.num_bad_epochs >= rule.patience
    return "COMPLETE" if ended else of_stack
