"""Kill the examples at random moments, compare bits, and write the table of docs/recipes/index.md.

    python tests/resume/example_kills.py                    each example is killed five times
    python tests/resume/example_kills.py "10_gan.py 12"     one of them, with an argument after its folder
    python tests/resume/example_kills.py 10_gan.py --dry    print, do not write the page

The rows of the table that are not written anew stay as they are.

An example takes part if its usage names a folder (see CONTRIBUTING.md). Each process is forked from one that has
imported everything, since importing takes longer than some runs.
"""

import argparse
import ast
import functools
import multiprocessing
import os
import random
import re
import runpy
import sys
import tempfile
import time
import warnings
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import torch
from stage_kills import kill

import functrain as ft
from functrain.checkpoint.reader import read_arrays
from functrain.step.execution import eager

EXAMPLES = Path(__file__).parents[2] / "examples"
PAGE = Path(__file__).parents[2] / "docs" / "recipes" / "index.md"
BEGIN, END = "<!-- example kills: written by tests/resume/example_kills.py -->", "<!-- end of the example kills -->"
USAGE = re.compile(r"Usage: python examples/\S+ \[folder\b")
PATIENCE = 3600  # seconds: machines under load take long
KILLS = 5

_context = multiprocessing.get_context("forkserver")


def examples() -> list[str]:
    """The examples that keep their state in a folder and go on with it."""
    documented = {path.name: ast.get_docstring(ast.parse(path.read_text())) or "" for path in EXAMPLES.glob("*.py")}
    return sorted(name for name, text in documented.items() if USAGE.search(text))


def train(name: str, folder: str, arguments: Sequence[str], compiled: bool) -> None:
    """What a process does: run an example in a folder of its own; what it prints goes to files.

    Args:
        name: of the example.
        folder: the process's working directory. The example gets "run", a folder in it.
        arguments: of the example, after the folder.
        compiled: whether `ft.compile` compiles. It takes longer than a short run, and each start repeats part of it.
    """
    os.chdir(folder)
    for descriptor, file in ((1, "printed.txt"), (2, "errors.txt")):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), descriptor)
    torch.set_num_threads(1)  # on a busy machine waiting for a second one takes 25 ms an operation
    if not compiled:
        ft.compile = lambda step: functools.partial(step, run=eager)
    sys.argv = [name, "run", *arguments]
    runpy.run_path(str(EXAMPLES / name), run_name="__main__")


def start(
    name: str, folder: Path, arguments: Sequence[str] = (), compiled: bool = True
) -> multiprocessing.process.BaseProcess:
    """Start or continue an example in a folder, in a process of its own."""
    _context.set_forkserver_preload(["torch", "functrain.loop.fit", "functrain.evaluation", "orbax.checkpoint"])
    folder.mkdir(exist_ok=True)
    process = _context.Process(target=train, args=(name, str(folder), tuple(arguments), compiled))
    process.start()
    return process


def finish(name: str, folder: Path, arguments: Sequence[str] = (), compiled: bool = True) -> None:
    """Continue an example to its end.

    Raises:
        RuntimeError: it fails.
    """
    process = start(name, folder, arguments, compiled)
    process.join(PATIENCE)
    if process.exitcode != 0:
        errors = (folder / "errors.txt").read_text()
        raise RuntimeError(f"{name} ended with code {process.exitcode}:\n{errors}")


def outcome(folder: Path) -> dict[str, object]:
    """What an example printed, the last checkpoints that it left, and the logs of its runs."""
    found: dict[str, object] = {"what it printed": (folder / "printed.txt").read_text()}
    for link in sorted(folder.rglob("last")):
        if link.is_symlink():
            found[str(link.relative_to(folder))] = {
                (group, path): leaf.contiguous().numpy().tobytes() if isinstance(leaf, torch.Tensor) else leaf
                for group, leaves in read_arrays(link).items()
                for path, leaf in leaves.items()
            }
    for log in sorted(folder.rglob("metrics.jsonl")):
        found[str(log.relative_to(folder))] = log.read_text()
    return found


