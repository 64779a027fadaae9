"""Evaluate a run in processes that are killed at given moments, and print what they left: for test_killed_evaluation.

Usage: python killed_evaluations.py FOLDER. This process imports all that an evaluation needs and forks the others.
"""

import hashlib
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import torch

from functrain.app.cli import main
from functrain.app.runs import evaluation, training  # noqa: F401 - for the processes to be forked
from functrain.checkpoint import orbax_io
from functrain.evaluation import kept_rows, panels

CONFIG = """
model: {name: "killed_project:net"}
data: {name: "killed_project:points", batch_size: 4}
objective: {name: binary_classification}
optimizer: {name: adamw, lr: 1e-2}
training: {epochs: 1, ema_decay: 0.5}
compile: false
"""

CODE = """
import torch

reads = 0
at_read = lambda number: None

class Points:
    def __init__(self, inputs):
        self.inputs = inputs

    def __len__(self):
        return len(self.inputs)

    def __getitem__(self, number):
        global reads
        reads += 1
        at_read(reads)
        return self.inputs[number], (self.inputs[number].sum(0, keepdim=True) > 0).float()

def net():
    return torch.nn.Linear(2, 1)

def points(split):
    return Points(torch.randn(40, 2, generator=torch.Generator().manual_seed(len(split))))
"""


def forked(work: Callable[[], int]) -> int:
    """Do it in a process; returns its exit code, or minus the signal that ended it."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            code = work()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def evaluated(read: int | None = None, replaced: int | None = None) -> int:
    """`functrain evaluate`, which is killed at the given read of an example, or before the given file is put in place.

    The file `reads` says how often examples were read.
    """
    import killed_project

    def at_read(number: int) -> None:
        if number == read:
            os.kill(os.getpid(), signal.SIGKILL)

    moves, replace = 0, os.replace

    def counted_replace(source: str, target: str) -> None:
        nonlocal moves
        in_place = not any(part.startswith(".") for part in Path(target).parts)
        moves += in_place
        if in_place and moves == replaced:
            os.kill(os.getpid(), signal.SIGKILL)
        replace(source, target)

    killed_project.at_read, os.replace = at_read, counted_replace
    code = main(["evaluate", "run", "--trust"])
    Path("reads").write_text(str(killed_project.reads))
    return code


def digests(folder: Path) -> tuple[dict[str, str], list[str]]:
    """The digest of each file under its final name, and what hides in folders."""
    paths = [path for path in folder.rglob("*") if path.is_file()]
    hidden = [str(path) for path in paths if any(part.startswith(".") for part in path.parts)]
    shown = [path for path in paths if str(path) not in hidden]
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in shown}, hidden


def found() -> dict[str, str]:
    """The digest of each file of the report."""
    return digests(Path("run/test"))[0]


def hidden() -> list[str]:
    """What else is in the folder."""
    return [str(path) for path in Path("run/test").iterdir() if path.name.startswith(".")]


def written(panel: object, path: Path, *_: object) -> Path:
    """A figure's file, without drawing it."""
    path.write_text(repr(panel))
    return path


def run(folder: str) -> None:
    os.chdir(folder)
    sys.path.insert(0, os.getcwd())
    torch.set_num_threads(1)  # a fork has no thread but one
    orbax_io.import_orbax()
    panels.draw = panels.draw_sheet = written  # real ones take seconds
    Path("killed_project.py").write_text(CODE)
    Path("config.yaml").write_text(CONFIG)
    kept_rows.COMMIT_SECONDS = 0.0
    with open(os.devnull, "w") as nothing:
        sys.stdout, output = nothing, sys.stdout
        codes = [forked(lambda: main(["train", "config.yaml", "--run-dir", "run", "--no-progress"]))]
        for path in Path("run/test").iterdir():
            path.unlink()
        codes.append(forked(evaluated))
        expected, whole = found(), int(Path("reads").read_text())
        for path in sorted(Path("run/test").rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
        kills = []
        for moment in ({"read": 30}, {"read": 45}, {"read": 90}, {"replaced": 1}, {"replaced": 9}):
            code = forked(lambda moment=moment: evaluated(**moment))
            kills.append(
                {"code": code, "strange": [name for name, value in found().items() if expected[name] != value]}
            )
            kills[-1]["left"] = len(hidden())
        codes.append(forked(evaluated))
        sys.stdout = output
    again = int(Path("reads").read_text())
    print(json.dumps({"codes": codes, "kills": kills, "equal": found() == expected, "hidden": hidden()}))
    print(json.dumps({"files": len(expected), "reads": whole, "again": again}))


if __name__ == "__main__":
    run(sys.argv[1])
