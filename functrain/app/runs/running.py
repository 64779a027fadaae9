"""Train a configuration in a run directory without printing; commands, stages and sweeps call it."""

import dataclasses
import shlex
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from typing import Any

from functrain.app.config.build import build_callbacks, build_rules, fit_settings
from functrain.app.config.loading import plain, save_config
from functrain.app.config.schema import Config
from functrain.app.runs import outcome
from functrain.app.runs.ancestry import ancestry_of, begins_branch, start_of
from functrain.app.runs.beginning import begin, moved_on
from functrain.app.runs.beginning import record as record_origin
from functrain.app.runs.changes import changes_since, refuse
from functrain.app.runs.directory import RunDirectory, position
from functrain.app.runs.parts import Parts, build
from functrain.app.runs.sharing import shared
from functrain.app.runs.surroundings import record, surroundings
from functrain.checkpoint import CheckpointInfo, MismatchError, RunLockedError
from functrain.data import Loader
from functrain.distributed import World, current_world
from functrain.foundation.errors import CheckpointError, ConfigError, NonFiniteError
from functrain.foundation.paths import shown_path
from functrain.foundation.signature import canonical, sign
from functrain.loop import Event, FitResult, Interrupted, ResumeRefusedError, ResumeWarning, fit
from functrain.loop.choosing import Choice, choose
from functrain.loop.feeds import training_feed
from functrain.loop.settings import Settings
from functrain.step import TrainState

ANOTHER_RUN = (
    "To train something else, choose another run directory (--run-dir, or name=...); --resume never starts afresh in "
    "this one and moves the earlier run to previous-N inside it"
)


def compile_choice(
    config: Config,
    state: TrainState,
    loader: Loader,
    world: World,
    *,
    run: RunDirectory | None = None,
    resume: str = "auto",
) -> Choice:
    """Whether `fit` compiles the steps of this configuration, and why; in a run's directory, if one is given."""
    settings = Settings(**fit_settings(config), run_dir=None if run is None else run.path, resume=resume)
    return choose(settings, state, training_feed(state, loader, world, settings.portion), world)


def _silent(text: str) -> None:
    """Say nothing."""


def run_config(
    config: Config,
    run: RunDirectory,
    *,
    parts: Parts | None = None,
    resume: str = "auto",
    strict_resume: bool = False,
    say: Callable[[str], None] = _silent,
    **settings: Any,
) -> FitResult:
    """Train what a configuration describes in a run directory, or continue its run.

    Args:
        config: the configuration; it may name functions of the user's own if `functrain.app.config.trust` allows it.
        run: the directory; it gets the configuration when training begins.
        parts: what `begun(build(config), ...)` gave; None does that.
        resume, strict_resume: as in `fit`. A strict resume also refuses a changed configuration.
        say: gets a line for each change at a resume, and one for where the run begins.
        settings: of `fit`, such as `max_time` and `progress`; they replace the configuration's.

    Returns:
        As `fit`. Of a finished run, its last state and its history.

    Raises:
        FunctrainError: for everything that a user can put right.
        Interrupted: after a signal, when the run is saved; see `on_signal` of `fit`.
    """
    if parts is None:
        parts = begun(build(config), config, run, resume=resume, strict_resume=strict_resume, say=say)
    rules, written = build_rules(config), plain(config)
    earlier = [] if resume == "never" else run.checkpoints()
    ancestry = parts.origin.ancestry if parts.origin is not None else ancestry_of(run.path)
    if ancestry is not None and not (ancestry.is_branch or earlier or parts.origin):
        ancestry = None  # of an earlier run, which has not come to its first checkpoint
    start = _Start(run, config, parts, earlier, say)
    resume = resumed_at(run, resume)
    metadata = {"config": written, "signature": sign(canonical(written)), "functrain": version("functrain")}
    own = {
        "metadata": metadata if ancestry is None else {**metadata, "ancestry": ancestry.to_json()},
        "plateau": rules.plateau,
        "early_stopping": rules.early_stopping,
        "progress": False,
    }
    if parts.choice is not None:
        own["compile"] = parts.choice.compile
    callbacks = [start, *build_callbacks(config), *settings.pop("callbacks", ())]
    arguments = {**fit_settings(config), **own, **settings}
    try:
        with start.outcome(), warnings.catch_warnings():
            if begins_branch(resume):
                warnings.simplefilter("ignore", ResumeWarning)
            result = fit(
                parts.state,
                parts.loaders.train,
                eval_loader=parts.loaders.val,
                run_dir=run.path,
                resume=resume,
                strict_resume=strict_resume,
                callbacks=callbacks,
                **arguments,
            )
            start.stopped_by = result.stopped_by
        return result
    except (ResumeRefusedError, RunLockedError):
        raise
    except CheckpointError as error:
        if start.reached or resume != "auto" or not start.earlier:
            raise
        raise another_run(error, run) from error
    except NonFiniteError as error:
        hunt = shlex.join(["functrain", "hunt", shown_path(run.path)])
        raise NonFiniteError(f"{error}\nTo find the module it comes from: {hunt}") from error


