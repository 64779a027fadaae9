"""`functrain sweep`: train a configuration with many values of some keys."""

import argparse
import shlex
import sys
from typing import TYPE_CHECKING

from functrain.app.commands.command import Command, add_config, count, name, natural, path

if TYPE_CHECKING:
    from rich.console import Console

DESCRIPTION = """\
Train CONFIG with many values of some keys, each member in a process and a directory of its own. A key with several
values is searched: key=1,2,3. By default all combinations are trained. After an interruption the same command goes
on: finished members are not trained again, and the others continue at the very batch.

The section sweep of CONFIG can say the same as these arguments, which win over it (docs/sweeps.md). If CONFIG has
stages, --all-stages lets each member train all of them, and --stage NAME one.

With --random and --optuna a key may also have a range: log(1e-4, 1e-2), uniform(0, 0.5), int(1, 8); a comma list is a
choice. Put these in quotes. With --vectorize members that differ only in numbers are trained in one step, and become
runs of their own at its end; a cross-validation is data.fold=0,1,2 --vectorize.

The results go to sweep.csv and sweep.png in the sweep's directory. The exit code is 1 if a member failed.

  functrain sweep configs/digits.yaml optimizer.lr=1e-2,3e-3 model.channels=8,24 --jobs 2
  functrain sweep configs/digits.yaml --random 20 optimizer.lr='log(1e-4, 1e-1)' model.dropout='uniform(0, 0.5)'
  functrain sweep configs/digits.yaml --random 27 optimizer.lr='log(1e-4, 1e-1)' --asha --min-epochs 2
  functrain sweep configs/digits.yaml optimizer.lr=1e-2,3e-3 seed=0,1,2 --vectorize
  functrain sweep configs/digits_stages.yaml stages.dense.optimizer.lr=1e-2,3e-3 --all-stages
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the arguments to the parser."""
    add_config(parser)
    parser.add_argument(
        "--all-stages", action="store_true", default=None, help="let each member train all stages of the configuration"
    )
    parser.add_argument("--jobs", type=count, metavar="N", help="members to train at once (default: 1)")
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
    parser.add_argument("--search-seed", type=natural, metavar="N", help="of --random and --optuna (default: 0)")
    parser.add_argument(
        "--metric",
        type=name,
        metavar="NAME",
        help="compare members by this metric of their logs, such as eval_accuracy (default: the watched one)",
    )
    parser.add_argument(
        "--mode", choices=("min", "max"), help="of --metric: whether the lowest or the highest value is the best"
    )
    parser.add_argument(
        "--asha",
        action=argparse.BooleanOptionalAction,
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
    parser.add_argument(
        "--vectorize",
        action=argparse.BooleanOptionalAction,
        help="train members that differ only in numbers, such as the learning rate, the seed or the fold, in one "
        "program; the others are trained as without it",
    )
    parser.add_argument("--fail-fast", action=argparse.BooleanOptionalAction, help="end the sweep when a member fails")


def run(arguments: argparse.Namespace, console: "Console") -> int:
    """Do it; returns the exit code."""
    from functrain.app.sweeps.asked import Arguments
    from functrain.app.sweeps.sweep import sweep

    given = Arguments(
        arguments.config,
        arguments.overrides,
        arguments.sweep_dir,
        stage=arguments.stage,
        all_stages=arguments.all_stages,
        jobs=arguments.jobs,
        list_file=arguments.list_file,
        random=arguments.random,
        optuna=arguments.optuna,
        search_seed=arguments.search_seed,
        metric=arguments.metric,
        mode=arguments.mode,
        asha=arguments.asha,
        min_epochs=arguments.min_epochs,
        factor=arguments.factor,
        changed=arguments.changed,
        fail_fast=arguments.fail_fast,
        vectorize=arguments.vectorize,
        trust=arguments.trust,
        command=["functrain", *map(shlex.quote, sys.argv[1:])],
    )
    return sweep(given, console)


COMMAND = Command(
    name="sweep",
    summary="train a configuration with many values of some keys",
    description=DESCRIPTION,
    add_options=add_options,
    run=run,
    runs_code=True,
)
