"""Time per step, and of the start, beside other trainers.   Usage: python -m benchmarks.peers [--rounds N] ...

`make bench-peers` runs this in an environment of its own (constraints.txt beside this file). A peer that is not
installed is listed as absent.
"""

import argparse
import sys
from collections.abc import Iterable
from datetime import date
from pathlib import Path

from benchmarks.machine import load
from benchmarks.peers import evaluating
from benchmarks.peers.contestant import EVALUATIONS, LOADERS, STARTS, WAYS
from benchmarks.peers.judge import compete, installed
from benchmarks.peers.networks import NETWORKS
from benchmarks.peers.report import STEP, draw, markdown
from benchmarks.peers.starting import STARTED, section, starts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS), metavar="NETWORK")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS), metavar="WAY", help="; ".join(WAYS))
    parser.add_argument(
        "--steps", type=int, help="a round's steps, where not each network's own number (to try it out)"
    )
    parser.add_argument("--starts", type=int, default=3, help="warm starts of each way after a cold one; 0: no starts")
    parser.add_argument("--passes", type=int, default=5, help="rounds of evaluations and of own loaders; 0: none")
    parser.add_argument("--out", type=Path, metavar="DIR", help="write DATE-peers.md and DATE-peers.svg there")
    arguments = parser.parse_args()
    if arguments.rounds < 1 or (arguments.steps is not None and arguments.steps < 1):
        parser.error("--rounds and --steps must be at least 1")
    busy = load()
    present = [way for way in arguments.ways if installed(way)]
    absent = [way for way in arguments.ways if not installed(way)]
    times = {
        name: compete(name, present, arguments.rounds, arguments.steps or NETWORKS[name].steps, say)
        for name in arguments.networks
    }
    starting = [way for way in (*present, *STARTS) if way != STEP and installed(way)] if arguments.starts else []
    started = {
        name: starts(name, starting, arguments.starts, say)
        for name in STARTED
        if name in arguments.networks and starting
    }
    more = [] if arguments.passes == 0 else _passes(arguments)
    plot = None
    if arguments.out is not None:
        arguments.out.mkdir(parents=True, exist_ok=True)
        plot = f"{date.today()}-peers.svg"
        draw(times, arguments.out / plot)
    text = markdown(times, arguments.rounds, arguments.steps, absent, plot, busy)
    text += "\n".join([*section(started), ""]) if started else ""
    text += "\n".join([*more, ""]) if more else ""
    print(text)
    if arguments.out is not None:
        (arguments.out / f"{date.today()}-peers.md").write_text("# Beside other trainers\n\n" + text)


def _passes(arguments: argparse.Namespace) -> list[str]:
    """The lines about evaluations, and about training from loaders of one's own."""

    def timed(name: str, ways: Iterable[str]) -> dict[str, list[float]]:
        present = [way for way in ways if installed(way)]
        return compete(name, present, arguments.passes, arguments.steps or NETWORKS[name].steps, say)

    evaluated = {name: timed(name, EVALUATIONS) for name in evaluating.EVALUATED if name in arguments.networks}
    lines = list(evaluating.section("Evaluation", "Mean loss and accuracy; of HF Trainer the loss.", evaluated))
    if evaluating.LOADED in arguments.networks:
        loaded = {kind: timed(evaluating.LOADED, _of(kind)) for kind in evaluating.KINDS}
        text = f"Training steps: {NETWORKS[evaluating.LOADED].title}."
        lines += evaluating.section("Loaders of one's own", text, loaded)
    return lines


def _of(kind: str) -> list[str]:
    return [way for way in LOADERS if way.startswith(f"{kind}: ")]


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
