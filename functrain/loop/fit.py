"""Training, as a user calls it: `fit` puts the parts of a run together."""

import dataclasses
import os
import signal
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch

from functrain.checkpoint import Peers
from functrain.compiler import CompilingRunner, runner_for
from functrain.compiler.request import check as check_compiler
from functrain.data.worker_loss import losses_at_draws, refuse_import_by_worker
from functrain.distributed import World, current_world, replicate
from functrain.foundation.paths import absolute
from functrain.foundation.tf32 import tf32 as tf32_products
from functrain.foundation.trees import copy_tensors
from functrain.loop.batches import Feed
from functrain.loop.choosing import choose
from functrain.loop.ending import Ending
from functrain.loop.events import Callbacks
from functrain.loop.feeds import evaluation_feed, feed_for, training_feed
from functrain.loop.keeping import Keeper
from functrain.loop.keywords import takes
from functrain.loop.listeners import Listeners
from functrain.loop.measuring import Measuring
from functrain.loop.member_forms import with_faster_form
from functrain.loop.members import Failures, prepared
from functrain.loop.memory import InParts, check_micro_batch, explained
from functrain.loop.output import progress as displays
from functrain.loop.output.records import Records
from functrain.loop.output.sinks import FINISHED, INTERRUPTED
from functrain.loop.output.timing import EpochClock
from functrain.loop.process.determinism import deterministic_run
from functrain.loop.process.heap import kept_heap
from functrain.loop.process.interactive import is_interactive, returns_result
from functrain.loop.process.signals import TIME_IS_UP, Interrupted, SignalFlag
from functrain.loop.refused import nothing_left_if_refused
from functrain.loop.report import Report
from functrain.loop.result import FitResult
from functrain.loop.resume.constant import constant_metadata
from functrain.loop.resume.metadata import RunMetadata
from functrain.loop.resume.opening import Opened, Opening, best_state, open_run, with_peers
from functrain.loop.resume.programs import Programs
from functrain.loop.run import Run
from functrain.loop.settings import Settings
from functrain.loop.skips import SkipWatch
from functrain.loop.stepping import Stepping
from functrain.loop.updates_per_call import UpdatesPerCall
from functrain.loop.watching import watched_metric
from functrain.metrics.registry import measures as checked_measures
from functrain.step.arguments import check_whole_batches
from functrain.step.execution import Runner
from functrain.step.measures import with_metrics
from functrain.step.state import TrainState


@takes(Settings)
def fit(state: TrainState, loader: Any, settings: Settings) -> FitResult:
    """Train until `epochs` epochs or `steps` updates are done, whichever comes first.

    Both count from the run's beginning: a state that has done 3 epochs needs 2 more for `epochs=5`.
    With a `run_dir`, the same call after an interruption goes on at the very batch, bit for bit.

    Args:
        state: where training starts; never changed.
        loader: a `functrain.data.Loader`, a `torch.utils.data.DataLoader`, a loader with
            `state_dict()`/`load_state_dict()`, or any iterable of batches.
        {settings}

    Raises:
        ValueError, TypeError: for arguments that are not allowed.
        DataError: if there is no batch.
        OutOfMemoryError: if a step does not fit into memory; the message says what to set.
        NonFiniteError: see `on_nonfinite` and `max_consecutive_skips`; the state before the step is saved as NONFINITE.
        RunLockedError: if another run is writing to the run directory.
        RunLostError: if the run directory was deleted, renamed or replaced while the run was writing to it.
        CheckpointError: if the run directory belongs to another model, or cannot be written.
        ResumeRefusedError: see `strict_resume`.
        Interrupted: see `on_signal`.

    Example:
        >>> import functrain as ft, torch
        >>> state = ft.init_state(torch.nn.Linear(2, 1), ft.regression(), ft.optim.sgd(0.1))
        >>> data = [(torch.ones(4, 2), torch.zeros(4, 1))]
        >>> result = fit(state, data, epochs=2, compile=False, progress=False)  # ft.fit
        >>> result.stopped_by, result.state.step, len(result.history)
        ('epochs', 2, 2)
    """
    refuse_import_by_worker()
    world = current_world()
    settings.check(state)
    callbacks = Callbacks(settings.callbacks)
    if settings.compile:
        check_compiler(settings.backend, settings.mode, settings.engine)
    check_micro_batch(settings.micro_batch, world)
    if settings.micro_batch is not None:
        check_whole_batches(state.opt_state, f"micro_batch={settings.micro_batch!r}")
    if settings.metrics:
        state = with_metrics(state, checked_measures(settings.metrics))
    state = _for_ranks(state, settings, world)
    feeds = _feeds(state, loader, settings, world)
    _check_tail(settings, feeds[0], state)
    with ExitStack() as stack:
        flag = stack.enter_context(SignalFlag(settings.max_time, interactive=is_interactive()))
        stack.enter_context(losses_at_draws())
        _prepare_process(stack, state.device, settings.tf32, settings.deterministic)
        for feed in feeds:
            stack.callback(feed.stream.close)
        state, form = with_faster_form(state, feeds[0], settings)
        choice = choose(settings, state, feeds[0], world)
        settings = dataclasses.replace(settings, compile=choice.compile)
        opening = _opening(settings, state, loader, feeds[0], leads=world.rank == 0)
        stack.enter_context(nothing_left_if_refused(opening.run_dir if opening.leads else None))
        opening = with_peers(opening, state, world)
        opened = _open_run(opening, state, stack)
        report = _report(settings, opening, opened, stack)
        programs = Programs(opened.found.programs if settings.compile else {}, settings.strict_resume)
        runner = _runner(settings, state, opened.found, programs, report.display)
        feeds[0].size = max(feeds[0].size, opened.found.batch_size)
        if opened.found.stream:
            feeds[0].stream.load_state_dict(opened.found.stream)
        keeper = Keeper(
            settings=settings,
            saver=opened.saver,
            piece_writer=opened.piece_writer,
            constant=opening.metadata,
            programs=programs,
            feed=feeds[0],
            runner=runner,
            report=report,
            world=world,
        )
        rules = settings.decisions
        state = rules.prepared(opened.state) if opened.state.members is None else prepared(opened.state, rules)
        for why in filter(None, (form, choice.why)):
            if not settings.is_done(state):
                report.say(why)
        for place in report.records.places:
            report.say(place)
        run = _run(settings, state, feeds, callbacks, Ending(settings, flag, world), keeper)
        with explained(lambda: feeds[0].size):
            result = run.to_the_end(copy_tensors(state) if opening.copy else state, opened.status)
        report.records.status = INTERRUPTED if result.stopped_by in ("signal", "time") else FINISHED
        if result.stopped_by == "early_stopping" and settings.decisions.restores_best and opening.run_dir is not None:
            result = dataclasses.replace(result, state=_best(opening.run_dir, result.state, opening.peers))
    if not returns_result(settings.on_signal, result.stopped_by, flag.number):
        raise Interrupted(_exit_code(result, flag), result)
    return result


