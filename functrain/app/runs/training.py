"""Train one run, evaluate it, draw its figure, and print where its files are."""

import dataclasses
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from functrain.app.config.build import set_threads
from functrain.app.config.schema import Config
from functrain.app.members.ensemble import write_ensemble
from functrain.app.ranks import joined
from functrain.app.runs.changes import is_as_it_was
from functrain.app.runs.directory import RunDirectory, is_finished, position
from functrain.app.runs.evaluated import evaluate_split
from functrain.app.runs.outcome import STOPPED, conclude_outcome, pause_outcome, read_outcome
from functrain.app.runs.parts import Parts, build
from functrain.app.runs.running import another_run, begun, compile_choice, resumed_at, run_config
from functrain.app.runs.sharing import check_sharing
from functrain.app.runs.summary import Ended, Output, conclude, facts, start_values
from functrain.app.tables import duration, print_facts, wrapped_command
from functrain.checkpoint import CheckpointInfo
from functrain.distributed import World, gather_state
from functrain.foundation.errors import CheckpointError
from functrain.foundation.paths import shown_path
from functrain.loop import Event, FitResult, Interrupted, Stop, on
from functrain.loop.events import Callback
from functrain.step import TrainState

LEAST_TIME = 1e-3  # seconds of training, for a stage that begins when the time is up


@dataclass(frozen=True)
class Request:
    """What the command line asks for.

    Attributes:
        config_file: the configuration; None: it is in what `resume` names.
        overrides: "key.path=value" each.
        run_dir: default: `runs/<name>`.
        resume: "auto", "never" or a checkpoint's name or path.
        progress: show a display while training.
        max_time: seconds of training after which to save and end.
        strict_resume: refuse a resume that would not be bit for bit.
        init_from: replaces the configuration's `init_from.path`.
        until_epoch: the epoch after which to save and end, if the run is longer.
        trust: its code may lie in a run's directory.
        config: what the file and the overrides come to, if that is known.
        stage: train this stage of the configuration.
        all_stages: train all of its stages, in their order.
        nproc: processes that the command starts.
        spent: seconds of `max_time` that earlier stages took.
    """

    config_file: Path | None
    overrides: Sequence[str] = ()
    run_dir: Path | None = None
    resume: str = "auto"
    progress: bool = True
    max_time: float | None = None
    strict_resume: bool = False
    init_from: Path | None = None
    until_epoch: int | None = None
    trust: bool = False
    config: Config | None = None
    stage: str | None = None
    all_stages: bool = False
    nproc: int | None = None
    spent: float = 0.0

    @property
    def arguments(self) -> list[str]:
        """The command that continues this run."""
        if self.config is not None:
            assert self.run_dir is not None
            run = shown_path(self.run_dir)
            ranks = [] if self.nproc is None else ["--nproc", str(self.nproc)]
            return ["functrain", "train", f"{run}/config.yaml", "--run-dir", run, *ranks, *["--trust"] * self.trust]
        if self.config_file is None:
            assert self.run_dir is not None
            what, place = ["--resume", shown_path(self.run_dir)], []
        else:
            what, place = [str(self.config_file)], [] if self.run_dir is None else ["--run-dir", str(self.run_dir)]
        stage = [*(["--stage", self.stage] if self.stage else []), *["--all-stages"] * self.all_stages]
        strict = ["--strict-resume"] if self.strict_resume else []
        begin = [] if self.init_from is None else ["--init-from", str(self.init_from)]
        limit = [] if self.max_time is None else ["--max-time", f"{self.max_time:g}"]
        ranks = [] if self.nproc is None else ["--nproc", str(self.nproc)]
        trust = ["--trust"] if self.trust else []
        options = [*stage, *place, *begin, *strict, *limit, *ranks, *trust]
        return ["functrain", "train", *what, *self.overrides, *options]


def train_run(
    request: Request, config: Config, run: RunDirectory, output: Output, callbacks: Sequence[Callback] = ()
) -> None:
    """Train or continue a run, evaluate, draw the figure, and print where the files are.

    Under torchrun, rank 0 writes the files, and the consoles of the other ranks are quiet.

    Args:
        request: what is asked for.
        config: of the run.
        run: its directory.
        output: whom to tell.
        callbacks: of `fit`.

    Raises:
        FunctrainError: for everything that a user can put right.
        Interrupted: after a signal, when the run is saved.
    """
    run.check()
    set_threads(config)
    with joined(config) as world:
        check_sharing(config, world)
        _train(request, config, run, world, output, callbacks)


def chosen(request: Request, config: Config, run: RunDirectory, world: World, output: Output) -> Parts:
    """The parts of the run, and whether its steps are compiled; what they are is printed."""
    parts = build(config)
    title = f"functrain {version('functrain')}: {shown_path(run.path)}"
    choice = compile_choice(
        config, parts.state, parts.loaders.train, world, run=run, resume=resumed_at(run, request.resume)
    )
    parts = dataclasses.replace(parts, choice=choice)
    print_facts(output.console, title, facts(config, parts, world))
    output.tell("start", **start_values(config, run, parts, world))
    return parts


