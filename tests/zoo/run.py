"""Measure the zoo and write a record for each model as soon as it is there; a run that was broken off goes on.

    python tests/zoo/run.py RESULTS [--only TEXT] [--inductor]

RESULTS is a file of JSON lines. With --inductor the chosen models are compiled by inductor too.
"""

import argparse
import json
import time
import traceback
from importlib.metadata import version
from pathlib import Path

import torchvision_operators

torchvision_operators.define()

from architectures import CASES  # noqa: E402 - after the operators
from measuring import WAYS, measure, read  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("results", type=Path)
    parser.add_argument("--only", default="")
    parser.add_argument("--inductor", action="store_true")
    arguments = parser.parse_args()
    records = read(arguments.results)
    for name, case in CASES.items():
        done = records.get(name, {})
        wanted = [way for way in WAYS if way != "inductor" or (arguments.inductor and case.inductor)]
        ways = tuple(way for way in wanted if way not in done)
        if arguments.only not in name or not ways:
            continue
        started = time.perf_counter()
        try:
            found = measure(case, ways)
        except Exception as error:
            traceback.print_exc()
            found = dict.fromkeys(ways, f"failed: {type(error).__name__}: {str(error)[:300]}")
        record = {"name": name, "library": case.library, "version": version(case.library), **found}
        record["seconds"] = round(time.perf_counter() - started, 1)
        with arguments.results.open("a") as file:
            file.write(json.dumps(record) + "\n")
        print(json.dumps(record)[:300], flush=True)


if __name__ == "__main__":
    main()
