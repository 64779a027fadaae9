"""Training again what was trained before, to see whether the bits are the same."""

import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch

from functrain.checkpoint import Checkpointer, CheckpointInfo, read_checkpoint
from functrain.compiler import runner_for
from functrain.compiler.request import recorded
from functrain.diagnostics.reproduction import StepOptions, as_recorded, recorded_options
from functrain.distributed import current_world
from functrain.foundation.errors import CheckpointError
from functrain.foundation.numbers import is_integer
from functrain.loop.batches import Feed, MicroBatch, no_training_data
from functrain.loop.feeds import training_feed
from functrain.loop.memory import InParts
from functrain.loop.resume.environment import (
    described,
    fingerprint,
    settings,
)
from functrain.loop.resume.metadata import RunMetadata, metadata_of
from functrain.loop.resume.saving import what_differs, with_learning_rate
from functrain.step import Difference, diff_states, train_step
from functrain.step.execution import Runner
from functrain.step.state import TrainState, require_state


class Passage(NamedTuple):
    """From one state to the next: over a micro-batch, or over the end of an epoch (then without one)."""

    before: TrainState
    micro_batch: MicroBatch | None
    after: TrainState
    metrics: Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class Comparison:
    """A checkpoint, and what came out when its step was reached again.

    Attributes:
        name: the checkpoint's.
        step: its optimizer updates.
        differences: the leaves whose bits differ; empty if it was confirmed.
    """

    name: str
    step: int
    differences: tuple[Difference, ...]


