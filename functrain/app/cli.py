"""The command line. Imports the standard library and `functrain.foundation.errors`; commands load when they run.

Exit codes: 0; 1 if `verify`, `diff`, `replay` or `hunt` found something; 2 for what the user can put right, with one
message; 75 when --max-time was up; 128 + signal after an interruption.
"""

import argparse
import os
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from functrain.foundation.errors import FunctrainError

USER_ERROR = 2
INTERRUPTED = 128 + signal.SIGINT
WIDTH_OF_FILES = 120  # of output that goes into a file or pipe
_PACKAGE = str(Path(__file__).parents[1]) + os.sep

_TRAIN = """\
Train the model that CONFIG describes. The same command after an interruption (Ctrl-C, a kill, a reboot) goes on
where the run stopped; a finished run is shown. Files go to RUN_DIR: the merged config.yaml, metrics.csv,
metrics.jsonl, checkpoints/, training_curves.png and test/metrics.json.

  functrain train configs/digits.yaml
  functrain train configs/digits.yaml training.epochs=5 optimizer.lr=3e-4 --run-dir runs/short
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
Train again from a checkpoint and compare with the checkpoints that follow it, bit for bit. Exit code 1 if one is
not confirmed. Nothing is written.

  functrain replay runs/digits/checkpoints/step-00000017
  functrain replay runs/digits/checkpoints/step-00000017 --steps 34
"""
_HUNT = """\
Train again, eagerly, from the snapshot that a run left when its loss was not finite (or from its newest checkpoint),
and name the first step, micro-batch, module and leaf that is not finite. Exit code 1 if there is one.

  functrain hunt runs/digits
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; the entry point of `functrain` and `python -m functrain`.

    Args:
        argv: the arguments; default: the process's.

    Returns:
        The exit code.

    Raises:
        SystemExit: from argparse, and `Interrupted` when training was interrupted and is saved.

    Example:
        >>> main(["show", "no/such/run"])
        2
    """
    arguments = _parse(argv)
    try:
        with _warnings_for_people():
            return _run(arguments)
    except KeyboardInterrupt:
        exec("")  # clears Python's mark that an exec() was interrupted, by which the exit code would become -SIGINT
        if _rank() == 0:
            print("\nfunctrain: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # the reader of our output, `head` say, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except Exception as error:
        if arguments.debug or not _is_for_people(error):
            raise
        # Nearly always rank 0 says the same, but a disk may be full where another rank is.
        rank = f" (rank {_rank()})" if _rank() else ""
        print(f"functrain{rank}: error: {_message(error)}", file=sys.stderr)
        return USER_ERROR
    finally:
        if argv is None and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # all is done; no traceback from Python's shutting down


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """As `parse_args`, with options between the overrides as well, for which argparse with commands has no mode."""
    parser = _parser()
    arguments, rest = parser.parse_known_args(argv)
    strangers = [text for text in rest if text.startswith("-") or arguments.command != "train"]
    if strangers:
        parser.error(
            f"{arguments.command} does not know {' '.join(strangers)}; see functrain {arguments.command} --help"
        )
    if arguments.command == "train":
        arguments.overrides += rest
    return arguments


def _run(arguments: argparse.Namespace) -> int:
    with _interruptible_import():
        from rich.console import Console

        from functrain.app import evaluate, proof, show, train
    console = Console(highlight=False, quiet=_rank() > 0)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = WIDTH_OF_FILES
    if arguments.command == "verify":
        return proof.verify(arguments.run, console)
    if arguments.command == "diff":
        return proof.diff(arguments.left, arguments.right, console)
    if arguments.command == "replay":
        return proof.replay_checkpoint(arguments.checkpoint, arguments.steps, console)
    if arguments.command == "hunt":
        return proof.hunt(arguments.run, arguments.checkpoint, arguments.steps, console)
    if arguments.command == "train":
        request = train.Request(
            arguments.config,
            arguments.overrides,
            arguments.run_dir,
            arguments.resume,
            progress=not arguments.no_progress,
            max_time=arguments.max_time,
            strict_resume=arguments.strict_resume,
        )
        train.train(request, console)
    elif arguments.command == "evaluate":
        evaluate.evaluate_run(arguments.run, split=arguments.split, checkpoint=arguments.checkpoint, console=console)
    else:
        show.show(arguments.path, console)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="functrain", description="Functional training for PyTorch, resumed bit for bit.", allow_abbrev=False
    )
    parser.add_argument("--version", action=_Version, help="print the version and exit")
    common = argparse.ArgumentParser(add_help=False)
    for target, default in ((parser, False), (common, argparse.SUPPRESS)):
        target.add_argument("--debug", action="store_true", default=default, help="show the traceback of an error")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, summary: str, description: str) -> argparse.ArgumentParser:
        return commands.add_parser(
            name,
            help=summary,
            description=description,
            parents=[common],
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )

    train = command("train", "train, or go on training, what a configuration describes", _TRAIN)
    train.add_argument("config", type=Path, metavar="CONFIG", help="a YAML file")
    train.add_argument(
        "overrides", nargs="*", metavar="key.path=value", help="values that win over the file's, in YAML"
    )
    train.add_argument("--run-dir", type=Path, metavar="DIR", help="where the run's files go (default: runs/<name>)")
    train.add_argument(
        "--resume",
        default="auto",
        metavar="auto|never|PATH",
        help="auto: continue from the newest valid checkpoint, if there is one (default); never: start afresh and move "
        "an earlier run to DIR/previous-N; PATH: continue from this checkpoint",
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

    evaluate = command("evaluate", "evaluate a run's checkpoint", _EVALUATE)
    evaluate.add_argument("run", type=Path, metavar="RUN", help="a run's directory")
    evaluate.add_argument("--split", choices=("test", "val", "train"), default="test", help="(default: test)")
    evaluate.add_argument(
        "--checkpoint", default="last", metavar="best|last|NAME", help="which checkpoint (default: last)"
    )

    show = command("show", "show a run or a checkpoint", _SHOW)
    show.add_argument("path", type=Path, metavar="RUN|CHECKPOINT", help="the directory of a run or of a checkpoint")
    _add_proofs(command)
    return parser


def _add_proofs(command: Callable[[str, str, str], argparse.ArgumentParser]) -> None:
    verify = command("verify", "check all checkpoints of a run", _VERIFY)
    verify.add_argument("run", type=Path, metavar="RUN", help="a run's directory")

    diff = command("diff", "compare two checkpoints bit for bit", _DIFF)
    for name, metavar in (("left", "A"), ("right", "B")):
        diff.add_argument(name, type=Path, metavar=metavar, help="the directory of a run or of a checkpoint")

    replay = command("replay", "train again from a checkpoint, and compare", _REPLAY)
    replay.add_argument("checkpoint", type=Path, metavar="CHECKPOINT", help="a checkpoint's directory")
    replay.add_argument(
        "--steps", type=int, metavar="N", help="optimizer updates to train again (default: up to the next checkpoint)"
    )

    hunt = command("hunt", "find the first value that is not finite", _HUNT)
    hunt.add_argument("run", type=Path, metavar="RUN", help="a run's directory")
    hunt.add_argument("--checkpoint", metavar="NAME", help="begin with this one")
    hunt.add_argument("--steps", type=int, default=100, metavar="N", help="give up after N updates (default: 100)")


def _seconds(text: str) -> float:
    """Seconds from "90", "1:30" or "0:01:30"."""
    parts = text.split(":")
    try:
        seconds = sum(float(part) * 60**power for power, part in enumerate(reversed(parts)))
    except ValueError:
        seconds = 0.0
    if len(parts) > 3 or not 0 < seconds < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is no time: give seconds, MM:SS or HH:MM:SS")
    return seconds


class _Version(argparse.Action):
    """Looks the version up when asked."""

    def __init__(self, **options: Any) -> None:
        super().__init__(nargs=0, **options)

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        from importlib.metadata import version

        print(f"functrain {version('functrain')}")
        parser.exit()


def _rank() -> int:
    """This process's number among those that torchrun started, known before torch is loaded."""
    return int(os.environ.get("RANK", "0")) if int(os.environ.get("WORLD_SIZE", "1")) > 1 else 0


def _is_for_people(error: Exception) -> bool:
    """Whether an error is a message of ours. Anything else is a bug, ours or the user's, and needs its traceback."""
    if isinstance(error, (FunctrainError, OSError)):
        return True
    if not isinstance(error, (ValueError, TypeError, ModuleNotFoundError)):
        return False
    frames = traceback.extract_tb(error.__traceback__)
    return (
        bool(frames)
        and frames[-1].filename.startswith(_PACKAGE)
        and frames[-1].line is not None
        and (frames[-1].line.startswith("raise "))
    )


def _message(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror is not None:
        return f"{error.filename}: {error.strerror}" if error.filename is not None else error.strerror
    return str(error)


@contextmanager
def _warnings_for_people() -> Iterator[None]:
    """Warnings of ours in one line, without the place in the code; Python's own way for the others."""
    usual = warnings.showwarning

    def show(message: Any, category: Any, filename: str, lineno: int, file: Any = None, line: Any = None) -> None:
        if category.__module__.startswith("functrain.") or filename.startswith(_PACKAGE):
            if _rank() == 0:
                print(f"functrain: warning: {message}", file=sys.stderr)
        else:
            usual(message, category, filename, lineno, file, line)

    with warnings.catch_warnings():
        warnings.showwarning = show
        yield


def _quit(_number: int, _frame: FrameType | None) -> None:
    os.write(2, b"\nfunctrain: interrupted\n")
    os._exit(INTERRUPTED)


@contextmanager
def _interruptible_import() -> Iterator[None]:
    """Let Ctrl-C end the process at once while libraries load, which may swallow a KeyboardInterrupt."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = signal.signal(signal.SIGINT, _quit)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)
