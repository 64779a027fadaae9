"""The commands of the command line and their options. Imports the standard library: `--help` waits for nothing."""

import argparse
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn

_AddCommand = Callable[[str, str, str], argparse.ArgumentParser]  # name, summary, description: the command's parser

# What runs the functions that a configuration names, and so takes --trust (docs/trust.md). The others import nothing.
RUNS_CODE = frozenset(
    {"train", "evaluate", "export", "profile", "replay", "hunt", "find-lr", "find-batch-size"},
)

_TRAIN = """\
Train the model that CONFIG describes. The same command after an interruption (Ctrl-C, a kill, a reboot) goes on
where the run stopped; a finished run is shown. Files go to RUN_DIR: the merged config.yaml, metrics.csv,
metrics.jsonl, checkpoints/, training_curves.png and test/metrics.json; events/ too with training.tensorboard=true.

  functrain train configs/digits.yaml
  functrain train configs/digits.yaml training.epochs=5 optimizer.lr=3e-4 --run-dir runs/short
  functrain train configs/digits.yaml --init-from runs/other/checkpoints/best --run-dir runs/tuned
"""
_EVALUATE = """\
Evaluate a checkpoint of a run on one of the splits of its data, print scores per class, and write metrics.json
and metrics.csv to RUN/<split>/. If the run keeps averaged parameters (EMA), those are evaluated, too.

  functrain evaluate runs/digits
  functrain evaluate runs/digits --split val --checkpoint best
"""
_SHOW = """\
Show what a run has done and which checkpoints it has, or what a checkpoint holds.

  functrain show runs/digits
  functrain show runs/digits/checkpoints/best
"""
_EXPORT = """\
Write the model of a checkpoint (of a run, its last one) for those who do without functrain: .safetensors, or .pt or
.pth, a file of torch.save with model_state_dict, epoch and step that loads with weights_only=True. An existing file
is replaced when the new one is complete. The data of the run are not needed.

  functrain export runs/digits digits.safetensors
  functrain export runs/digits/checkpoints/best digits.pt --ema
  functrain export runs/digits digits.pt --optimizer
"""
_PROFILE = """\
Measure how long the phases of training (data, step, metrics, checkpoint) take, one after the other, with memory,
throughput, floating-point operations, and the share of the GPU's peak where that is known. DIR gets profile.json and
trace.json, a trace for ui.perfetto.dev. Nothing else is written; no run is touched.

  functrain profile configs/digits.yaml
  functrain profile configs/digits.yaml data.num_workers=2 --steps 100 --out profiles/two-workers
"""
_VERIFY = """\
Read every checkpoint of a run and compare it with its checksums. Exit code 1 if one is damaged. Nothing is changed.

  functrain verify runs/digits
"""
_DIFF = """\
Compare two checkpoints bit for bit (of a run, its last one): which leaves differ, in how many elements, where
first, and how many units in the last place (ulps) lie between the two values there. Exit code 1 if they differ.

  functrain diff runs/a runs/b
  functrain diff runs/a/checkpoints/best runs/a/checkpoints/last
"""
_REPLAY = """\
Train again from a checkpoint (of a run, the one before its last) and compare with the checkpoints that follow it, bit
for bit. Exit code 1 if one is not confirmed. Nothing is written.

  functrain replay runs/digits
  functrain replay runs/digits/checkpoints/step-00000017 --steps 34
"""
_HUNT = """\
Train again, eagerly, from the snapshot that a run left when its loss was not finite (or from its newest checkpoint),
and name the first step, micro-batch, module and leaf that is not finite. Exit code 1 if there is one.

  functrain hunt runs/digits
"""
_FIND_LR = """\
Train a copy of what CONFIG describes for some updates, with a learning rate that grows from 1e-7 to 10, and print the
loss and a suggestion: where it falls most steeply. A schedule is left out. Nothing is written but the figure.

  functrain find-lr configs/digits.yaml --figure lr.png
"""
_FIND_BATCH_SIZE = """\
Try training steps of what CONFIG describes with ever larger batches, and print the largest that fits into memory and
how many examples a second each size gets through. Nothing is written.

  functrain find-batch-size configs/digits.yaml
"""


