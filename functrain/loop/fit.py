"""Training, as a user calls it. Imports what is above it in DESIGN's list."""

import dataclasses
import os
import signal
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Literal

import torch

from functrain.compiler import CompilingRunner
from functrain.compiler.backends import check as check_backend
from functrain.data import as_stream
from functrain.data.worker_loss import losses_at_draws, refuse_import_by_worker
from functrain.distributed import World, current_world, replicate
from functrain.foundation.keys import fold_in
from functrain.foundation.paths import absolute
from functrain.foundation.tf32 import tf32 as tf32_products
from functrain.foundation.trees import copy_tensors
from functrain.loop.arguments import check_kinds
from functrain.loop.batches import Feed
from functrain.loop.decisions import Decisions
from functrain.loop.events import Callback, Callbacks
from functrain.loop.memory import InParts, check_micro_batch, explained
from functrain.loop.output import progress as displays
from functrain.loop.output.records import Records
from functrain.loop.plan import Plan, check
from functrain.loop.process.determinism import deterministic_run
from functrain.loop.process.heap import kept_heap
from functrain.loop.process.interactive import is_interactive, returns_result
from functrain.loop.process.signals import TIME_IS_UP, Interrupted, SignalFlag
from functrain.loop.refused import nothing_left_if_refused
from functrain.loop.result import FitResult
from functrain.loop.resume.environment import described, fingerprint, settings
from functrain.loop.resume.opening import Opening, best_state, open_run
from functrain.loop.resume.programs import Programs
from functrain.loop.resume.saving import initial_learning_rate
from functrain.loop.run import Run
from functrain.optim import EarlyStopping, Plateau
from functrain.step.arguments import check_whole_batches
from functrain.step.execution import Runner, eager
from functrain.step.state import TrainState


