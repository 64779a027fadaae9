"""`functrain train`: train what a configuration describes, or continue its run."""

import argparse
from contextlib import nullcontext
from typing import TYPE_CHECKING

from functrain.app.commands.command import Command, add_config, count, name, path, seconds

if TYPE_CHECKING:
    from rich.console import Console

DESCRIPTION = """\
Train the model that CONFIG describes. After an interruption (Ctrl-C, a kill, a reboot) the same command continues
the run. If the run is finished, the command trains nothing and prints the result.

RUN_DIR receives config.yaml (the merged configuration), environment.json (packages, code, data), metrics.csv,
metrics.jsonl, checkpoints/, training_curves.png, test/metrics.json and README.md (the model card). With
logging.tensorboard=true it also receives events/.

  functrain train configs/digits.yaml
  functrain train configs/digits.yaml training.epochs=5 optimizer.lr=3e-4 --run-dir runs/short
  functrain train configs/digits.yaml --dry-run
  functrain train configs/digits.yaml --json
  functrain train configs/digits.yaml --init-from runs/other/checkpoints/best --run-dir runs/tuned
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the arguments to the parser."""
    add_config(parser)
    parser.add_argument("--run-dir", type=path, metavar="DIR", help="where the run's files go (default: runs/<name>)")
    parser.add_argument(
        "--resume",
        type=name,
        default="auto",
        metavar="auto|never|PATH",
        help="auto (default): continue from the newest valid checkpoint, if there is one; never: start afresh and move "
        "an earlier run to DIR/previous-N; PATH: continue from this checkpoint",
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
    from functrain.app.runs.dry_run import dry_run, without_bytecode
    from functrain.app.runs.events import events
    from functrain.app.runs.training import Request, train

    request = Request(
        arguments.config,
        arguments.overrides,
        arguments.run_dir,
        arguments.resume,
        progress=not (arguments.no_progress or arguments.quiet),
        max_time=arguments.max_time,
        strict_resume=arguments.strict_resume,
        init_from=arguments.init_from,
        until_epoch=arguments.until_epoch,
        trust=arguments.trust,
    )
    on_rank_zero, console.quiet = not console.quiet, console.quiet or arguments.quiet or arguments.json
    with events(quiet=not on_rank_zero) if arguments.json else nullcontext() as told:
        if arguments.dry_run:
            with without_bytecode():
                dry_run(request, console, told)
        else:
            train(request, console, told)
    return 0


COMMAND = Command(
    name="train",
    summary="train what a configuration describes, or continue its run",
    description=DESCRIPTION,
    add_options=add_options,
    run=run,
    runs_code=True,
)