def begun(
    parts: Parts,
    config: Config,
    run: RunDirectory,
    *,
    resume: str = "auto",
    strict_resume: bool = False,
    say: Callable[[str], None] = _silent,
) -> Parts:
    """The parts with the first state of a fresh run, as this process keeps it (see `shared`).

    If the run continues, report changes of its configuration.
    """
    parts = _begun(parts, config, run, resume, strict_resume, say)
    return dataclasses.replace(parts, state=shared(parts.state, config))


def _begun(
    parts: Parts, config: Config, run: RunDirectory, resume: str, strict_resume: bool, say: Callable[[str], None]
) -> Parts:
    if resume == "never" or (resume == "auto" and not run.checkpoints()):
        if config.init_from is None:
            return parts
        state, origin = begin(parts.state, config.init_from, run.path)
        path = config.init_from.path
        say(f"begins with {origin.ancestry if path is None else f'the parameters in {path}'}")
        return dataclasses.replace(parts, state=state, origin=origin)
    changed = changes_since(run, config)
    if strict_resume:
        refuse(changed, config)
    if changed:
        say("the configuration has changed since this run was last started:")
    for change in changed:
        say(f"  {change}")
    if any(change.startswith("init_from") for change in changed):
        say("init_from has no effect here: this run goes on. --resume never starts afresh")
    elif config.init_from is not None and (note := moved_on(run.path, config.init_from)):
        say(f"note: {note}")
    return parts


def resumed_at(run: RunDirectory, resume: str) -> str:
    """What `resume` comes to: a branch without a checkpoint of its own begins with another run's state.

    Raises:
        ConfigError: a branch shall begin afresh.
    """
    ancestry = ancestry_of(run.path)
    if ancestry is None or not ancestry.is_branch:
        return resume
    if resume == "never":
        raise ConfigError(
            f"{shown_path(run.path)} begins with a state of {ancestry.run}, so it cannot begin afresh. Choose another "
            "run directory (--run-dir)"
        )
    return str(start_of(run.path, ancestry)) if resume == "auto" and not run.checkpoints() else resume


def another_run(error: CheckpointError, run: RunDirectory) -> CheckpointError:
    """The error of a resume that does not fit, with what to do."""
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
        earlier: the checkpoints there were.
        stopped_by: what ended the run.
    """

    scopes = ("before_loop",)

    def __init__(
        self,
        run: RunDirectory,
        config: Config,
        parts: Parts,
        earlier: Sequence[CheckpointInfo],
        say: Callable[[str], None],
    ) -> None:
        self.reached = False
        self.earlier = earlier
        self.stopped_by = ""
        self._run, self._config, self._loaders, self._say = run, config, parts.loaders, say
        self._origin = parts.origin

    def __call__(self, event: Event) -> None:
        self.reached = True
        if current_world().rank == 0:
            # Not sooner: the run's configuration must not be replaced by one that does not fit its checkpoints.
            save_config(self._config, self._run.config_file)
            record(self._run.path, surroundings(self._config, self._loaders.by_split(), event.state))
            if not self.earlier:
                record_origin(self._run.path, self._origin)
            self._write(outcome.RUNNING)
        state = event.state
        for info in reversed(self.earlier):
            if (info.step, info.micro_step) == (state.step, state.micro_step):
                why = {"INTERRUPTED": ", where it was interrupted", "NONFINITE": ", where the loss was not finite"}
                self._say(f"resumed from {position(info)}{why.get(info.status, '')}")
                return

    @contextmanager
    def outcome(self) -> Iterator[None]:
        """Write down how the run that is trained within ended, if it began."""
        try:
            yield
        except (KeyboardInterrupt, Interrupted):
            self._write(outcome.INTERRUPTED)
            raise
        except BaseException as error:
            self._write(outcome.FAILED, f"{type(error).__name__}: {error}".partition("\n")[0])
            raise
        self._write(_OUTCOMES.get(self.stopped_by, outcome.FINISHED), self.stopped_by)

    def _write(self, status: str, detail: str = "") -> None:
        if self.reached and current_world().rank == 0:
            evaluates = self._loaders.val is not None
            watch = self._config.evaluation.watch or ("eval_loss" if evaluates else "train_loss")
            outcome.write_outcome(self._run.path, status, watch, detail)


_OUTCOMES = {"signal": outcome.INTERRUPTED, "time": outcome.INTERRUPTED, "callback": outcome.STOPPED}