def _train(
    request: Request, config: Config, run: RunDirectory, world: World, output: Output, callbacks: Sequence[Callback]
) -> None:
    say, parts = output.say, chosen(request, config, run, world, output)
    parts = begun(parts, config, run, resume=request.resume, strict_resume=request.strict_resume, say=say)
    finished = _finished_state(run, config, parts.state) if request.resume == "auto" else None
    how, reached = "", "last"
    if finished is None:
        result, how = _run(request, config, run, parts, world, output, callbacks)
        if result.stopped_by == "callback" and request.until_epoch == result.state.epoch:
            step, epoch = result.state.step, result.state.epoch
            pause_outcome(run.path)
            say(f"paused after epoch {epoch}; the same command without --until-epoch continues")
            output.tell("end", stopped_by="until_epoch", step=step, epoch=epoch, exit_code=0)
            return
        stopping, state = config.training.early_stopping, gather_state(result.state)
        if result.stopped_by == "early_stopping" and stopping is not None and stopping.restore_best:
            reached = "best"
    else:
        state, info = finished
        say(f"already finished ({position(info)}): nothing to train. --resume never starts afresh")
    test = (
        None
        if parts.loaders.test is None
        else evaluate_split(state, parts.loaders.test, "test", tuning=parts.loaders.val)
    )
    if config.training.members is not None:
        write_ensemble(run, config, parts, say)
    if world.rank == 0:
        stopped_by = "finished" if finished is not None else result.stopped_by
        conclude(run, Ended(config, parts, state, test, how, reached, stopped_by), output)
        conclude_outcome(run.path)


def _run(
    request: Request,
    config: Config,
    run: RunDirectory,
    parts: Parts,
    world: World,
    output: Output,
    callbacks: Sequence[Callback],
) -> tuple[FitResult, str]:
    """The run, and how long it took, in words."""
    begins_at: list[int] = []

    @on("before_loop")
    def note(event: Event) -> None:
        begins_at.append(event.state.step)

    before = time.perf_counter()
    try:
        result = run_config(
            config,
            run,
            parts=parts,
            resume=request.resume,
            strict_resume=request.strict_resume,
            say=output.say,
            on_signal="exit",
            max_time=None if request.max_time is None else max(request.max_time - request.spent, LEAST_TIME),
            progress=output.display(request.progress),
            callbacks=[note, *callbacks, *([] if request.until_epoch is None else [_pause(request.until_epoch)])],
        )
    except Interrupted as stop:
        state = stop.result.state
        output.tell("end", stopped_by=stop.result.stopped_by, step=state.step, epoch=state.epoch, exit_code=stop.code)
        if world.rank == 0:
            _print_how_to_continue(stop.result, request, run, world)
        raise
    first = begins_at[0]
    seconds = duration(time.perf_counter() - before)
    if not first:
        return result, f" in {seconds}"
    trained = result.history[-1]["step"] - first if result.history else 0
    return result, f", the last {trained:,} of them in {seconds}"


def _pause(epoch: int) -> Callback:
    """A callback that ends a run when it has trained so many epochs."""

    @on("before_loop", "before_epoch")
    def pause(event: Event) -> Stop | None:
        return Stop() if event.state.epoch >= epoch else None

    return pause


def _print_how_to_continue(result: FitResult, request: Request, run: RunDirectory, world: World) -> None:
    state: TrainState = result.state
    where = f"step {state.step} (epoch {state.epoch + 1})"
    what = "the time is up" if result.stopped_by == "time" else "interrupted"
    print(f"functrain: {what} at {where}; everything is saved in {shown_path(run.path)}", file=sys.stderr)
    under = "torchrun ... -m " if world.size > 1 and request.nproc is None else ""
    width = shutil.get_terminal_size().columns if sys.stderr.isatty() else None
    print(wrapped_command(f"To continue: {under}", request.arguments, width), file=sys.stderr)


def _finished_state(run: RunDirectory, config: Config, like: TrainState) -> tuple[TrainState, CheckpointInfo] | None:
    """The last state of a run that has nothing left to train."""
    infos = run.checkpoints()
    ended = config.stage is not None and was_stopped(run, config)
    if not infos or not (is_finished(infos[-1], config) or ended):
        return None
    try:
        state, info = run.open().restore(gather_state(like), "last")
    except CheckpointError as error:
        raise another_run(error, run) from error
    if not (is_finished(info, config) or ended):
        return None  # the newest was damaged, an older one was read, and there is training left
    run.tidy(config.evaluation.watch_mode)
    return state, info


def was_stopped(run: RunDirectory, config: Config) -> bool:
    """Whether a callback ended the run, which has had this configuration then."""
    known = read_outcome(run.path)
    return known.get("status") == STOPPED and not known.get("paused") and is_as_it_was(run, config)
