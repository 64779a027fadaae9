"""`functrain sweep`: train a configuration with many values of some keys."""

import argparse
import shlex
import sys
from typing import TYPE_CHECKING

from functrain.app.commands.command import Command, add_config, count, natural, path

if TYPE_CHECKING:
    from rich.console import Console

DESCRIPTION = """\
Train CONFIG with many values of some keys, each member in a process and a directory of its own. A key with several
values is searched: key=1,2,3. By default all combinations are trained. After an interruption the same command goes
on: finished members are not trained again, and the others continue at the very batch.

With --random and --optuna a key may also have a range: log(1e-4, 1e-2), uniform(0, 0.5), int(1, 8); a comma list is a
choice. Put these in quotes. The results go to sweep.csv and sweep.png in the sweep's directory. The exit code is 1 if
a member failed.

  functrain sweep configs/digits.yaml optimizer.lr=1e-2,3e-3 model.channels=8,24 --jobs 2
  functrain sweep configs/digits.yaml --random 20 optimizer.lr='log(1e-4, 1e-1)' model.dropout='uniform(0, 0.5)'
  functrain sweep configs/digits.yaml --random 27 optimizer.lr='log(1e-4, 1e-1)' --asha --min-epochs 2
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the arguments to the parser."""
    add_config(parser, stages=False)
    parser.add_argument("--jobs", type=count, default=1, metavar="N", help="members to train at once (default: 1)")
    parser.add_argument(
        "--sweep-dir", type=path, metavar="DIR", help="where the members go (default: runs/<name>-sweep)"
    )
    parser.add_argument(
        "--list",
        type=path,
        metavar="FILE",
        dest="list_file",
        help="the members: a list of sections in YAML or JSON, or a text with the overrides of a member in each line",
    )
    parser.add_argument("--random", type=count, metavar="N", help="draw N members")
    parser.add_argument("--optuna", type=count, metavar="N", help="let Optuna's TPE sampler suggest N members")
    parser.add_argument(
        "--search-seed", type=natural, default=0, metavar="N", help="of --random and --optuna (default: 0)"
    )
    parser.add_argument(
        "--asha",
        action="store_true",
        help="successive halving: train all members for --min-epochs, and the best one in --factor of them for "
        "--factor times as long, and so on",
    )
    parser.add_argument("--min-epochs", type=count, metavar="N", help="of --asha: epochs of all members (default: 1)")
    parser.add_argument("--factor", type=count, metavar="N", help="of --asha: the reduction factor (default: 3)")
    parser.add_argument(
        "--changed",
        choices=("keep", "again"),
        help="what becomes of members that have begun with other code, data or settings: keep them, or train them "
        "again in directories of their own (default: refuse to go on)",
    )
    parser.add_argument("--fail-fast", action="store_true", help="end the sweep when a member fails")


def run(arguments: argparse.Namespace, console: "Console") -> int:
    """Do it; returns the exit code."""
    from functrain.app.sweeps.halving import Halving
    from functrain.app.sweeps.sweep import Sweep, sweep
    from functrain.foundation.errors import ConfigError

    if not arguments.asha and (arguments.min_epochs or arguments.factor):
        raise ConfigError("--min-epochs and --factor are of --asha: give that, too")
    if arguments.factor == 1:
        raise ConfigError("--factor must be 2 or more: with 1 no member would be pruned")
    halving = Halving(arguments.min_epochs or 1, arguments.factor or 3) if arguments.asha else None
    asked = Sweep(
        arguments.config,
        arguments.overrides,
        arguments.sweep_dir,
        arguments.jobs,
        list_file=arguments.list_file,
        random=arguments.random,
        optuna=arguments.optuna,
        search_seed=arguments.search_seed,
        halving=halving,
        changed=arguments.changed,
        fail_fast=arguments.fail_fast,
        trust=arguments.trust,
        command=["functrain", *map(shlex.quote, sys.argv[1:])],
    )
    return sweep(asked, console)


COMMAND = Command(
    name="sweep",
    summary="train a configuration with many values of some keys",
    description=DESCRIPTION,
    add_options=add_options,
    run=run,
    runs_code=True,
)
