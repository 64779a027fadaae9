"""The members of a stack's run as runs of their own: directories as each would have, had it trained alone."""

import dataclasses
import math
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


class _Part(NamedTuple):
    """What a checkpoint of the stack's run comes to for a member.

    Attributes:
        moment: the checkpoint.
        records: those since the checkpoint before.
        metric: the watched one; None: none belongs to it.
        status: that the member's own checkpoint would have.
    """

    moment: Moment
    records: Sequence[Record]
    metric: float | None
    status: str


def write_member(run_dir: Path, number: int, moments: Sequence[Moment], records: Sequence[Record], alone: Alone) -> str:
    """Write the log of a member's run, and its last and its best checkpoint.

    A record has a digest if it belongs to one of the moments: a digest is of a whole state.

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
    parts = list(_parts(number, moments, records, settings))
    kept = _kept([part.metric for part in parts], settings.watch_mode)
    log = Records(run_dir, tensorboard=settings.tensorboard)
    feed = training_feed(alone.state, alone.loader, World(), settings.portion)
    constant = constant_metadata(settings, alone.state, alone.loader, feed)
    checkpoints = Checkpointer(run_dir / "checkpoints", keep=settings.keep, mode=settings.watch_mode)
    with closing(log), closing(feed.stream), checkpoints:
        for place, (moment, own, metric, status) in enumerate(parts):
            state, known = moment.state, metadata_of(moment.info)
            _append(log, own, state)
            if place not in kept:
                continue
            metadata = dataclasses.replace(constant, environment=known.environment).at(
                state,
                records=len(log),
                log=log.mark(),
                metric_names=known.metric_names,
                batch_size=feed.size,
                stream=feed.stream.state_dict(),
            )
            checkpoints.save(
                state,
                step=state.step,
                micro_step=state.micro_step,
                status=status,
                metric=metric,
                metadata=metadata.to_json(),
            )
            checkpoints.wait()
    return parts[-1].status


def _parts(number: int, moments: Sequence[Moment], records: Sequence[Record], settings: Settings) -> Iterator[_Part]:
    """The moments until the member has stopped."""
    written, done = 0, None
    for moment in moments:
        state, here = moment.state, (moment.state.step, moment.state.micro_step)
        if done == here:
            continue
        until = metadata_of(moment.info).records
        own = list(_own_records(records[written:until], number))
        written, done = until, here
        yield _Part(moment, own, _metric(own, state, settings), _status(moment.info.status, state, settings))


def _kept(metrics: Sequence[float | None], mode: str) -> set[int]:
    """The places of the last checkpoint and of the best one, of several equal ones the first.

    Example:
        >>> _kept([0.5, 0.2, None, 0.3], "min"), _kept([None], "min")
        ({1, 3}, {0})
    """
    sign = 1 if mode == "min" else -1
    known = [(sign * metric, place) for place, metric in enumerate(metrics) if metric is not None]
    known = [each for each in known if not math.isnan(each[0])]
    return {len(metrics) - 1, *(place for _, place in sorted(known)[:1])}


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
