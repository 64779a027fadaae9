"""What `functrain train` prints before and after training, and the figures."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from rich.console import Console

from functrain.app.config.run_sections import TrainingConfig
from functrain.app.config.schema import Config
from functrain.app.runs.card import FILE as CARD
from functrain.app.runs.card import write_card
from functrain.app.runs.curves import draw_curves
from functrain.app.runs.directory import RunDirectory
from functrain.app.runs.evaluated import Evaluation, write_evaluation
from functrain.app.runs.events import Events
from functrain.app.runs.parts import Parts
from functrain.app.tables import print_facts, print_lines, print_metrics
from functrain.diagnostics.model_summary import memory_facts, state_memory
from functrain.distributed import World
from functrain.foundation.errors import FunctrainError
from functrain.foundation.paths import shown_path
from functrain.loop.choosing import Choice
from functrain.loop.output.progress import Display
from functrain.loop.output.progress_line import counted, exact
from functrain.loop.output.records import Record
from functrain.step import TrainState


@dataclass(frozen=True)
class Output:
    """Whom a command tells what it does.

    Attributes:
        console: of a person.
        events: of a program.
    """

    console: Console
    events: Events | None = None

    def say(self, text: str) -> None:
        """Print a line."""
        print_lines(self.console, [text])
        if self.events is not None:
            self.events.say(text)

    def tell(self, event: str, **values: Any) -> None:
        """Tell the program of an event."""
        if self.events is not None:
            self.events.tell(event, **values)

    def display(self, progress: bool) -> Display | bool | None:
        """What `fit` shows its progress on."""
        return self.events or (None if progress else False)


def start_values(config: Config, run: RunDirectory, parts: Parts, world: World) -> dict[str, Any]:
    """What is about to be trained, for a program."""
    state, length = parts.state, parts.length
    trainable = sum(state.params[name].numel() for name in state.recipe.network.trainable)
    choice = parts.choice or Choice(config.compile.enabled is True)
    return {
        "name": config.name,
        "run_dir": str(run.path),
        "model": state.recipe.network.name,
        "parameters": sum(p.numel() for p in state.params.values()),
        "trainable": trainable,
        **({} if state.members is None else {"members": len(state.members)}),
        "updates": length.updates,
        "updates_per_epoch": length.updates_per_epoch,
        "device": str(state.device),
        "precision": config.training.precision,
        "compiled": choice.compile,
        "processes": world.size,
    }


def facts(config: Config, parts: Parts, world: World) -> list[tuple[str, str]]:
    """The header: what is about to be trained, on what, and how."""
    training, compiling, optimizer = config.training, config.compile, config.optimizer
    loaders, length, state = parts.loaders, parts.length, parts.state
    network = state.recipe.network
    count = 1 if state.members is None else len(state.members)
    parameters = sum(p.numel() for p in state.params.values()) // count
    frozen = sum(state.params[name].numel() for name in network.frozen) // count
    seeds = f"seeds {config.seed} to {config.seed + count - 1}"
    each = "" if state.members is None else f" in each of {count} members ({seeds})"
    sizes = [
        f"{len(loader.dataset):,} {split}"
        for split, loader in (("train", loaders.train), ("val", loaders.val), ("test", loaders.test))
        if loader is not None
    ]
    engine = "" if compiling.engine == "package" else f", engine {compiling.engine}"
    how = f"compiled ({compiling.backend}, {compiling.mode}{engine})"
    choice = parts.choice or Choice(compiling.enabled is True)
    compiled = how if choice.compile else "eager (not compiled)"
    window = f", {training.accumulate} micro-batches an update" if training.accumulate > 1 else ""
    ranks = f"{world.size} processes, each " if world.size > 1 else ""
    threads = f"{torch.get_num_threads()} thread{'s' if torch.get_num_threads() > 1 else ''}"
    schedule = "" if optimizer.schedule is None else f", schedule {optimizer.schedule.name}"
    return [
        (
            "model",
            f"{network.name}, {counted(parameters, 'parameter')}"
            + (f", {frozen:,} of them frozen" if frozen else "")
            + each,
        ),
        ("data", f"{config.data.name}: {', '.join(sizes)}; batches of {config.data.batch_size}{window}"),
        ("optimizer", f"{optimizer.name}, lr {optimizer.lr:g}{schedule}"),
        ("training", f"{counted(length.updates, 'update')}, {length.updates_per_epoch:,} an epoch{_part(training)}"),
        ("device", f"{ranks}{state.device}, {training.precision}, {compiled}, {threads}"),
        *([("compile", choice.why)] if choice.why else []),
        ("memory", memory_facts(state_memory(state))["state"]),
    ]


def _part(training: TrainingConfig) -> str:
    """What of the data is used, where that is not all."""
    if training.overfit_batches is not None:
        return f", on the same {counted(training.overfit_batches, 'batch', 'batches')} (overfit_batches)"
    limit = training.limit_batches
    return "" if limit is None else f" (limit_batches: {limit})"


@dataclass(frozen=True)
class Ended:
    """A run that has ended.

    Attributes:
        config, parts: what was trained.
        state: the result.
        test: its evaluation on the split "test", if there is one.
        how: how long it took, in words.
        checkpoint: that holds the result: "last" or "best".
        stopped_by: as `fit` says it, or "finished" where nothing was left to train.
    """

    config: Config
    parts: Parts
    state: TrainState
    test: Evaluation | None
    how: str
    checkpoint: str
    stopped_by: str


def conclude(run: RunDirectory, ended: Ended, output: Output) -> None:
    """Draw, write the model card, and print the table and the list of files.

    Raises:
        FunctrainError: at the end, if a file cannot be written.
    """
    state, test, console = ended.state, ended.test, output.console
    checkpoint = run.name_of(ended.checkpoint)
    problems = []
    files = [run.config_file, run.path / "metrics.csv", run.path / "metrics.jsonl", run.checkpoint_folder]
    files += [run.events] if run.events.is_dir() else []
    files += [run.members] if run.members.is_dir() else []
    try:
        files += [] if test is None else write_evaluation(run, test, checkpoint)
    except FunctrainError as error:
        problems.append(str(error))
    records = run.records()
    drawn = draw_curves(run, run.path, records=records)
    files += drawn.files
    print_lines(console, drawn.missing)
    problems += drawn.problems
    rows = _rows(records, test)
    try:
        if write_card(run, ended.config, ended.parts, state, rows, checkpoint):
            files.append(run.path / CARD)
    except FunctrainError as error:
        problems.append(str(error))
    print_metrics(console, rows)
    print_lines(
        console,
        ["train and val: means over the members; test: their mean prediction"] if state.members is not None else [],
    )
    print_lines(console, [test.missing] if test is not None and test.missing else [])
    print_lines(console, [f"trained {counted(state.epoch, 'epoch')}, {counted(state.step, 'update')}{ended.how}"])
    print_lines(console, [f"best checkpoint: {_best(run)}"])
    print_facts(console, "files", [(file.name, shown_path(file)) for file in files])
    output.tell(
        "end",
        stopped_by=ended.stopped_by,
        step=state.step,
        epoch=state.epoch,
        metrics=rows,
        checkpoint=checkpoint,
        best=run.name_of("best"),
        files=[str(file) for file in files],
        exit_code=0 if not problems else 2,
    )
    if problems:
        raise FunctrainError(
            "; ".join(problems) + ". Training is done and saved: the same command writes what is missing"
        )


def _rows(records: Sequence[Record], test: Evaluation | None) -> dict[str, dict[str, float]]:
    """The last values of each kind, by metric."""
    rows: dict[str, dict[str, float]] = {}
    for prefix, label in (("train_", "train"), ("eval_", "val"), ("ema_", "val (EMA)")):
        for record in records:
            found = {key.removeprefix(prefix): value for key, value in record.items() if key.startswith(prefix)}
            if record["kind"] != "step" and found:
                rows[label] = found
    return rows if test is None else rows | test.rows


def _best(run: RunDirectory) -> str:
    info = next((info for info in run.checkpoints() if info.name == run.name_of("best")), None)
    if info is None or info.metric is None:
        return "none"
    return f"{info.name} ({exact(info.metric)})"
