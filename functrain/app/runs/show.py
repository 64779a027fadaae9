"""`functrain show`: show the progress of a run, or what a checkpoint holds."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from functrain.app.members.showing import cell, ensemble_facts, print_members
from functrain.app.plain_json import json_lines
from functrain.app.runs.ancestry import ancestry_of
from functrain.app.runs.directory import existing_run, position, runs_beside, status
from functrain.app.runs.from_checkpoint import INDEX, what_is_there
from functrain.app.tables import print_facts, print_lines, print_table
from functrain.checkpoint import CheckpointInfo, read_info
from functrain.foundation.errors import ConfigError
from functrain.foundation.units import size
from functrain.loop.output.log_files import DIGEST, MEMBERS
from functrain.loop.output.progress_line import exact
from functrain.loop.output.records import Record
from functrain.loop.resume.metadata import metadata_of

LAST_RECORDS = 5


def show(path: str | Path, console: Console, *, as_json: bool = False) -> None:
    """The command.

    Args:
        path: a run's directory, or a checkpoint's.
        console: what to print on.
        as_json: print JSON instead of tables.

    Raises:
        ConfigError: if it is neither.
        CheckpointError: if it is a checkpoint that is damaged.
    """
    path = Path(path)
    if (path / "config.yaml").is_file() or (path / "checkpoints").is_dir():
        if as_json:
            print_lines(console, json_lines(_run_values(path)))
        else:
            _show_run(path, console)
        return
    if not (path / INDEX).is_file():
        detail = what_is_there(path, INDEX) if not path.is_dir() else f"it holds neither config.yaml nor {INDEX}"
        # Given the folder of all runs, those in it; else those beside.
        hint = runs_beside(path / "any") or runs_beside(path)
        raise ConfigError(f"{path} is neither a run directory nor a checkpoint: {detail}{hint}")
    info = read_info(path)
    if as_json:
        print_lines(console, json_lines(_checkpoint_values(info) | {"environment": metadata_of(info).environment}))
    else:
        _show_checkpoint(info, console)


def _run_values(path: Path) -> dict[str, Any]:
    """What the screen of a run says, for programs."""
    run, config = existing_run(path)
    infos = run.checkpoints()
    ancestry = ancestry_of(path)
    return {
        "name": config.name,
        "path": str(path),
        "model": config.model.name,
        "data": config.data.name,
        **({} if config.training.members is None else {"ensemble": config.training.members}),
        "status": status(infos[-1], config) if infos else None,
        "branched_off": None if ancestry is None else ancestry.to_json(),
        "best": run.name_of("best"),
        "last": run.name_of("last"),
        "checkpoints": [_checkpoint_values(info) for info in infos],
        "records": [record for record in run.records() if record["kind"] != "step"],
    }


def _checkpoint_values(info: CheckpointInfo) -> dict[str, Any]:
    metadata = metadata_of(info)
    return {
        "name": info.name,
        "path": str(info.path),
        "status": info.status,
        "saved": info.time,
        "step": info.step,
        "epoch": metadata.epoch,
        "batch": metadata.batch_idx,
        "samples_seen": metadata.samples_seen,
        "metric": info.metric,
        "bytes": dict(info.nbytes),
    }


def _show_run(path: Path, console: Console) -> None:
    run, config = existing_run(path)
    infos = run.checkpoints()
    last = infos[-1] if infos else None
    stage = [] if config.stage is None else [("stage", config.stage)]
    facts = [("run", config.name), *stage, ("model", config.model.name), ("data", config.data.name)]
    facts += ensemble_facts(run, config)
    if last is None:
        facts.append(("status", "no checkpoint yet"))
    else:
        facts.append(("status", f"{status(last, config)}: {position(last)}"))
    ancestry = ancestry_of(path)
    if ancestry is not None:
        facts.append(("branched off" if ancestry.is_branch else "began with", str(ancestry)))
    print_facts(console, str(path), facts)
    if infos:
        best, newest = run.name_of("best"), run.name_of("last")
        rows = [_row(info, best, newest) for info in infos]
        print_table(console, ["checkpoint", "", "status", "saved (UTC)", "step", "epoch", "metric"], rows, left=4)
    records = [record for record in run.records() if record["kind"] != "step"]
    _print_records(records[-LAST_RECORDS:], console)
    print_members(records, console)


def _row(info: CheckpointInfo, best: str | None, newest: str | None) -> list[str]:
    marks = [word for word, name in (("best", best), ("last", newest)) if name == info.name]
    metric = "" if info.metric is None else exact(info.metric)
    epoch = metadata_of(info).epoch
    when = info.time[:16].replace("T", " ")
    return [info.name, ", ".join(marks), info.status, when, str(info.step), "" if epoch is None else str(epoch), metric]


def _print_records(records: Sequence[Record], console: Console) -> None:
    if not records:
        return
    hidden = ("kind", "samples", DIGEST, MEMBERS)
    names = [name for name in dict.fromkeys(key for record in records for key in record) if name not in hidden]
    rows = [[cell(name, record[name]) if name in record else "" for name in names] for record in records]
    print_lines(console, ["last records:"])
    print_table(console, [name.replace("_", " ") for name in names], rows, left=0)


def _show_checkpoint(info: CheckpointInfo, console: Console) -> None:
    metadata = metadata_of(info)
    facts = [
        ("status", info.status),
        ("position", position(info)),
        ("samples seen", f"{metadata.samples_seen:,}"),
        ("metric", "none" if info.metric is None else exact(info.metric)),
        ("saved", f"{info.time} (UTC)"),
        ("format", f"version {info.format_version}, functrain {metadata.functrain}"),
    ]
    print_facts(console, str(info.path), facts)
    groups = [
        [name, f"{len(leaves):,}", size(nbytes)]
        for name, leaves in info.groups.items()
        if (nbytes := info.nbytes.get(name, 0))
    ]
    numbers = [name for name, leaves in info.groups.items() if leaves and not info.nbytes.get(name, 0)]
    if numbers:
        groups.append(["counters and the like", f"{sum(len(info.groups[name]) for name in numbers):,}", ""])
    print_table(console, ["group", "leaves", "size"], [*groups, ["all", "", size(sum(info.nbytes.values()))]])
    if metadata.environment:
        print_facts(console, "environment", [(name, str(value)) for name, value in metadata.environment.items()])