def differing(one: Mapping[str, object], other: Mapping[str, object]) -> list[str]:
    """The parts of two outcomes that are not equal, or that one of them lacks."""
    return [part for part in sorted({*one, *other}) if one.get(part) != other.get(part)]


class Killed(NamedTuple):
    """An example that was killed.

    Attributes:
        seconds: that it takes if nothing kills it.
        kills: that landed before its end.
        wrong: what differs from the one that was not killed.
    """

    name: str
    seconds: float
    kills: int
    wrong: list[str]


def killed(
    name: str, count: int = KILLS, seed: int = 0, arguments: Sequence[str] = (), compiled: bool = True
) -> Killed:
    """Kill an example so many times at random moments; one that ends before is begun anew."""
    dice, landed, wrong = random.Random(f"{seed} {name}"), 0, []
    with tempfile.TemporaryDirectory() as scratch:
        whole = Path(scratch, "whole")
        finish(name, Path(scratch, "first"), arguments, compiled)  # starts the server, and fills the cache of programs
        begun = time.perf_counter()
        finish(name, whole, arguments, compiled)
        seconds = time.perf_counter() - begun
        expected = outcome(whole)
        if len(expected) == 1:
            wrong.append("it left no checkpoint `last` in its folder")
        runs = 0
        while landed < count:
            folder, runs = Path(scratch, f"run-{runs}"), runs + 1
            longest = 2 * seconds / (count + 1)  # so that most kills come before the run's end
            while landed < count and kill(start(name, folder, arguments, compiled), dice.uniform(0.0, longest)):
                landed += 1
            finish(name, folder, arguments, compiled)
            wrong += [f"run {runs}: {part}" for part in differing(expected, outcome(folder))]
    return Killed(name, seconds, landed, wrong)


def main() -> int:
    """Write the table; returns 1 if bits differ."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("examples", nargs="*", default=examples(), help="a name, or a name and arguments in quotes")
    parser.add_argument("--kills", type=int, default=KILLS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--dry", action="store_true")
    options = parser.parse_args()
    wrong = []
    for asked in options.examples:
        name, *arguments = asked.split()
        found = killed(name, options.kills, options.seed, arguments)
        row = f"| `{asked}` | {found.seconds:.0f} | {found.kills} | {len(found.wrong)} | {datetime.now(UTC):%Y-%m-%d} |"
        wrong += found.wrong
        print(row, *found.wrong, sep="\n", flush=True)
        if not options.dry:
            PAGE.write_text(with_rows(PAGE.read_text(), [row]))
    return 1 if wrong else 0


def with_rows(page: str, rows: Sequence[str]) -> str:
    """The page with these rows of the table in place of those of the same examples, all in the order of their names.

    Example:
        >>> page = f"a\\n{BEGIN}\\n| `2.py` | 1 |\\n| `1.py` | 1 |\\n{END}\\nb"
        >>> [line for line in with_rows(page, ["| `2.py 3` | 4 |"]).splitlines() if line.startswith("| `")]
        ['| `1.py` | 1 |', '| `2.py 3` | 4 |']
    """
    before, _, rest = page.partition(BEGIN)
    table, _, behind = rest.partition(END)
    found = {example_of(row): row for row in [*table.splitlines(), *rows] if row.startswith("| `")}
    lines = [BEGIN, "| example | seconds | kills | differences | date |", "|---|---:|---:|---:|---|"]
    return before + "\n".join([*lines, *(found[name] for name in sorted(found)), END]) + behind


def example_of(row: str) -> str:
    """The example of a row, without its arguments."""
    return row.split("`")[1].split()[0]


if __name__ == "__main__":
    warnings.simplefilter("ignore")  # of what is imported
    raise SystemExit(main())
