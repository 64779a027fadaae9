"""`functrain train --dry-run`: what a run would do, tried with one step and one batch of evaluation. Writes nothing."""

import contextlib
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor

from functrain.app.config.build import build_callbacks, build_rules, fit_settings, set_threads
from functrain.app.config.schema import Config
from functrain.app.ranks import joined
from functrain.app.runs.directory import RunDirectory, is_finished, position
from functrain.app.runs.parts import Parts
from functrain.app.runs.running import another_run, begun
from functrain.app.runs.sharing import check_sharing
from functrain.app.runs.summary import Output
from functrain.app.runs.training import Request, chosen
from functrain.app.tables import duration, print_facts, print_lines
from functrain.diagnostics import model_summary
from functrain.diagnostics.layers import shapes_of
from functrain.distributed import World, replicate, unshard
from functrain.foundation.errors import CheckpointError, NoLossError, NonFiniteError
from functrain.foundation.paths import shown_path
from functrain.loop.batches import no_training_data
from functrain.loop.evaluation_pass import evaluate_pass, to_numbers
from functrain.loop.events import Callback, Callbacks
from functrain.loop.feeds import evaluation_feed, training_feed
from functrain.loop.members import Overall, totals_of_each
from functrain.loop.memory import InParts, explained
from functrain.loop.output.log_files import MEMBERS
from functrain.loop.output.progress_line import counted, exact
from functrain.loop.settings import Settings
from functrain.loop.watching import watched_metric
from functrain.metrics.registry import measures
from functrain.step import TrainState, train_step
from functrain.step.execution import Runner, eager
from functrain.step.finish import is_about_update
from functrain.step.measures import with_metrics
from functrain.step.members.stepping import first_alone


@contextlib.contextmanager
def without_bytecode() -> Iterator[None]:
    """Within, Python writes no `__pycache__` for what it imports, such as a user's own code."""
    before = sys.dont_write_bytecode
    sys.dont_write_bytecode = True
    try:
        yield
    finally:
        sys.dont_write_bytecode = before


def dry_run(request: Request, config: Config, run: RunDirectory, output: Output, _: Sequence[Callback] = ()) -> None:
    """The command: build, try, and say what the run would do. Arguments as of `train_run`.

    Raises:
        FunctrainError: for everything that would end the run at its beginning.
    """
    run.check()
    set_threads(config)
    console = output.console
    with joined(config) as world:
        check_sharing(config, world)
        parts = chosen(request, config, run, world, output)
        parts = begun(parts, config, run, resume=request.resume, strict_resume=request.strict_resume, say=output.say)
        settings = _settings(request, config, run, parts)
        start = _start(request, config, run, _whole(parts.state))
        batch, tried = _tried(settings, parts, world)
        summary = model_summary(*first_alone(_whole(parts.state), batch), micro_batch=_rows(settings))
        print_lines(console, ["", *summary.lines(), ""])
        would = _would(settings, config, run, parts, start)
        print_facts(console, "tried, without compiling", tried.items())
        print_facts(console, "the run would", would.items())
        print_lines(console, ["dry run: nothing was written"])
        output.tell("dry_run", tried=tried, would=would, summary=summary.to_json())
        output.tell("end", stopped_by="dry_run", step=0, epoch=0, exit_code=0)


def _settings(request: Request, config: Config, run: RunDirectory, parts: Parts) -> Settings:
    """Those of `fit`, checked."""
    rules = build_rules(config)
    settings = Settings(
        **fit_settings(config),
        run_dir=run.path,
        resume=request.resume,
        eval_loader=parts.loaders.val,
        plateau=rules.plateau,
        early_stopping=rules.early_stopping,
        callbacks=build_callbacks(config),
    )
    settings.check(parts.state)
    Callbacks(settings.callbacks)
    return settings


def _start(request: Request, config: Config, run: RunDirectory, like: TrainState) -> str:
    """Where the run would begin, in words.

    Raises:
        CheckpointError: it would continue a checkpoint that cannot be read, or does not fit.
    """
    there = run.checkpoints()
    if request.resume == "never":
        return "start afresh" + (", and move the earlier run to previous-N in its directory" if there else "")
    if request.resume == "auto" and not there:
        return "start afresh"
    try:
        info = run.open().restore(like, "last" if request.resume == "auto" else request.resume).info
    except CheckpointError as error:
        raise (another_run(error, run) if request.resume == "auto" else error) from error
    if request.resume == "auto" and is_finished(info, config):
        return f"train nothing: it is finished ({position(info)})"
    return f"go on from {info.name} ({position(info)})"