def build_parser() -> tuple[argparse.ArgumentParser, Mapping[str, argparse.ArgumentParser]]:
    """The parser of all commands, and each command's own."""
    parser = _Parser(
        prog="functrain", description="Functional training for PyTorch, resumed bit for bit.", allow_abbrev=False
    )
    parser.add_argument("--version", action=_Version, help="print the version and exit")
    common = _Parser(add_help=False)
    for target, default in ((parser, False), (common, argparse.SUPPRESS)):
        target.add_argument("--debug", action="store_true", default=default, help="show the traceback of an error")
    trust = _Parser(add_help=False)
    trust.add_argument(
        "--trust",
        action="store_true",
        help="run code that a run or checkpoint of somebody else's names, or that lies in a run's directory",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, summary: str, description: str) -> argparse.ArgumentParser:
        return commands.add_parser(
            name,
            help=summary,
            description=description,
            parents=[common, trust] if name in RUNS_CODE else [common],
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )

    _add_train(command)  # `--help` lists them in this order
    _add_results(command)
    _add_profile(command)
    _add_proofs(command)
    _add_finders(command)
    return parser, commands.choices


def _add_config(command: argparse.ArgumentParser) -> None:
    command.add_argument("config", type=_path, metavar="CONFIG", help="a YAML file")
    command.add_argument(
        "overrides", nargs="*", default=[], metavar="key.path=value", help="values that win over the file's, in YAML"
    )


def _add_train(command: _AddCommand) -> None:
    train = command("train", "train, or go on training, what a configuration describes", _TRAIN)
    _add_config(train)
    train.add_argument("--run-dir", type=_path, metavar="DIR", help="where the run's files go (default: runs/<name>)")
    train.add_argument(
        "--resume",
        type=_name,
        default="auto",
        metavar="auto|never|PATH",
        help="auto: continue from the newest valid checkpoint, if there is one (default); never: start afresh and move "
        "an earlier run to DIR/previous-N; PATH: continue from this checkpoint",
    )
    train.add_argument(
        "--init-from",
        type=_path,
        metavar="FILE|RUN|CHECKPOINT",
        help="where a run that starts afresh has its parameters and buffers from: .pt, .pth, .ckpt, .safetensors, or a "
        "functrain checkpoint (of a run, its last); short for init_from.path=..., see also init_from.new, .dropped and "
        ".prefix",
    )
    train.add_argument(
        "--strict-resume", action="store_true", help="refuse to resume where that would not be bit for bit"
    )
    train.add_argument(
        "--max-time",
        type=_seconds,
        metavar="TIME",
        help="save and end with exit code 75 after this time of training: seconds, MM:SS or HH:MM:SS",
    )
    train.add_argument("--no-progress", action="store_true", help="no progress bar and no line per epoch")


def _add_results(command: _AddCommand) -> None:
    """What is read from a run's checkpoints: scores, a summary, a file for others."""
    evaluate = command("evaluate", "evaluate a run's checkpoint", _EVALUATE)
    evaluate.add_argument("run", type=_path, metavar="RUN", help="a run's directory")
    evaluate.add_argument("--split", choices=("test", "val", "train"), default="test", help="(default: test)")
    evaluate.add_argument(
        "--checkpoint", type=_name, default="last", metavar="best|last|NAME", help="which checkpoint (default: last)"
    )

    show = command("show", "show a run or a checkpoint", _SHOW)
    show.add_argument("path", type=_path, metavar="RUN|CHECKPOINT", help="the directory of a run or of a checkpoint")

    export = command("export", "write a checkpoint's model for torch or safetensors", _EXPORT)
    export.add_argument("path", type=_path, metavar="RUN|CHECKPOINT", help="the directory of a run or of a checkpoint")
    export.add_argument("out", type=_path, metavar="OUT", help="the file: .safetensors, .pt or .pth")
    export.add_argument("--ema", action="store_true", help="the averaged parameters")
    export.add_argument(
        "--optimizer",
        action="store_true",
        help="also the optimizer's state, for torch.optim's Adam, AdamW or SGD (.pt and .pth)",
    )


