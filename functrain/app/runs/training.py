"""`functrain train`: a configuration becomes a trained model in a run directory. Imports every layer."""

import shlex
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.console import Console

from functrain.app.config.build import (
    build_loader,
    build_rules,
    build_state,
    build_training_loader,
    run_length,
    set_threads,
)
from functrain.app.config.loading import load_config, plain, save_config
from functrain.app.config.schema import Config, TrainingConfig
from functrain.app.config.signature import canonical, sign
from functrain.app.ranks import joined
from functrain.app.runs.beginning import begin, begin_override
from functrain.app.runs.changes import changes_since, refuse
from functrain.app.runs.directory import RunDirectory, is_finished, position
from functrain.app.runs.evaluation import evaluate_split
from functrain.app.runs.summary import Loaders, conclude, facts
from functrain.app.tables import duration, print_facts, print_lines, wrapped_command
from functrain.checkpoint import CheckpointInfo, MismatchError, RunLockedError
from functrain.compiler.backends import check as check_backend
from functrain.distributed import World
from functrain.foundation.errors import CheckpointError, NonFiniteError
from functrain.foundation.paths import absolute, shown_path
from functrain.loop import Event, FitResult, Interrupted, ResumeRefusedError, fit
from functrain.loop.settings import declared
from functrain.step import TrainState

RUNS = Path("runs")
ANOTHER_RUN = (
    "To train something else, choose another run directory (--run-dir, or name=...); --resume never starts afresh in "
    "this one and moves the earlier run to previous-N inside it"
)


@dataclass(frozen=True)
class Request:
    """What the command line asks for.

    Attributes:
        config_file: the configuration.
        overrides: "key.path=value" each.
        run_dir: default: `runs/<name>`.
        resume: "auto", "never" or a checkpoint's name or path.
        progress: show a display while training.
        max_time: seconds of training after which to save and end.
        strict_resume: refuse a resume that would not be bit for bit.
        init_from: what wins over the configuration's `init_from.path`.
        trust: its code may lie in a run's directory.
    """

    config_file: Path
    overrides: Sequence[str] = ()
    run_dir: Path | None = None
    resume: str = "auto"
    progress: bool = True
    max_time: float | None = None
    strict_resume: bool = False
    init_from: Path | None = None
    trust: bool = False

    @property
    def arguments(self) -> list[str]:
        """The command that continues this run."""
        place = [] if self.run_dir is None else ["--run-dir", str(self.run_dir)]
        strict = ["--strict-resume"] if self.strict_resume else []
        begin = [] if self.init_from is None else ["--init-from", str(self.init_from)]
        limit = [] if self.max_time is None else ["--max-time", f"{self.max_time:g}"]
        trust = ["--trust"] if self.trust else []
        options = [*place, *begin, *strict, *limit, *trust]
        return ["functrain", "train", str(self.config_file), *self.overrides, *options]


def train(request: Request, console: Console) -> None:
    """The command: train, or go on training, then evaluate, draw and say where everything is.

    Of several processes that torchrun started, rank 0 writes the files; the console of the others is a quiet one.

    Raises:
        FunctrainError: for everything that a user can put right.
        Interrupted: after a signal, when the run is saved.
    """
    overrides = [*request.overrides, *begin_override(request.init_from, request.resume)]
    config = load_config(request.config_file, overrides, trust=request.trust)
    run = RunDirectory(absolute(request.run_dir if request.run_dir is not None else RUNS / config.name))
    run.check()
    set_threads(config)
    with joined(config.training.device) as world:
        _train(request, config, run, world, console)


def _train(request: Request, config: Config, run: RunDirectory, world: World, console: Console) -> None:
    if config.training.compile:
        check_backend(config.training.backend, config.training.mode)
    loaders = Loaders(build_training_loader(config), build_loader(config, "val"), build_loader(config, "test"))
    length = run_length(config, loaders.train)
    state = build_state(config, length)
    title = f"functrain {version('functrain')}: {shown_path(run.path)}"
    print_facts(console, title, facts(config, state, loaders, length, world))
    if request.resume != "never" and run.checkpoints():
        changed = changes_since(run, config)
        if request.strict_resume:
            refuse(changed, config)
        if changed:
            print_lines(console, ["the configuration has changed since this run was last started:"])
            print_lines(console, [f"  {change}" for change in changed])
        if any(change.startswith("init_from") for change in changed):
            print_lines(console, ["init_from has no effect here: this run goes on. --resume never starts afresh"])
    elif config.init_from is not None:
        state = begin(state, config.init_from)
        print_lines(console, [f"begins with the parameters in {config.init_from.path}"])
    finished = _finished_state(run, config, state) if request.resume == "auto" else None
    how, reached = "", "last"
    if finished is None:
        start = _Start(run, config, [] if request.resume == "never" else run.checkpoints(), world, console)
        before = time.perf_counter()
        result = _fit(request, config, run, state, loaders, start)
        stopping = config.training.early_stopping
        if result.stopped_by == "early_stopping" and stopping is not None and stopping.restore_best:
            reached = "best"
        trained, state = result.history[-1]["step"] - start.step if result.history else 0, result.state
        seconds = duration(time.perf_counter() - before)
        how = f" in {seconds}" if not start.step else f", the last {trained:,} of them in {seconds}"
    else:
        state, info = finished
        print_lines(console, [f"already finished ({position(info)}): nothing to train. --resume never starts afresh"])
    test = None if loaders.test is None else evaluate_split(state, loaders.test, "test")
    if world.rank == 0:
        conclude(run, state, test, how, reached, console)


