"""Write docs/zoo.md from the records of `run.py`.

python tests/zoo/table.py RESULTS
"""

import re
import sys
from collections import Counter
from pathlib import Path

from architectures import CASES
from measuring import read

PAGE = Path(__file__).parents[2] / "docs" / "zoo.md"
WAYS = {"eager": "Eager", "aot_eager": "Traced", "inductor": "By inductor"}
HEAD = """# The zoo

Models of other libraries, each trained for three updates by functrain and by a loop in plain torch, with the same
weights, batch, seeds and optimizer (SGD with momentum and weight decay), in float64. The table says how far the
parameters and buffers are apart afterwards: the largest difference, relative where a tensor is larger than 1. How to
train such models: [models of other libraries](models-of-others.md). `make test-zoo` measures again; this page is
written by `tests/zoo/table.py` from the records of `tests/zoo/run.py`.

How the models were chosen: before functrain was tried on them, from those that have a small configuration which runs
in plain torch. A first measurement of a part of the list found faults of functrain, which were mended. No model was
taken off the list for its result, but ProphetNet, whose loss is NaN with these sizes in plain torch too. Layers of
torch_geometric were added afterwards, some a second time with `add_self_loops` switched off, since they were refused
as they are. The list is a sample of small models: the counts hold for it, not for the libraries.

{summary}

Steps run eagerly, traced (`aot_eager`), and, of some models, compiled by inductor. Many models of transformers compute
norms, softmax, rotary angles or the loss in float32, whatever their parameters are. functrain differentiates the sum of
the losses and divides by their number afterwards, which rounds differently there than differentiating their mean:
float32's 6e-8, times the learning rate of 0.01, times a few for sums and steps. {tolerances}

| architecture | library | parameters | eager | aot_eager | inductor |
|---|---|---|---|---|---|
"""
REFUSED = """
## What is refused

With `compile=False` these train as the table's eager column says.

| architecture | the message |
|---|---|
"""


def main(results: Path) -> None:
    records = {name: record for name, record in read(results).items() if name in CASES}
    for name in CASES.keys() - records.keys():
        print(f"not measured: {name}", file=sys.stderr)
    rows, refusals = [], {}
    for name, case in CASES.items():
        if (record := records.get(name)) is None:
            continue
        cells = [_cell(record.get(way)) for way in WAYS]
        if texts := [text for text in map(record.get, WAYS) if isinstance(text, str)]:
            refusals[name] = texts[0]
        title = name.removeprefix(f"{case.library} ")
        library = f"{case.library} {record['version']}"
        rows.append(f"| {title} | {library} | {record.get('parameters', 0):,} | {' | '.join(cells)} |")
    refused = [f"| {name} | {_one_line(text)} |" for name, text in refusals.items()]
    PAGE.write_text(_head(records) + "\n".join(rows) + "\n" + (REFUSED + "\n".join(refused) + "\n" if refused else ""))


def _head(records: dict) -> str:
    summary = [f"{len(records)} of {len(CASES)} architectures."]
    if len(records) < len(CASES):
        summary.append("The others of the list are still to be measured.")
    for way, label in WAYS.items():
        found = {name: record[way] for name, record in records.items() if way in record}
        if found:
            kinds = Counter(_kind(value, CASES[name].tolerance) for name, value in found.items())
            parts = [f"{count} {kind}" for kind, count in sorted(kinds.items())]
            largest = max((value for value in found.values() if not isinstance(value, str)), default=0)
            commits = Counter(records[name]["commits"][way] for name in found)
            measured = ", ".join(f"{commit} ({count})" for commit, count in commits.items())
            summary.append(
                f"{label}: {', '.join(parts)} of {len(found)}; the largest difference is {largest:.1e}; "
                f"measured at commit {measured}."
            )
    reasons = "; ".join(f"{name}, {case.tolerance:.0e}: {case.reason}" for name, case in CASES.items() if case.reason)
    allowed = f"More than 1e-8 is allowed to: {reasons}." if reasons else "No model is allowed more than 1e-8."
    return HEAD.format(summary=" ".join(summary), tolerances=allowed)


def _kind(value: float | str, tolerance: float) -> str:
    """What became of a model."""
    if isinstance(value, str):
        return "failed" if value.startswith("failed") else "refused"
    return "agree" if value <= tolerance else "differ"


def _cell(value: float | str | None) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return _kind(value, 0)
    return "0" if value == 0 else f"{value:.0e}"


def _one_line(message: str) -> str:
    """A message for a table's cell, without the paths of this machine."""
    return " ".join(re.sub(r"[^ ]*site-packages/", "", message).replace("|", "/").split())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