def _add_profile(command: _AddCommand) -> None:
    profile = command("profile", "measure where the time of training goes", _PROFILE)
    _add_config(profile)
    profile.add_argument("--steps", type=_count, default=20, metavar="N", help="updates to measure (default: 20)")
    profile.add_argument("--out", type=_path, metavar="DIR", help="where the files go (default: profiles/<name>)")


def _add_proofs(command: _AddCommand) -> None:
    """Those that exit with 1 if they find something."""
    verify = command("verify", "check all checkpoints of a run", _VERIFY)
    verify.add_argument("run", type=_path, metavar="RUN|CHECKPOINT", help="the directory of a run or of a checkpoint")

    diff = command("diff", "compare two checkpoints bit for bit", _DIFF)
    for name, metavar in (("left", "A"), ("right", "B")):
        diff.add_argument(name, type=_path, metavar=metavar, help="the directory of a run or of a checkpoint")

    replay = command("replay", "train again from a checkpoint, and compare", _REPLAY)
    replay.add_argument(
        "checkpoint", type=_path, metavar="RUN|CHECKPOINT", help="the directory of a run or of a checkpoint"
    )
    replay.add_argument(
        "--steps",
        type=_count,
        metavar="N",
        help="optimizer updates to train again (default: up to the next checkpoint)",
    )

    hunt = command("hunt", "find the first value that is not finite", _HUNT)
    hunt.add_argument("run", type=_path, metavar="RUN", help="a run's directory")
    hunt.add_argument("--checkpoint", type=_name, metavar="NAME", help="begin with this one")
    hunt.add_argument("--steps", type=_count, default=100, metavar="N", help="give up after N updates (default: 100)")


def _add_finders(command: _AddCommand) -> None:
    compiled = "compile the step, instead of running it eagerly"
    find_lr = command("find-lr", "find a learning rate", _FIND_LR)
    _add_config(find_lr)
    find_lr.add_argument("--steps", type=_count, default=100, metavar="N", help="updates (default: 100)")
    find_lr.add_argument("--figure", type=_path, metavar="FILE", help="draw the curve: .png, .pdf or .svg")
    find_lr.add_argument("--compile", action="store_true", help=compiled)

    find_batch_size = command("find-batch-size", "find the largest batch that fits into memory", _FIND_BATCH_SIZE)
    _add_config(find_batch_size)
    find_batch_size.add_argument(
        "--limit", type=_count, metavar="N", help="the largest to try (default: as many as there are training examples)"
    )
    find_batch_size.add_argument("--compile", action="store_true", help=compiled)


def _path(text: str) -> Path:
    """A path; a shell leaves the `~` of `--out=~/x` to us."""
    if not text:
        raise argparse.ArgumentTypeError("a path must not be empty")
    return Path(os.path.expanduser(text))


def _name(text: str) -> str:
    if not text:
        raise argparse.ArgumentTypeError("a name or path must not be empty")
    return text


def _count(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} must be a whole number, 1 or more")
    return int(text)


def _seconds(text: str) -> float:
    """Seconds from "90", "1:30" or "0:01:30"."""
    parts = text.split(":")
    try:
        seconds = sum(float(part) * 60**power for power, part in enumerate(reversed(parts)))
    except ValueError:
        seconds = 0.0
    if len(parts) > 3 or not 0 < seconds < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is no time above 0: give seconds, MM:SS or HH:MM:SS")
    return seconds


class _Parser(argparse.ArgumentParser):
    """Says in words what argparse says in its own terms."""

    def error(self, message: str) -> NoReturn:
        """End with exit code 2, the usage and one message."""
        message = re.sub(r"argument (\S+): ignored explicit argument (.+)", r"\1 takes no value; got \2", message)
        message = re.sub(r"argument (\S+): expected one argument", r"\1 needs a value", message)
        super().error(message)


class _Version(argparse.Action):
    """Looks the version up when asked."""

    def __init__(self, **options: Any) -> None:
        super().__init__(nargs=0, **options)

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        from importlib.metadata import version

        print(f"functrain {version('functrain')}")
        parser.exit()
