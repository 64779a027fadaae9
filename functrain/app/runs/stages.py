"""`functrain train`: find the run, or the stages, that a command line asks for, and train them in their order."""

import dataclasses
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from time import monotonic
from typing import NamedTuple, Protocol

import torch
from rich.console import Console

from functrain.app.config.files import STAGES_FILE
from functrain.app.config.loading import Stage, chosen, load_stages, read_config, save_stages
from functrain.app.config.resolving import WHOLE
from functrain.app.config.schema import Config
from functrain.app.ranks import joined
from functrain.app.runs import outcome
from functrain.app.runs.beginning import begin_override, moved_on, source_of
from functrain.app.runs.changes import is_as_it_was
from functrain.app.runs.directory import RunDirectory, position
from functrain.app.runs.events import Events
from functrain.app.runs.listing import runs as listed
from functrain.app.runs.resuming import resumed
from functrain.app.runs.summary import Output
from functrain.app.runs.training import Request, train_run
from functrain.app.tables import print_lines
from functrain.distributed import World, barrier
from functrain.foundation.errors import ConfigError
from functrain.foundation.paths import absolute
from functrain.loop import Event, on
from functrain.loop.events import Callback

RUNS = Path("runs")


class Plan(NamedTuple):
    """What a command line asks for.

    Attributes:
        stages: of the configuration; one that is called "" of a configuration without stages.
        chosen: those that are to be trained, in their order.
        run_dir: of the run; of stages, the directory that holds theirs.
        resume: as of `fit`.
    """

    stages: Sequence[Stage]
    chosen: Sequence[Stage]
    run_dir: Path
    resume: str


class Action(Protocol):
    """What is done with each run: `train_run` or `dry_run`."""

    def __call__(
        self,
        request: Request,
        config: Config,
        run: RunDirectory,
        output: Output,
        callbacks: Sequence[Callback] = ...,
        /,
    ) -> None:
        """Do it."""


def each_stage(request: Request, action: Action, console: Console, events: Events | None = None) -> None:
    """The command: train or continue a run, or a configuration's stages.

    Args:
        request: what the command line asks for.
        action: what is done with each run.
        console: what to print on.
        events: gets what happens, for a program.

    Raises:
        FunctrainError: for everything that a user can put right.
        Interrupted: after a signal, when the run is saved.
    """
    plan, output = planned(request), Output(console, events)
    request = dataclasses.replace(request, resume=plan.resume)
    if request.config_file is None:
        request = dataclasses.replace(request, run_dir=plan.run_dir)  # the command that continues it names that
    if plan.chosen[0].name == WHOLE:
        action(request, plan.chosen[0].config, RunDirectory(plan.run_dir), output)
    elif action is train_run:
        _train_stages(request, plan, output)
    else:
        _try_stages(request, plan, action, output)


def planned(request: Request) -> Plan:
    """What a command line asks for; all stages are checked.

    Raises:
        ConfigError: with a line for each problem.
    """
    overrides = [*request.overrides, *begin_override(request.init_from, request.resume)]
    name, run_dir, resume = request.stage, request.run_dir, request.resume
    if name is not None and request.all_stages:
        raise ConfigError("--stage trains one stage, --all-stages trains all of them: give one of the two")
    if request.config_file is None:
        stages, around, resume = resumed(Path(request.resume), overrides, request.trust)
        run_dir = run_dir or around
        all_stages = name is None and stages[0].name != WHOLE
    else:
        stages = load_stages(request.config_file, overrides, trust=request.trust)
        all_stages = request.all_stages
    whole = absolute(run_dir if run_dir is not None else _default(stages[0]))
    what = request.config_file or Path(request.resume)
    if all_stages:
        _check_all(request, stages, what)
        return Plan(stages, stages, whole, resume)
    if name is None and stages[0].name != WHOLE:
        names = ", ".join(stage.name for stage in stages)
        raise ConfigError(
            f"{what} has the stages {names}: give --all-stages to train them in this order, or --stage NAME for one"
        )
    return Plan(stages, [chosen(stages, what, name)], whole, resume)


def _default(stage: Stage) -> Path:
    """The directory that is meant if none is given."""
    config = stage.config
    return RUNS / config.name / config.stage if stage.name == WHOLE and config.stage else RUNS / config.name


def _check_all(request: Request, stages: Sequence[Stage], what: Path) -> None:
    if stages[0].name == WHOLE:
        raise ConfigError(f"--all-stages: {what} has no stages")
    if request.init_from is not None:
        raise ConfigError(
            "--init-from would begin each stage with the same parameters: give --stage NAME, too, or "
            "stages.NAME.init_from.path=..."
        )
    if request.until_epoch is not None:
        raise ConfigError("--until-epoch pauses one run: give --stage NAME instead of --all-stages")
    if request.config_file is not None and request.resume not in ("auto", "never"):
        raise ConfigError(
            f"--resume {request.resume} continues one run: give --stage NAME instead of --all-stages; all stages "
            "continue where they are without --resume"
        )