@dataclass(frozen=True)
class ReplayReport:
    """What a replay came to.

    Attributes:
        start: the name of the checkpoint that it started from.
        steps: optimizer updates done again.
        compared: the checkpoints on the way; after one that differs there are no more.
        missed: checkpoints that should have been met and were not. The data may have another length by now.
        environment: what is not as it was when the first checkpoint was saved, a sentence each.
    """

    start: str
    steps: int
    compared: tuple[Comparison, ...]
    missed: tuple[str, ...] = ()
    environment: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether every checkpoint was met and confirmed bit for bit."""
        return not self.missed and all(not comparison.differences for comparison in self.compared)


def replay(
    state: TrainState,
    loader: Any,
    checkpoint: str | os.PathLike[str],
    *,
    steps: int | None = None,
    tail: str | None = None,
    compile: bool | None = None,
    backend: str | None = None,
    mode: str | None = None,
    engine: str | None = None,
) -> ReplayReport:
    """Train again from a checkpoint, and compare with the checkpoints that follow it, bit for bit.

    It computes as the run did: what the checkpoint's fingerprint says of threads, deterministic algorithms, TF32 and
    the precision of products holds until the end of the replay. Nothing is written. What callbacks did to states and
    batches is not done again; nor are evaluations: what they made of a plateau and of early stopping is taken from
    the checkpoint after the epoch.

    Args:
        state: a state as the run began with, from `init_state`; only its structure and its recipe count.
        loader: the training data, as given to `fit`.
        checkpoint: a checkpoint's directory; its neighbours are the ones to compare with.
        steps: how many optimizer updates; default: up to the next checkpoint.
        tail, compile, backend, mode, engine: as for `fit`; default: as the run had them. (Whether steps donate changes
            no bit.)

    Raises:
        ValueError: for arguments that are not allowed.
        CheckpointError: if the checkpoint cannot be read, or none follows it within `steps`.

    Example:
        >>> import tempfile, functrain as ft
        >>> state = ft.init_state(torch.nn.Linear(2, 1), ft.regression(), ft.optim.sgd(0.1))
        >>> data = [(torch.ones(4, 2), torch.zeros(4, 1))]
        >>> with tempfile.TemporaryDirectory() as run:
        ...     _ = ft.fit(state, data, epochs=3, run_dir=run, compile=False, progress=False)
        ...     report = ft.replay(state, data, f"{run}/checkpoints/step-00000001", steps=2)
        >>> report.ok, [comparison.name for comparison in report.compared]
        (True, ['step-00000002', 'step-00000003'])
    """
    if steps is not None and not is_integer(steps, 1):
        raise ValueError(f"steps must be a whole number, 1 or more; got {steps!r}")
    require_state("replay", state)
    start, info = read_checkpoint(checkpoint, state)
    targets = _targets(info, steps)
    options = recorded_options(info, tail=tail, compile=compile, backend=backend, mode=mode, engine=engine)
    with ExitStack() as stack:
        stack.enter_context(as_recorded(metadata_of(info).environment, state.device))
        feed = opened_feed(state, loader, info)
        stack.callback(feed.stream.close)
        runner = runner_for(options.compile, backend=options.backend, mode=options.mode, engine=options.engine)
        changed = _changed(info, state, feed, options)
        runner = in_parts_of(info, runner, state)
        compared, reached = _compare(start, feed, options.tail, runner, targets)
    differs = bool(compared and compared[-1].differences)
    met = {comparison.name for comparison in compared}
    missed = () if differs else tuple(target.name for target in targets.values() if target.name not in met)
    return ReplayReport(info.name, reached.step - start.step, tuple(compared), missed, tuple(changed))


def _changed(info: CheckpointInfo, state: TrainState, feed: Feed, options: StepOptions) -> list[str]:
    """What is not as it was, a sentence each."""
    how = recorded(options.backend, options.mode, options.engine) if options.compile else "eager"
    now = RunMetadata(
        environment=fingerprint(state.device, how),
        settings=settings(state, feed.stream, options.tail),
        described=described(state, feed.stream),
    )
    return what_differs(metadata_of(info), now)


def passages(state: TrainState, feed: Feed, tail: str, run: Runner) -> Iterator[Passage]:
    """The way that `fit` takes from a state to the end of its epoch.

    Raises:
        DataError: if the epoch has no batch.
    """
    for micro_batch in feed.windows(state.epoch, state.batch_idx, state.recipe.accumulate, tail):
        after, metrics = train_step(
            state,
            micro_batch.batch,
            examples=micro_batch.examples,
            end_window=micro_batch.ends_window,
            run=run,
        )
        yield Passage(state, micro_batch, after, metrics)
        state = after
    if state.batch_idx == 0:
        raise no_training_data()
    yield Passage(state, None, state.after_epochs(state.epoch + 1), {})


def opened_feed(state: TrainState, loader: Any, info: CheckpointInfo | None) -> Feed:
    """The training data from where a checkpoint left them."""
    metadata = RunMetadata() if info is None else metadata_of(info)
    feed = training_feed(state, loader, current_world(), metadata.portion)
    feed.size = max(feed.size, metadata.batch_size)
    if metadata.stream:
        feed.stream.load_state_dict(metadata.stream)
    return feed


def in_parts_of(info: CheckpointInfo | None, run: Runner, state: TrainState) -> Runner:
    """A runner that takes batches in the parts that the run of a checkpoint took."""
    rows = None if info is None else metadata_of(info).micro_batch
    return run if rows is None else InParts(run, rows, state.recipe.objective)


Counters = tuple[int, int, int]  # step, epoch, micro-batches into the epoch


def _targets(start: CheckpointInfo, steps: int | None) -> dict[Counters, CheckpointInfo]:
    """The checkpoints to be met, by their counters."""
    infos = Checkpointer(Path(start.path).parent, read_only=True).infos()
    # The counters of a NONFINITE one are those of the last good state, which has been compared before.
    later = {_place(info): info for info in infos if _place(info) > _place(start) and info.status != "NONFINITE"}
    if not later:
        raise CheckpointError(f"no checkpoint follows {start.name}, so there is nothing to compare with")
    if steps is None:
        first = min(later)
        return {first: later[first]}
    within = {place: info for place, info in later.items() if info.step <= start.step + steps}
    if not within:
        following = later[min(later)]
        raise CheckpointError(
            f"no checkpoint follows {start.name} within {steps} steps; the next is {following.name}: replay "
            f"{following.step - start.step} steps"
        )
    return within


def _place(info: CheckpointInfo) -> Counters:
    metadata = metadata_of(info)
    return info.step, metadata.epoch or 0, metadata.batch_idx


def _compare(
    state: TrainState, feed: Feed, tail: str, run: Runner, targets: Mapping[Counters, CheckpointInfo]
) -> tuple[list[Comparison], TrainState]:
    """The targets that were met, up to the first that differs, and the last state."""
    compared: list[Comparison] = []
    last = max(targets)
    while True:
        for passage in passages(state, feed, tail, run):
            state = passage.after
            place = (state.step, state.epoch, state.batch_idx)
            target = targets.get(place)
            if target is not None:
                saved: TrainState = read_checkpoint(target.path, state).tree
                if passage.micro_batch is None:
                    state = _as_decided(state, saved)
                compared.append(Comparison(target.name, target.step, tuple(diff_states(saved, state))))
            if place >= last or (compared and compared[-1].differences):
                return compared, state


def _as_decided(state: TrainState, saved: TrainState) -> TrainState:
    """At an epoch's end: what its evaluation, which is not done again, made of plateau and early stopping."""
    opt_state = with_learning_rate(state.opt_state, saved.opt_state, "reduction")
    return state.replace(plateau=saved.plateau, stopper=saved.stopper, opt_state=opt_state)
