"""`functrain train`: train what a configuration describes, or continue its run."""

import argparse
import os
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from functrain.app.commands.command import Command, add_config, count, name, path, seconds
from functrain.app.launching.reports import is_launched

if TYPE_CHECKING:
    from rich.console import Console

DESCRIPTION = """\
Train the model that CONFIG describes. After an interruption (Ctrl-C, a kill, a reboot) the same command continues
the run. If the run is finished, the command trains nothing and prints the result. --resume RUN continues a run without
its CONFIG, which is in the run's directory.

If CONFIG has stages, --all-stages trains them in their order, and --stage NAME trains one. The run of each stage is in
the directory RUN_DIR/NAME, and all commands take that directory as a run's.

--members N trains a deep ensemble. At its end each member is written as a run of its own, in RUN_DIR/members/000, ...

RUN_DIR receives config.yaml (the merged configuration), environment.json (packages, code, data), metrics.csv,
metrics.jsonl, checkpoints/, training_curves.png, test/metrics.json and README.md (the model card). With
logging.tensorboard=true it also receives events/.

  functrain train configs/digits.yaml
  functrain train configs/digits.yaml training.epochs=5 optimizer.lr=3e-4 --run-dir runs/short
  functrain train configs/digits.yaml --dry-run
  functrain train configs/digits.yaml --json
  functrain train configs/digits.yaml --init-from runs/other/checkpoints/best --run-dir runs/tuned
  functrain train configs/digits_stages.yaml --all-stages
  functrain train configs/digits.yaml --nproc 2
  functrain train configs/digits.yaml --members 5
  functrain train --resume runs/digits
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the arguments to the parser."""
    add_config(parser, optional=True)
    parser.add_argument("--all-stages", action="store_true", help="train all stages of the configuration, in its order")
    parser.add_argument(
        "--run-dir",
        type=path,
        metavar="DIR",
        help="where the run's files go (default: runs/<name>); of a stage, DIR/<stage>",
    )
    parser.add_argument(
        "--resume",
        type=name,
        default="auto",
        metavar="auto|never|PATH",
        help="auto (default): continue from the newest valid checkpoint, if there is one; never: start afresh and move "
        "an earlier run to DIR/previous-N; PATH: continue from this checkpoint, or without CONFIG continue this run, "
        "this directory of stages, or from this checkpoint",
    )
    parser.add_argument(
        "--init-from",
        type=path,
        metavar="FILE|RUN|CHECKPOINT",
        help="begin a fresh run with the parameters and buffers of a .pt, .pth, .ckpt or .safetensors file, of a "
        "checkpoint, or of a run's last checkpoint; short for init_from.path=... (see also init_from.new, .dropped and "
        ".prefix)",
    )
    parser.add_argument("--strict-resume", action="store_true", help="refuse a resume that would not be bit for bit")
    parser.add_argument(
        "--max-time",
        type=seconds,
        metavar="TIME",
        help="after this training time (seconds, MM:SS or HH:MM:SS) save and exit with code 75",
    )
    parser.add_argument(
        "--until-epoch",
        type=count,
        metavar="N",
        help="save and end after this epoch, if the run is longer; the command without it continues",
    )
    parser.add_argument(
        "--members",
        type=count,
        metavar="N",
        help="train a deep ensemble of N members in one step, with seeds seed, seed + 1, ...; short for "
        "training.members=N (see docs/members.md)",
    )
    parser.add_argument(
        "--nproc",
        type=count,
        metavar="N",
        help="train in N processes on this machine, each with a part of every batch (see docs/sharding.md)",
    )
    parser.add_argument("--no-progress", action="store_true", help="show no progress bar and no line per epoch")
    parser.add_argument("--quiet", action="store_true", help="print errors and warnings only")
    parser.add_argument(
        "--json",
        action="store_true",
        help="print a JSON object a line, and nothing else, on standard output: start, epoch, checkpoint, message, end",
    )
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="build everything, do one step and one batch of evaluation, say what the run would do, and write nothing",
    )


def run(arguments: argparse.Namespace, console: "Console") -> int:
    """Do it; returns the exit code."""
    if (arguments.nproc or 1) > 1 and not is_launched():
        from functrain.app.launching.launcher import launch

        return launch(arguments.given, arguments.nproc)
    from functrain.app.runs.dry_run import dry_run, without_bytecode
    from functrain.app.runs.events import events
    from functrain.app.runs.stages import each_stage
    from functrain.app.runs.training import Request, train_run

    config, overrides = split_words(arguments)
    overrides += [] if arguments.members is None else [f"training.members={arguments.members}"]
    request = Request(
        config,
        overrides,
        arguments.run_dir,
        arguments.resume,
        progress=not (arguments.no_progress or arguments.quiet),
        max_time=arguments.max_time,
        strict_resume=arguments.strict_resume,
        init_from=arguments.init_from,
        until_epoch=arguments.until_epoch,
        trust=arguments.trust,
        stage=arguments.stage,
        all_stages=arguments.all_stages,
        nproc=arguments.nproc,
    )
    on_rank_zero, console.quiet = not console.quiet, console.quiet or arguments.quiet or arguments.json
    with events(quiet=not on_rank_zero) if arguments.json else nullcontext() as told:
        if arguments.dry_run:
            with without_bytecode():
                each_stage(request, dry_run, console, told)
        else:
            each_stage(request, train_run, console, told)
    return 0


def split_words(arguments: argparse.Namespace) -> tuple[Path | None, list[str]]:
    """The configuration, if one is given, and the overrides."""
    words = [*([] if arguments.config is None else [str(arguments.config)]), *arguments.overrides]
    is_needed = arguments.resume in ("auto", "never")
    if words and (is_needed or "=" not in words[0] or Path(words[0]).exists()):
        return path(words[0]), words[1:]
    return None, words


def mistake(arguments: argparse.Namespace) -> str | None:
    """What is wrong with the arguments together."""
    if (arguments.nproc or 1) > 1 and not is_launched():
        if "WORLD_SIZE" in os.environ:
            return "--nproc starts the processes itself: leave it out under torchrun, or leave out torchrun"
        if not hasattr(os, "killpg"):
            return "--nproc is available on Linux and macOS; elsewhere start the processes with torchrun"
    if arguments.members is not None and (arguments.nproc or 1) > 1:
        return "--members trains in one process, and --nproc starts several: leave one of them out"
    config, _ = split_words(arguments)
    is_needed = arguments.resume in ("auto", "never")
    return "the following arguments are required: CONFIG, or --resume RUN" if is_needed and config is None else None


COMMAND = Command(
    name="train",
    summary="train what a configuration describes, or continue its run",
    description=DESCRIPTION,
    add_options=add_options,
    run=run,
    shares=True,
    runs_code=True,
    mistake=mistake,
)