def _for_ranks(state: TrainState, settings: Settings, world: World) -> TrainState:
    """The state as the ranks train it: as `shard` has made it, or a replica on each."""
    exchange = state.recipe.exchange
    if state.members is not None:
        return _for_members(state, settings, world)
    if exchange is None:
        return replicate(state, world)
    if settings.micro_batch is not None:
        raise ValueError(
            f"micro_batch={settings.micro_batch!r} is not for a state from functrain.shard, whose micro-batches are "
            "those of the loader: take smaller ones, and accumulate more"
        )
    if exchange.processes != world.size:
        raise ValueError(
            f"the state was sharded for {exchange.processes} processes, and {world.size} train: call shard here"
        )
    return state


def _for_members(state: TrainState, settings: Settings, world: World) -> TrainState:
    """Refuse what a stack cannot do."""
    if world.size > 1:
        raise ValueError(f"a stack trains in one process, and here are {world.size}: give each process its own members")
    if settings.micro_batch is not None:
        raise ValueError(
            f"micro_batch={settings.micro_batch!r} is not for a stack: take a smaller batch and accumulate"
        )
    return state


def _open_run(opening: Opening, state: TrainState, stack: ExitStack) -> Opened:
    """`open_run`; checkpoints hold whole states."""
    exchange = state.recipe.exchange
    if exchange is None:
        return open_run(opening, state, stack)
    state = state.at_window_start()
    if opening.peers is not None:  # of which each reads its own part
        return open_run(opening, state, stack, like=exchange.in_pieces(state))
    opened = open_run(opening, exchange.whole(state), stack)
    return opened._replace(state=exchange.kept(opened.state))


def _opening(settings: Settings, state: TrainState, loader: Any, feed: Feed, *, leads: bool) -> Opening:
    return Opening(
        run_dir=None if settings.run_dir is None else absolute(settings.run_dir),
        resume=os.path.expanduser(settings.resume),
        keep=settings.keep,
        keep_best=settings.keep_best,
        watch_mode=settings.watch_mode,
        metadata=constant_metadata(settings, state, loader, feed),
        copy=settings.donate and settings.compile is True,
        leads=leads,
        strict_resume=settings.strict_resume,
    )


