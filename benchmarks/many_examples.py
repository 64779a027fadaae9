"""An evaluation report of 1,000,000 examples: time, peak memory, and whether kills change a file.

python -m benchmarks.many_examples [--examples 1000000] [--classes 1 10 100] [--kills 3]

Each line is a process of its own. Its memory is that above what it holds with the data loaded, before the report. With
kills, the processes of a second evaluation are killed at random moments, until one ends; its files are compared.
"""

import argparse
import hashlib
import itertools
import json
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

import functrain as ft
from functrain.data import Arrays, Loader

FEATURES, BATCH = 16, 1000


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--examples", type=int, default=1_000_000)
    parser.add_argument("--classes", type=int, nargs="+", default=[1, 10, 100])
    parser.add_argument("--kills", type=int, default=0)
    parser.add_argument("--one", metavar="FOLDER", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(_report(arguments.examples, arguments.classes[0], Path(arguments.one))))
        return
    print(
        "| classes | computed, s | reported, s | written, s | MB above the data | files after kills |\n"
        + "|---" * 6
        + "|"
    )
    for classes in arguments.classes:
        with tempfile.TemporaryDirectory() as folder:
            found = json.loads(_started(arguments.examples, classes, Path(folder, "whole")).communicate()[0])
            kills = _killed(arguments, classes, Path(folder), sum(found["seconds"])) if arguments.kills else ""
        seconds = " | ".join(f"{value:.1f}" for value in found["seconds"])
        print(f"| {classes} | {seconds} | {found['mb']:.0f} | {kills} |", flush=True)


def _started(examples: int, classes: int, folder: Path) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", "benchmarks.many_examples", "--one", str(folder)]
    sizes = ["--examples", str(examples), "--classes", str(classes)]
    return subprocess.Popen([*command, *sizes], stdout=subprocess.PIPE)


def _killed(arguments: argparse.Namespace, classes: int, folder: Path, seconds: float) -> str:
    moments = random.Random(0)
    for _ in range(arguments.kills):
        process = _started(arguments.examples, classes, folder / "killed")
        try:
            process.wait(5 + moments.random() * seconds)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
        process.communicate()
    _started(arguments.examples, classes, folder / "killed").communicate()
    whole, again = (_digests(folder / name / "test") for name in ("whole", "killed"))
    return f"{len(whole)} identical" if whole == again else f"DIFFERENT: {sorted(dict(whole.items() ^ again.items()))}"


def _digests(folder: Path) -> dict[str, str]:
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def _report(examples: int, classes: int, folder: Path) -> dict[str, object]:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(FEATURES, 32), torch.nn.ReLU(), torch.nn.Linear(32, classes))
    objective = ft.classification() if classes > 1 else ft.binary_classification()
    state = ft.init_state(model, objective, ft.optim.sgd(0.1))
    inputs = torch.randn(examples, FEATURES)
    targets = torch.randint(0, max(classes, 2), (examples,))
    loader = Loader(Arrays(inputs, targets if classes > 1 else targets[:, None].float()), batch_size=BATCH)
    before, times = _peak(), [time.perf_counter()]
    ft.evaluation_report(state, Loader(Arrays(inputs[:BATCH], loader.dataset.tensors[1][:BATCH]), batch_size=BATCH))
    times[0] = time.perf_counter()
    for _ in ft.evaluation.prediction.answers(state, loader, ema=False, compile=False, with_targets=True):
        pass
    times.append(time.perf_counter())
    report = ft.evaluation_report(state, loader, keep=folder / "kept")
    times.append(time.perf_counter())
    ft.write_report(report, folder / "test")
    times.append(time.perf_counter())
    computed, reported, written = (after - first for first, after in itertools.pairwise(times))
    return {"seconds": [computed, reported - computed, written], "mb": _peak() - before}


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1024 if sys.platform != "darwin" else 1) / 1e6


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "2")
    main()