def _fit(
    request: Request, config: Config, run: RunDirectory, state: TrainState, loaders: Loaders, start: "_Start"
) -> FitResult:
    training, rules, written = config.training, build_rules(config), plain(config)
    try:
        result = fit(
            state,
            loaders.train,
            eval_loader=loaders.val,
            plateau=rules.plateau,
            early_stopping=rules.early_stopping,
            run_dir=run.path,
            resume=request.resume,
            strict_resume=request.strict_resume,
            on_signal="exit",
            max_time=request.max_time,
            callbacks=[start],
            progress=None if request.progress else False,
            metadata={"config": written, "signature": sign(canonical(written)), "functrain": version("functrain")},
            **_same_names(training),
        )
    except (ResumeRefusedError, RunLockedError):
        raise
    except CheckpointError as error:
        if start.reached or request.resume != "auto" or not start.earlier:
            raise
        raise _another_run(error, run) from error
    except NonFiniteError as error:
        hunt = shlex.join(["functrain", "hunt", shown_path(run.path)])
        raise NonFiniteError(f"{error}\nTo find the module it comes from: {hunt}") from error
    except Interrupted as stop:
        if start.world.rank == 0:
            _print_how_to_continue(stop.result, request, run, start.world)
        raise
    return result


def _same_names(training: TrainingConfig) -> dict[str, Any]:
    """The settings of `fit` that the configuration has under the same name, with the same kind of value."""
    rules = ("plateau", "early_stopping")
    names = [name for name, _, _ in declared() if name in TrainingConfig.model_fields and name not in rules]
    return {name: getattr(training, name) for name in names}


def _print_how_to_continue(result: FitResult, request: Request, run: RunDirectory, world: World) -> None:
    state: TrainState = result.state
    where = f"step {state.step} (epoch {state.epoch + 1})"
    what = "the time is up" if result.stopped_by == "time" else "interrupted"
    print(f"functrain: {what} at {where}; everything is saved in {shown_path(run.path)}", file=sys.stderr)
    under = "torchrun ... -m " if world.size > 1 else ""
    width = shutil.get_terminal_size().columns if sys.stderr.isatty() else None
    print(wrapped_command(f"To continue: {under}", request.arguments, width), file=sys.stderr)


def _another_run(error: CheckpointError, run: RunDirectory) -> CheckpointError:
    if not isinstance(error, MismatchError):
        return CheckpointError(f"{error}\n{ANOTHER_RUN}")
    count, first = len(error.differences), error.differences[0]
    leaves = "a leaf differs" if count == 1 else f"{count} leaves differ"
    return CheckpointError(
        f"the run in {shown_path(run.path)} has another model or optimizer than the configuration ({leaves}; {first}). "
        f"{ANOTHER_RUN}"
    )


class _Start:
    """The callback for the moment when the state is restored and fits, and nothing has been trained yet.

    Attributes:
        reached: whether it came.
        step: the state's, then.
        earlier: the checkpoints there were.
        world: this process among others.
    """

    scopes = ("before_loop",)

    def __init__(
        self, run: RunDirectory, config: Config, earlier: Sequence[CheckpointInfo], world: World, console: Console
    ) -> None:
        self.reached, self.step = False, 0
        self.earlier, self.world = earlier, world
        self._run, self._config, self._console = run, config, console

    def __call__(self, event: Event) -> None:
        self.reached, self.step = True, event.state.step
        if self.world.rank == 0:
            # Not sooner: the run's configuration must not be replaced by one that does not fit its checkpoints.
            save_config(self._config, self._run.config_file)
        state = event.state
        for info in reversed(self.earlier):
            if (info.step, info.micro_step) == (state.step, state.micro_step):
                why = {"INTERRUPTED": ", where it was interrupted", "NONFINITE": ", where the loss was not finite"}
                print_lines(self._console, [f"resumed from {position(info)}{why.get(info.status, '')}"])
                return


def _finished_state(run: RunDirectory, config: Config, like: TrainState) -> tuple[TrainState, CheckpointInfo] | None:
    """The last state of a run that has nothing left to train."""
    infos = run.checkpoints()
    if not infos or not is_finished(infos[-1], config):
        return None
    try:
        state, info = run.open().restore(like, "last")
    except CheckpointError as error:
        raise _another_run(error, run) from error
    if not is_finished(info, config):
        return None  # the newest was damaged, an older one was read, and there is training left
    run.tidy(config.training.watch_mode)
    return state, info