def _run(
    settings: Settings, state: TrainState, feeds: Sequence[Feed], callbacks: Callbacks, ending: Ending, keeper: Keeper
) -> Run:
    """The parts of a run, each of which knows those before it only."""
    runner, report, world = keeper.runner, keeper.report, keeper.world
    listeners = Listeners(callbacks, ending, donates=runner.donate)
    watched = watched_metric(settings, state.recipe.objective)
    recipe = state.recipe
    one_by_one = settings.deterministic or listeners.want_steps or recipe.accumulate > 1
    one_by_one = one_by_one or recipe.exchange is not None or state.members is not None
    stepping = Stepping(
        settings=settings,
        runner=runner,
        world=world,
        ending=ending,
        listeners=listeners,
        report=report,
        keeper=keeper,
        skips=SkipWatch(settings, state),
        failures=Failures(settings, state),
        watched=watched,
        per_call=UpdatesPerCall(settings, world, one_by_one=one_by_one or not runner.makes_series),
    )
    measuring = Measuring(
        settings=settings,
        feed=feeds[1] if len(feeds) > 1 else None,
        runner=runner,
        watched=watched,
        report=report,
        keeper=keeper,
        ending=ending,
    )
    return Run(
        settings=settings,
        feed=feeds[0],
        ending=ending,
        listeners=listeners,
        report=report,
        keeper=keeper,
        measuring=measuring,
        stepping=stepping,
    )


def _report(settings: Settings, opening: Opening, opened: Opened, stack: ExitStack) -> Report:
    own = opening.metadata.own
    config = own.get("config", own)
    records = Records(
        opening.run_dir,
        opened.found.records,
        opened.found.log,
        writes=opening.leads,
        tensorboard=settings.tensorboard,
        trackers=settings.trackers() if opening.leads else (),
        config=config if isinstance(config, Mapping) else own,
        lock=None if opened.saver is None else opened.saver.lock,
    )
    stack.callback(records.close)
    display = displays.display(settings.progress if opening.leads else False)
    stack.callback(display.close)
    if opened.saver is not None:
        opened.saver.checkpointer.on_saved = display.checkpoint
    clock = EpochClock(opening.run_dir if opening.leads else None, opened.state.step)
    return Report(settings, records, display, opened.found.metric_names, clock)


def _runner(
    settings: Settings,
    state: TrainState,
    found: RunMetadata,
    programs: Programs,
    display: displays.Display,
) -> Runner:
    """What runs the steps: it tells what it compiles, and takes batches in parts if that is wanted."""
    runner = runner_for(
        bool(settings.compile),
        donate=settings.donate,
        backend=settings.backend,
        mode=settings.mode,
        engine=settings.engine,
    )
    if isinstance(runner, CompilingRunner):
        runner.on_compile = lambda name: display.busy(f"compiling the {name} step ...")
        runner.on_program = programs
    if settings.micro_batch is None:
        return runner
    objective = state.recipe.objective
    return InParts(runner, settings.micro_batch, objective, found=found.micro_batch, say=display.say)


def _prepare_process(stack: ExitStack, device: torch.device, tf32: bool | None, deterministic: bool) -> None:
    """Settings of the whole process, which are put back when the stack is closed."""
    stack.enter_context(tf32_products(device, tf32))
    stack.enter_context(kept_heap(device))
    if deterministic:
        stack.enter_context(deterministic_run(device))


def _exit_code(result: FitResult, flag: SignalFlag) -> int:
    if result.stopped_by == "time":
        return TIME_IS_UP
    return 128 + (flag.number or signal.SIGTERM)  # without a number, another rank was told


def _feeds(state: TrainState, loader: Any, settings: Settings, world: World) -> list[Feed]:
    feeds = [training_feed(state, loader, world, settings.portion)]
    if settings.eval_loader is not None:
        overfits = settings.overfit_batches is not None
        if overfits:
            feeds.append(feeds[0] if state.members else feed_for(state, feeds[0].stream, world, settings.eval_limit))
        else:
            feeds.append(evaluation_feed(state, settings.eval_loader, world, settings.eval_limit))
    return feeds


def _check_tail(settings: Settings, feed: Feed, state: TrainState) -> None:
    exchange = state.recipe.exchange
    if settings.tail == "short" and exchange is not None and exchange.in_blocks and exchange.ranks > 1:
        raise ValueError(
            "tail='short' may leave a process without a micro-batch, and passes gather parameters in blocks, for which "
            "all processes must pass together: use tail='extend' or 'drop', or call shard without blocks"
        )
    if settings.tail != "extend" and state.recipe.accumulate > 1 and feed.stream.length(0) is None:
        raise ValueError(
            f"tail={settings.tail!r} needs a loader of known length (one with len()), to know which window is the "
            "last; use tail='extend'"
        )


def _best(run_dir: Path, state: TrainState, peers: Peers | None) -> TrainState:
    exchange = state.recipe.exchange
    if exchange is None:
        return best_state(run_dir, state)
    if peers is not None:
        return best_state(run_dir, exchange.in_pieces(state), peers)
    return exchange.kept(best_state(run_dir, exchange.whole(state)))