def _train_stages(request: Request, plan: Plan, output: Output) -> None:
    began, threads = monotonic(), torch.get_num_threads()
    _check_beginnings(plan, output)
    with joined(plan.chosen[0].config) as world:
        for number, stage in enumerate(plan.chosen, 1):
            run = RunDirectory(plan.run_dir / stage.name)
            _say_stage(plan, number, output)
            if request.resume == "auto" and is_done(run, stage):
                _say_done(run, stage, output)
                continue
            if torch.get_num_threads() != threads:
                torch.set_num_threads(threads)  # an earlier stage has set its own
            now = dataclasses.replace(request, spent=monotonic() - began)
            with _no_folder_left(plan.run_dir):
                train_run(now, stage.config, run, output, [_saving(plan, world)])
            barrier()  # the next stage reads what rank 0 has written
    if len(plan.chosen) > 1:
        print_lines(output.console, list(listed(plan.run_dir, "age", True, False)))


def _try_stages(request: Request, plan: Plan, action: Action, output: Output) -> None:
    with joined(plan.chosen[0].config):
        for number, stage in enumerate(plan.chosen, 1):
            config, run = stage.config, RunDirectory(plan.run_dir / stage.name)
            _say_stage(plan, number, output)
            begins = config.init_from
            if begins is not None and begins.stage is not None and not (plan.run_dir / begins.stage).is_dir():
                output.say(
                    f"note: it is tried without the parameters of stage {begins.stage}, which is not trained yet"
                )
                config = config.model_copy(update={"init_from": None})
            action(request, config, run, output)


def _say_stage(plan: Plan, number: int, output: Output) -> None:
    name = plan.chosen[number - 1].name
    print_lines(output.console, [f"stage {name} ({number} of {len(plan.chosen)})"])
    output.tell("stage", name=name, number=number, stages=len(plan.chosen))


def is_done(run: RunDirectory, stage: Stage) -> bool:
    """Whether a stage has ended, has written its results, and would be trained in the same way again."""
    known = outcome.read_outcome(run.path)
    ended = known.get("status") in (outcome.FINISHED, outcome.STOPPED) and known.get("concluded")
    return bool(ended) and is_as_it_was(run, stage.config)


def _say_done(run: RunDirectory, stage: Stage, output: Output) -> None:
    last = run.checkpoints()[-1:]
    where = f" ({position(last[0])})" if last else ""
    output.say(f"already finished{where}: nothing to train. --resume never starts afresh")
    begins = stage.config.init_from
    if begins is not None and (note := moved_on(run.path, begins)):
        output.say(f"note: {note}")


def _check_beginnings(plan: Plan, output: Output) -> None:
    """See that the stages that others begin with, and that are not trained now, are there.

    Raises:
        ConfigError: one is not.
    """
    trained_now = {stage.name for stage in plan.chosen}
    for stage in plan.chosen:
        begins, run = stage.config.init_from, RunDirectory(plan.run_dir / stage.name)
        if begins is None or begins.stage is None or begins.stage in trained_now or run.checkpoints():
            continue
        source_of(begins, run.path)
        other = plan.run_dir / begins.stage
        if outcome.read_outcome(other).get("status") not in (outcome.FINISHED, outcome.STOPPED):
            output.say(f"note: the stage {begins.stage}, which {stage.name} begins with, has not ended")


@contextmanager
def _no_folder_left(folder: Path) -> Iterator[None]:
    """Remove the directory of the stages if a stage was refused and nothing else is in it."""
    made = [each for each in (folder, *folder.parents) if not each.exists()]
    try:
        yield
    except Exception:
        with suppress(OSError):
            if made and [path.name for path in folder.iterdir()] == [STAGES_FILE]:
                (folder / STAGES_FILE).unlink()
                for each in made:
                    each.rmdir()  # only an empty one
        raise


def _saving(plan: Plan, world: World) -> Callback:
    """A callback that writes the configuration of all stages, when a stage begins or goes on."""

    @on("before_loop")
    def save(_: Event) -> None:
        if world.rank == 0:
            names = {stage.name for stage in plan.chosen}
            stages = [each if each.name in names else _as_recorded(each, plan.run_dir) for each in plan.stages]
            save_stages(stages, plan.run_dir / STAGES_FILE)

    return save


def _as_recorded(stage: Stage, folder: Path) -> Stage:
    """A stage that is not trained now, with the configuration that its run has."""
    file = folder / stage.name / "config.yaml"
    with suppress(ConfigError):
        return stage._replace(config=read_config(file, recorded=True)[0])
    return stage