def fit(
    state: TrainState,
    loader: Any,
    *,
    eval_loader: Any = None,
    epochs: int | None = None,
    steps: int | None = None,
    run_dir: str | Path | None = None,
    resume: str = "auto",
    compile: bool = True,
    backend: str = "inductor",
    mode: str = "default",
    donate: bool = True,
    steps_per_call: int | str = "auto",
    callbacks: Sequence[Callback] = (),
    micro_batch: int | str | None = None,
    tail: str = "extend",
    eval_every: int = 1,
    save_every: int | None = None,
    save_every_minutes: float | None = None,
    keep: int = 3,
    keep_best: int = 1,
    watch: str | None = None,
    watch_mode: Literal["min", "max"] = "min",
    plateau: Plateau | None = None,
    early_stopping: EarlyStopping | None = None,
    log_every: int = 10,
    tensorboard: bool = False,
    progress: bool | str | None = None,
    on_nonfinite: str = "stop",
    max_consecutive_skips: int | None = 100,
    on_signal: str = "auto",
    max_time: float | None = None,
    strict_resume: bool = False,
    deterministic: bool = False,
    tf32: bool | None = None,
    metadata: Mapping[str, Any] | None = None,
) -> FitResult:
    """Train until `epochs` epochs or `steps` updates are done, whichever comes first.

    Both count from the run's beginning: a state that has done 3 epochs needs 2 more for `epochs=5`.
    With a `run_dir`, the same call after an interruption goes on at the very batch, bit for bit.

    Args:
        state: where training starts; never changed.
        loader: a `functrain.data.Loader`, a `torch.utils.data.DataLoader`, a loader with
            `state_dict()`/`load_state_dict()`, or any iterable of batches.
        eval_loader: evaluated after every `eval_every` epochs, and at the end. One line says so if it cannot be, as the
            model has no loss in evaluation mode (a detection model).
        epochs, steps: how long; at least one of them.
        run_dir: where `checkpoints/`, `metrics.csv` and `metrics.jsonl` go; None keeps nothing. `~` is expanded.
            `config.yaml` and `training_curves.png` are the command line's: a script is its own configuration, and
            `functrain.evaluation.figures.training_curves(result.history, "curves.png")` draws the figure.
        resume: "auto" continues from the newest valid checkpoint in `run_dir`, if there is one; "never" starts
            afresh and moves an earlier run aside to `run_dir/previous-N`; a path continues from that checkpoint.
        compile: run steps as compiled graphs; `backend` and `mode` as in `functrain.compile`.
        donate: let each compiled step's state take over the storage of the one before, in half the memory. Your own
            `state` is never consumed; a callback of a step's scope that wants to keep a state keeps a copy.
        steps_per_call: so many compiled updates one after another without anything in between that a network of
            microseconds would notice: the same bits, logs and checkpoints. "auto" takes as many as 0.05 s have room
            for, 64 at most (several ranks: one). A call is shorter where the run, the epoch or `save_every` ends it,
            where an update is refused, and after a signal (several ranks stop at the ends of calls). Updates go one by
            one all the same if they are not compiled, with accumulation, `micro_batch` or `deterministic`, and if a
            callback of a step's scope is to see each state.
        callbacks: functions marked with `functrain.on`.
        micro_batch: examples in a forward and backward pass, at most: larger batches are taken in parts, with the same
            updates (but for BatchNorm, which sees the parts, and the draws of dropout). "auto" begins with the whole
            batch, and when a step runs out of memory does it again with half as many examples at a time; the number
            found stays, also over a resume. While a donating step is new, "auto" keeps a copy of the state in the
            host's memory.
        tail: what happens if an epoch's batches do not fill the last accumulation window: "extend" it from the
            start of the epoch's order, make it "short" (rightly weighted), or "drop" it.
        save_every: save also every so many updates, not only after each epoch.
        save_every_minutes: save also after the update at which the last save was begun so long ago.
        keep, keep_best: how many of the newest checkpoints to keep, and how many of the best besides.
        watch, watch_mode: the record whose best value marks the best checkpoint, and whether "min" or "max"
            is better; default: `eval_loss`, or `train_loss` without an eval_loader. To tell whether there is such a
            metric, the objective runs once on the first batch before training.
        plateau: a rule `optim.plateau(...)` that reduces the learning rate by the watched record, asked after each
            epoch that has one.
        early_stopping: a rule `optim.early_stopping(...)` likewise, which ends training; with `restore_best` (needs a
            `run_dir`) the result is the state of the best checkpoint. A state that was stopped stays so:
            `state.replace(stopper=rule.init())` trains on.
        log_every: updates between two step records in the log.
        tensorboard: also write the records to `run_dir/events`, for TensorBoard to show; like the other logs they are
            cut back at a resume.
        progress: True or None for a display, False for none. In a notebook it is one output that is rewritten in place,
            to which "curve" adds the curve of the loss; elsewhere "curve" is as True.
        on_nonfinite: "stop" with a `NonFiniteError`, or "skip" the update and go on. (The overflows of
            fp16's adapting loss scale are always skipped.)
        max_consecutive_skips: so many updates refused in a row end a run that skips with a `NonFiniteError`, which
            names the first leaf that is not finite; None never does.
        on_signal: after SIGINT, SIGTERM, SIGUSR1 or SIGHUP (a closed terminal; ignored under `nohup`), and after
            `max_time`, the INTERRUPTED snapshot is saved; then "exit" raises `Interrupted`, a SystemExit with code
            128 + signal (75 for the time), and "return" returns. "auto" returns after SIGINT and `max_time` where
            Python has a prompt (a notebook, IPython, `python`), as what was trained is in this process; else it exits.
        max_time: seconds, from this call on, after which the run ends as after a signal.
        strict_resume: refuse to resume where that would not be bit for bit, instead of warning.
        deterministic: use torch's deterministic algorithms only, and seed the global generators of torch (CPU), NumPy
            and Python before each micro-batch, for callbacks that draw from them. Some CUDA kernels get slower by it,
            some have no such form and raise. On the CPU a run is bit for bit without it.
        tf32: on a CUDA device, compute float32 products and convolutions in TF32, or do not; None leaves torch's flags
            as they are (for convolutions torch's own default is True). They are put back at the end.
        metadata: JSON-able values to keep in every checkpoint (the configuration, say).

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
    decisions = Decisions(plateau, early_stopping)
    plan = Plan(
        epochs,
        steps,
        tail,
        eval_every,
        save_every,
        log_every,
        watch,
        on_nonfinite,
        max_consecutive_skips,
        decisions,
        max_time,
        deterministic,
        steps_per_call,
        save_every_minutes,
    )
    check_kinds(
        run_dir=run_dir,
        metadata=metadata,
        keep=keep,
        keep_best=keep_best,
        progress=progress,
        tf32=tf32,
        compile=compile,
        donate=donate,
        tensorboard=tensorboard,
        strict_resume=strict_resume,
        deterministic=deterministic,
    )
    check(plan, state, resume, on_signal, watch_mode, eval_loader is not None)
    decisions.check(state, watch_mode, run_dir)
    if tensorboard and run_dir is None:
        raise ValueError("tensorboard=True writes to run_dir/events: give fit a run_dir")
    listeners = Callbacks(callbacks)
    donates = donate and compile
    runner = _runner(compile, backend, mode, donates)
    world = current_world()
    check_micro_batch(micro_batch, world)
    if micro_batch is not None:
        check_whole_batches(state.opt_state, f"micro_batch={micro_batch!r}")
    state = replicate(state, world)
    feeds = _feeds(state, loader, eval_loader, world)
    _check_tail(plan, feeds[0], state)
    with ExitStack() as stack:
        flag = stack.enter_context(SignalFlag(max_time, interactive=is_interactive()))
        stack.enter_context(losses_at_draws())
        _prepare_process(stack, state.device, tf32, deterministic)
        for feed in feeds:
            stack.callback(feed.stream.close)
        how = f"{backend}/{mode}" if compile else "eager"
        constant = _constant(state, feeds[0], tail, micro_batch, how, metadata or {})
        directory, leads = None if run_dir is None else absolute(run_dir), world.rank == 0
        opening = Opening(
            directory, os.path.expanduser(resume), keep, keep_best, watch_mode, constant, donates, leads, strict_resume
        )
        stack.enter_context(nothing_left_if_refused(directory if leads else None))
        saver, state, position = open_run(opening, state, stack)
        lock = None if saver is None else saver.lock
        records = Records(directory, position.records, position.log, writes=leads, tensorboard=tensorboard, lock=lock)
        stack.callback(records.close)
        display = displays.display(progress if leads else False)
        stack.callback(display.close)
        if isinstance(runner, CompilingRunner):
            runner.on_compile = lambda name: display.busy(f"compiling the {name} step ...")
            runner.on_program = programs = Programs(position.programs, strict_resume)
            if saver is not None:
                saver.programs = programs.known
        if micro_batch is not None:
            objective, found = state.recipe.objective, position.micro_batch
            runner = InParts(runner, micro_batch, objective, found=found, say=display.say)
        feeds[0].size = max(feeds[0].size, position.batch_size)
        if position.stream:
            feeds[0].stream.load_state_dict(position.stream)
        run = Run(plan, feeds, runner, listeners, flag, saver, records, display, position)
        state = decisions.prepared(state)
        with explained(lambda: feeds[0].size):
            result = run.to_the_end(copy_tensors(state) if donates else state)
        if result.stopped_by == "early_stopping" and decisions.restores_best and directory is not None:
            result = dataclasses.replace(result, state=best_state(directory, result.state))
    if not returns_result(on_signal, result.stopped_by, flag.number):
        raise Interrupted(_exit_code(result, flag), result)
    return result


def _runner(compile: bool, backend: str, mode: str, donates: bool) -> Runner:
    if not compile:
        return eager
    check_backend(backend, mode)
    return CompilingRunner(donate=donates, backend=backend, mode=mode)


def _prepare_process(stack: ExitStack, device: torch.device, tf32: bool | None, deterministic: bool) -> None:
    """Settings of the whole process, which are put back when the stack is closed."""
    stack.enter_context(tf32_products(device, tf32))
    stack.enter_context(kept_heap(device))
    if deterministic:
        stack.enter_context(deterministic_run(device))


def _constant(
    state: TrainState, feed: Feed, tail: str, micro_batch: int | str | None, compiled: str, metadata: Mapping[str, Any]
) -> Mapping[str, Any]:
    """Metadata that every checkpoint of the run carries."""
    return {
        "environment": fingerprint(state.device, compiled),
        "settings": settings(state, feed.stream, tail)
        | ({} if micro_batch == "auto" else {"micro_batch": micro_batch}),
        "described": described(state, feed.stream),
        "lr": initial_learning_rate(state),
        **metadata,
    }


def _exit_code(result: FitResult, flag: SignalFlag) -> int:
    if result.stopped_by == "time":
        return TIME_IS_UP
    return 128 + (flag.number or signal.SIGTERM)  # without a number, another rank was told


def _feeds(state: TrainState, loader: Any, eval_loader: Any, world: World) -> list[Feed]:
    objective, device = state.recipe.objective, state.device
    feeds = [Feed(as_stream(loader, fold_in(state.key, "train"), what="loader"), objective, device, world)]
    if eval_loader is not None:
        stream = as_stream(eval_loader, fold_in(state.key, "eval"), what="eval_loader")
        feeds.append(Feed(stream, objective, device, world))
    return feeds


def _check_tail(plan: Plan, feed: Feed, state: TrainState) -> None:
    if plan.tail != "extend" and state.recipe.accumulate > 1 and feed.stream.length(0) is None:
        raise ValueError(
            f"tail={plan.tail!r} needs a loader of known length (one with len()), to know which window is the last; "
            "use tail='extend'"
        )
