"""Kill the run of three stages at random moments, compare bits, and write the table of docs/stages.md.

    python tests/resume/stage_kills.py                50 kills
    python tests/resume/stage_kills.py --kills 10 --dry   fewer; print, do not write the page

Each process is forked from one that has imported everything, since importing takes longer than the run.
"""

import argparse
import multiprocessing
import os
import random
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import torch

from functrain.checkpoint.reader import read_arrays

PAGE = Path(__file__).parents[2] / "docs" / "stages.md"
BEGIN, END = "<!-- stage kills: written by tests/resume/stage_kills.py -->", "<!-- end of the stage kills -->"
PATIENCE = 600  # seconds: machines under load take long
STAGES = ("pretrain", "dense", "finetune")
CONFIG = """\
name: killed
model: {name: encoder_decoder, width: 2, depth: 1, out_channels: 11}
data: {name: segmented_digits, batch_size: 128}
objective: {name: segmentation}
optimizer: {name: adamw, lr: 1e-3, schedule: {name: cosine}}
training: {epochs: 4, ema_decay: 0.9}
checkpoint: {save_every: 5}
logging: {log_every: 1}
compile: false
stages:
  pretrain:
    model: {out_channels: 1}
    data: {name: masked_digits}
    objective: {name: regression}
  dense:
    init_from: {stage: pretrain, which: best, new: [head.*]}
    freeze: [encoder.*]
    data: {fraction: 0.5}
  finetune:
    init_from: {stage: dense, which: last}
    training: {accumulate: 2}
"""

_context = multiprocessing.get_context("forkserver")


def train(folder: str) -> None:
    """What a process does: train all stages in a folder."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.dup2(null, 2)
    os.chdir(folder)
    torch.set_num_threads(1)
    from functrain.app.cli import main

    raise SystemExit(main(["train", "killed.yaml", "--all-stages", "--no-progress"]))


def start(folder: Path, config: str = CONFIG) -> multiprocessing.process.BaseProcess:
    """Start or continue the run of a configuration in a folder, in a process of its own."""
    _context.set_forkserver_preload(["torch", "functrain.app.runs.stages", "orbax.checkpoint", "matplotlib.pyplot"])
    (folder / "killed.yaml").write_text(config)
    process = _context.Process(target=train, args=(str(folder),))
    process.start()
    return process


def finish(folder: Path, config: str = CONFIG) -> None:
    """Continue the run to its end.

    Raises:
        RuntimeError: it fails.
    """
    process = start(folder, config)
    process.join(PATIENCE)
    if process.exitcode != 0:
        raise RuntimeError(f"the run in {folder} ended with code {process.exitcode}")


def kill(process: multiprocessing.process.BaseProcess, seconds: float) -> bool:
    """Kill a process after a time; whether it was still at work.

    Raises:
        RuntimeError: it had ended with an error.
    """
    process.join(seconds)
    if process.exitcode is None:
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        process.join()
    if process.exitcode not in (0, -signal.SIGKILL):
        raise RuntimeError(f"the run ended with code {process.exitcode}")
    return process.exitcode != 0


def outcome(folder: Path) -> dict[str, object]:
    """All that the stages leave behind that must not depend on kills."""
    found: dict[str, object] = {"stages": (folder / "runs/killed/stages.yaml").read_text().rpartition("# ")[0]}
    for stage in STAGES:
        run = folder / "runs/killed" / stage
        for link in ("last", "best"):
            found[f"{stage}, {link}"] = _bits(run / "checkpoints" / link)
        for name in ("metrics.jsonl", "metrics.csv", "ancestry.json", "README.md", "test/metrics.json"):
            found[f"{stage}, {name}"] = (run / name).read_text() if (run / name).is_file() else None
    return found


def differing(one: Mapping[str, object], other: Mapping[str, object]) -> list[str]:
    """The parts of two outcomes that are not equal."""
    return [part for part in one if one[part] != other[part]]


def stage_of(folder: Path) -> str:
    """The stage that a run that was killed is in."""
    begun = [stage for stage in STAGES if (folder / "runs/killed" / stage / "config.yaml").is_file()]
    return begun[-1] if begun else "before the first"


def _bits(checkpoint: Path) -> dict[tuple[str, str], object]:
    return {
        (group, path): leaf.contiguous().numpy().tobytes() if isinstance(leaf, torch.Tensor) else leaf
        for group, leaves in read_arrays(checkpoint).items()
        for path, leaf in leaves.items()
    }


def kills(count: int, seed: int) -> tuple[Counter[str], int, list[str]]:
    """Kill runs until so many kills have landed.

    Returns:
        The kills by stage, the number of runs, and what differs from the run that was not killed.
    """
    dice, landed, runs, wrong = random.Random(seed), Counter[str](), 0, []
    with tempfile.TemporaryDirectory() as scratch:
        whole = Path(scratch, "whole")
        whole.mkdir()
        finish(whole)  # starts the server, too
        expected = outcome(whole)
        again = Path(scratch, "again")
        again.mkdir()
        begun = time.perf_counter()
        finish(again)
        length = time.perf_counter() - begun
        wrong += differing(expected, outcome(again))
        while landed.total() < count:
            runs += 1
            folder = Path(scratch, f"run-{runs}")
            folder.mkdir()
            while landed.total() < count and kill(start(folder), dice.uniform(0.0, 0.25 * length)):
                landed[stage_of(folder)] += 1
            finish(folder)
            wrong += [f"run {runs}: {part}" for part in differing(expected, outcome(folder))]
            print(f"run {runs}: {landed.total()} kills so far, {len(wrong)} differences", flush=True)
    return landed, runs, wrong


def main() -> int:
    """Write the table; returns 1 if bits differ."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--dry", action="store_true")
    options = parser.parse_args()
    landed, runs, wrong = kills(options.kills, options.seed)
    lines = [
        f"{landed.total()} kills (SIGKILL at a random time, seed {options.seed}) in {runs} runs of three stages, "
        f"{datetime.now(UTC):%Y-%m-%d}, torch {torch.__version__}:",
        "",
        "| killed in | kills |",
        "|---|---:|",
        *(f"| {stage} | {landed[stage]} |" for stage in ("before the first", *STAGES)),
        "",
        f"Runs whose bits differ from those of the run that was not killed: {len(wrong)}.",
    ]
    print("\n".join([*lines, *wrong]))
    if not options.dry:
        before, _, rest = PAGE.read_text().partition(BEGIN)
        PAGE.write_text("\n".join([f"{before}{BEGIN}", *lines, f"{END}{rest.partition(END)[2]}"]))
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
