"""Measure the zoo and write a record for each model as soon as it is there.

    python tests/zoo/run.py RESULTS [--only TEXT] [--ways eager,aot_eager,inductor]

RESULTS is a file of JSON lines. A run that was broken off goes on: what was measured with the same code of
functrain is left out. Only the models chosen for it are compiled by inductor.
"""

import argparse
import json
import subprocess
import time
import traceback
from importlib.metadata import version
from pathlib import Path

import torchvision_operators

torchvision_operators.define()

from architectures import BY_INDUCTOR, CASES  # noqa: E402 - after the operators
from measuring import WAYS, measure, read  # noqa: E402

import functrain  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("results", type=Path)
    parser.add_argument("--only", default="")
    parser.add_argument("--ways", default=",".join(WAYS))
    arguments = parser.parse_args()
    commit = _commit()
    records = read(arguments.results)
    for name, case in CASES.items():
        done = [way for way, at in records.get(name, {"commits": {}})["commits"].items() if at == commit]
        wanted = [way for way in arguments.ways.split(",") if way != "inductor" or name in BY_INDUCTOR]
        ways = tuple(way for way in wanted if way not in done)
        if arguments.only not in name or not ways:
            continue
        started = time.perf_counter()
        try:
            found = measure(case, ways)
        except Exception as error:
            traceback.print_exc()
            found = dict.fromkeys(ways, f"failed: {type(error).__name__}: {str(error)[:300]}")
        record = {"name": name, "library": case.library, "version": version(case.library), "commit": commit, **found}
        record["seconds"] = round(time.perf_counter() - started, 1)
        with arguments.results.open("a") as file:
            file.write(json.dumps(record) + "\n")
        print(json.dumps(record)[:300], flush=True)


def _commit() -> str:
    """The last commit that changed functrain's code; with a mark if files differ from it."""
    code = Path(functrain.__file__).parent

    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments, code], cwd=code, capture_output=True, text=True, check=True).stdout

    return git("log", "-1", "--format=%h", "--abbrev=12", "--").strip() + "-changed" * bool(
        git("status", "--short", "--")
    )


if __name__ == "__main__":
    main()
