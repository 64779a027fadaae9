"""The command line.

Exit codes: 0 for success; 1 if `verify`, `diff`, `replay`, `hunt`, `reproduce`, `bisect` or `doctor` found something,
or a member of a `sweep` failed; 2 for an error that the user can mend, with one message; 75 when --max-time is over;
128 + signal after an interruption; 141 when the reader of the output (`| head`) has gone. `train` and `sweep` go on
without their reader.
"""

import argparse
import io
import os
import re
import signal
import sys
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from functrain.app.interruption import Interruption
from functrain.app.launching.reports import reported
from functrain.app.output import lasting
from functrain.app.parser import COMMANDS, build_parser
from functrain.foundation.errors import FunctrainError
from functrain.foundation.printing import printable

USER_ERROR = 2
WIDTH_OF_FILES = 120  # of output that goes into a file or pipe
_PACKAGE = str(Path(__file__).parents[1]) + os.sep


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
    for stream in (sys.stdout, sys.stderr):  # a path may have characters that the terminal's encoding lacks
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    with lasting("stderr"):
        interruption = Interruption(is_the_process=argv is None, quiet=_rank() > 0)
        return interruption.run(lambda: _to_its_reader(lambda: _main(_parse(argv), interruption)))


def _to_its_reader(command: Callable[[], int]) -> int:
    """Run a command to its last line of output. Return 141, as after SIGPIPE, if the reader of the output has gone."""
    try:
        code = command()
    except BrokenPipeError as error:
        return _unwritten(error)
    except SystemExit:  # --help, --version
        if (problem := _flushed()) is not None:
            return _unwritten(problem)
        raise
    return code if (problem := _flushed()) is None else _unwritten(problem)


def _flushed() -> OSError | None:
    """Write out the buffered output; returns the error that prevents it."""
    try:
        if sys.stdout is not None:  # closed from the start
            sys.stdout.flush()
    except OSError as error:
        return error
    return None


def _unwritten(error: OSError) -> int:
    """The exit code. The rest of the buffer is dropped, since Python would report it when it exits."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    if isinstance(error, BrokenPipeError):
        return 128 + signal.SIGPIPE
    print(f"functrain: error: standard output cannot be written: {error.strerror}", file=sys.stderr)
    return USER_ERROR


def _main(arguments: argparse.Namespace, interruption: Interruption) -> int:
    try:
        with _warnings_for_people(), lasting(*["stdout"] * (arguments.command in ("train", "sweep"))):
            return _run(arguments, interruption)
    except BrokenPipeError:  # the reader of the output, such as `head`, has seen enough
        raise
    except Exception as error:
        if arguments.debug or interruption.came or not _is_for_people(error):
            raise
        # Nearly always rank 0 says the same, but a disk may be full where another rank is.
        rank = f" (rank {_rank()})" if _rank() else ""
        if not reported(_message(error), error):
            print(f"functrain{rank}: error: {_message(error)}", file=sys.stderr)
        return USER_ERROR


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """As `parse_args`, but options may stand between the overrides; argparse does not allow that with commands."""
    parser, commands = build_parser()
    given = list(sys.argv[1:] if argv is None else argv)
    first = next((text for text in given if not text.startswith("-")), None)
    if first is not None and first not in commands:
        from functrain.app.config.suggestions import did_you_mean

        parser.error(f"there is no command {first!r}{did_you_mean(first, commands)} commands: {', '.join(commands)}")
    if first is None and not {"-h", "--help", "--version"} & set(given):
        stranger = next((text for text in given if text != "--debug"), None)
        what = "a command is missing" if stranger is None else f"there is no option {stranger} without a command"
        parser.error(f"{what}; commands: {', '.join(commands)}")
    arguments, rest = parser.parse_known_args(given)
    arguments.given = given
    command, takes_overrides = commands[arguments.command], hasattr(arguments, "overrides")
    strangers = [text for text in rest if text.startswith("-") or not takes_overrides]
    if strangers:
        command.error(_unknown(strangers[0], given, arguments.command, command, takes_overrides))
    if takes_overrides:
        arguments.overrides = [*arguments.overrides, *rest]
    find = COMMANDS[arguments.command].mistake
    wrong = None if find is None else find(arguments)
    if wrong is not None:
        command.error(wrong)
    return arguments


def _unknown(
    stranger: str, given: Sequence[str], name: str, command: argparse.ArgumentParser, takes_overrides: bool
) -> str:
    """The message for an argument that a command does not know, with the likely meaning."""
    from functrain.app.config.suggestions import did_you_mean, home_of

    option, equals, value = stranger.partition("=")
    if not option.startswith("-"):
        return f"{name} takes no further argument {stranger!r}"
    home = home_of(option.strip("-")) if takes_overrides else None
    if home is not None:
        following = given[given.index(stranger) + 1 :]
        if not equals and following and not following[0].startswith("-") and "=" not in following[0]:
            value = following[0]
        return f"{name} has no option {option}; settings of the configuration are written {home}={value or '...'}"
    options = re.findall(r"--[a-z-]+", command.format_help())
    return f"{name} has no option {option}{did_you_mean(option, options)} see functrain {name} --help"


def _run(arguments: argparse.Namespace, interruption: Interruption) -> int:
    command = COMMANDS[arguments.command]
    interruption.at_once(True)
    if command.lines is not None:
        return _print_lines(command.lines(arguments))
    if _processes() > 1 and not command.shares:
        if _rank() == 0:
            print(f"functrain: error: {command.name} runs in one process; start it without torchrun", file=sys.stderr)
        return USER_ERROR
    from functrain.app.screen import Screen

    assert command.run is not None
    interruption.at_once(False)
    console = Screen(highlight=False, quiet=_rank() > 0)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = WIDTH_OF_FILES
    return command.run(arguments, console)


def _print_lines(lines: Iterable[str]) -> int:
    """Print them as they come; returns the exit code, which a generator may return."""
    remaining = iter(lines)
    while True:
        try:
            line = next(remaining)
        except StopIteration as end:
            return end.value or 0
        if _rank() == 0:
            print(printable(line))


def _rank() -> int:
    """The rank of this process under torchrun, known before torch is imported."""
    return int(os.environ.get("RANK", "0")) if _processes() > 1 else 0


def _processes() -> int:
    """How many processes torchrun has started."""
    return int(os.environ.get("WORLD_SIZE", "1"))


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
    return printable(str(error))


@contextmanager
def _warnings_for_people() -> Iterator[None]:
    """Show functrain's warnings in one line, without the place in the code, and others in Python's own way."""
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
