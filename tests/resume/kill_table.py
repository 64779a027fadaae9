"""Kill training runs many times, compare bits, and write the table of docs/resume.md.

    python tests/resume/kill_table.py                  all settings, 28 kills each: about an hour on two cores
    python tests/resume/kill_table.py --kills 4 --only fp16 --dry

The seed is printed; the same seed sends the same signals after the same delays.
"""

import argparse
import platform
import random
import signal
import tempfile
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import torch
from killing import CODES, MORE_SETTINGS, SETTINGS, finish, outcome, run_with_kills, start

PAGE = Path(__file__).parents[2] / "docs" / "resume.md"
BEGIN, END = "<!-- kill table: written by make kill-table -->", "<!-- end of the kill table -->"
AT_ONCE = 4  # kills in one run, one with each signal


def rows_of(name: str, options: tuple[str, ...], kills: int, seed: int) -> tuple[str, int, int]:
    """A row of the table, the kills that found a process at work, and the runs that ended with other bits."""
    dice = random.Random(f"{seed} {name}")
    counts: Counter[signal.Signals] = Counter()
    landed = lost = 0
    with tempfile.TemporaryDirectory() as folder:
        whole_dir = Path(folder) / "whole"
        assert finish(start(whole_dir, (*options, "sleep=0"))) == 0
        whole = outcome(whole_dir)
        for number in range(-(-kills // AT_ONCE)):
            signals = dice.sample(list(CODES), AT_ONCE)
            run_dir = Path(folder) / f"killed-{number}"
            landed += run_with_kills(run_dir, options, signals, dice)
            counts.update(signals)
            differs = outcome(run_dir) != whole
            lost += differs
            print(f"{name}: {(number + 1) * AT_ONCE} kills, {lost} runs lost", flush=True)
    return f"| {name} | {number + 1} | {landed} | {lost} |", landed, lost


def main() -> int:
    """Run, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=28, help="for each setting")
    parser.add_argument("--only", default="", help="settings whose name contains this")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--dry", action="store_true", help="print, do not write the page")
    given = parser.parse_args()
    chosen = {name: options for name, options in (SETTINGS | MORE_SETTINGS).items() if given.only in name}
    results = [rows_of(name, options, given.kills, given.seed) for name, options in chosen.items()]
    landed, lost = sum(result[1] for result in results), sum(result[2] for result in results)
    table = [
        f"Of {datetime.now(UTC):%Y-%m-%d}, torch {torch.__version__}, {platform.machine()}, seed {given.seed}: "
        f"{landed} kills, {lost} runs that ended with other bits.",
        "",
        "| setting | runs | kills | runs with other bits |",
        "|---|---:|---:|---:|",
        *[result[0] for result in results],
    ]
    print("\n".join(table))
    if not given.dry:
        text = PAGE.read_text()
        before, after = text[: text.index(BEGIN) + len(BEGIN)], text[text.index(END) :]
        PAGE.write_text("\n".join([before, *table, after]))
    return 1 if lost else 0


if __name__ == "__main__":
    raise SystemExit(main())