def _rows(settings: Settings) -> int | None:
    """Examples in a pass, where that is known beforehand."""
    return settings.micro_batch if isinstance(settings.micro_batch, int) else None


def _tried(settings: Settings, parts: Parts, world: World) -> tuple[Any, dict[str, str]]:
    """A batch, and what an update and a batch of evaluation gave, in words.

    Raises:
        NonFiniteError: the loss is not finite.
    """
    state = parts.state if _is_ready(parts.state) else replicate(parts.state, world)
    if settings.metrics:
        state = with_metrics(state, measures(settings.metrics))
    rows = _rows(settings)
    run: Runner = eager if rows is None else InParts(eager, rows, state.recipe.objective)
    feed = training_feed(state, parts.loaders.train, world, settings.portion)
    found: dict[str, str] = {}
    metrics: Mapping[str, Tensor] = {}
    batch: Any = None
    before = time.perf_counter()
    try:
        with explained(lambda: feed.size):
            for micro_batch in feed.windows(0, 0, state.recipe.accumulate, settings.tail):
                if batch is None:
                    batch = micro_batch.batch
                    watched = watched_metric(settings, state.recipe.objective)
                    if not watched.was_sought:
                        watched.before_training(*first_alone(state, batch), run.rows)
                state, metrics = train_step(
                    state, micro_batch.batch, examples=micro_batch.examples, end_window=micro_batch.ends_window, run=run
                )
                if state.step:
                    break
    finally:
        feed.stream.close()
    if batch is None:
        raise no_training_data()
    found["batch"] = shapes_of(first_alone(state, batch)[1], types=True)
    numbers = metrics if state.members is None else Overall(metrics, state.members)
    found["update"] = f"{_numbers(numbers)} ({duration(time.perf_counter() - before)})"
    if not metrics["loss"].isfinite().all():
        raise NonFiniteError(f"the loss of the first update is {metrics['loss'].tolist()}")
    if parts.loaders.val is not None:
        found["evaluation"] = _evaluated(_whole(state), parts.loaders.val, world)
    return batch, found


def _is_ready(state: TrainState) -> bool:
    """Whether a state is trained as it is, and not as a replica on each process."""
    return state.recipe.exchange is not None or state.members is not None


def _whole(state: TrainState) -> TrainState:
    """A state out of its shards; a stack has none."""
    return state if state.members is not None else unshard(state)


def _evaluated(state: TrainState, loader: Any, world: World) -> str:
    feed = evaluation_feed(state, loader, world, 1)
    try:
        totals = evaluate_pass(state, feed, eager)
    except NoLossError as error:
        return f"no metrics: {error}"
    finally:
        feed.stream.close()
    assert totals is not None  # nothing interrupts it
    numbers = to_numbers(totals, "") if state.members is None else totals_of_each(totals, "", state.members.train())
    return f"{_numbers(numbers)} (one batch)"


def _numbers(metrics: Mapping[str, Any]) -> str:
    names = [name for name in metrics if name == "grad_norm" or not (name == MEMBERS or is_about_update(name))]
    shown = {name: float(metrics[name]) for name in names}
    return ", ".join(f"{name} {exact(value)}" for name, value in shown.items())


def _would(settings: Settings, config: Config, run: RunDirectory, parts: Parts, start: str) -> dict[str, str]:
    length = parts.length
    epochs = f"{counted(length.epochs, 'epoch')} of {counted(length.updates_per_epoch, 'update')}"
    logs = ["metrics.csv", "metrics.jsonl", *["TensorBoard"] * settings.tensorboard]
    logs += [tracker.title for tracker, _ in settings.trackers()]
    sizes = [f"{len(loader.dataset):,} {split}" for split, loader in parts.loaders.by_split().items() if loader]
    return {
        "begin": start,
        "train": f"{counted(length.updates, 'update')} in all: {epochs}",
        "write to": shown_path(run.path) + ("" if run.path.exists() else " (new)"),
        **({"members": f"each as a run in {shown_path(run.members)}"} if config.training.members else {}),
        "log to": ", ".join(logs),
        "read": f"{config.data.name}: {', '.join(sizes)}",
    }
