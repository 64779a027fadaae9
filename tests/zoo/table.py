"""Write docs/zoo.md from the records of `run.py`.

python tests/zoo/table.py RESULTS
"""

import re
import sys
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

These are the models that were measured so far, and they were chosen after a first measurement: models that failed or
differed then are not among them. So the counts below hold for this selection, not for the libraries. No model was
compiled by inductor yet.

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
    summary = [f"{len(records)} architectures."]
    for way, label in WAYS.items():
        given = [record[way] for record in records.values() if record.get(way) is not None]
        numbers = [value for value in given if not isinstance(value, str)]
        if given:
            summary.append(
                f"{label}: {len(numbers)} of {len(given)} agree, to {max(numbers, default=0):.1e} or better."
            )
    reasons = "; ".join(f"{name}, {case.tolerance:.0e}: {case.reason}" for name, case in CASES.items() if case.reason)
    allowed = f"More than 1e-8 is allowed to: {reasons}." if reasons else "No model is allowed more than 1e-8."
    return HEAD.format(summary=" ".join(summary), tolerances=allowed)


def _cell(value: float | str | None) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return "failed" if value.startswith("failed") else "refused"
    return "0" if value == 0 else f"{value:.0e}"


def _one_line(message: str) -> str:
    """A message for a table's cell, without the paths of this machine."""
    return " ".join(re.sub(r"[^ ]*site-packages/", "", message).replace("|", "/").split())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
