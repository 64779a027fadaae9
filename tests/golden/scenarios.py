"""A dozen runs of functrain whose results a refactoring must not change.   Usage: python scenarios.py FOLDER OUT.json

Each scenario runs in a process of its own, in an empty folder. It returns, or leaves in that folder, what is compared:
the digest of each final state, the records, the metadata of the checkpoints, the files, and everything printed.
`compare.py` runs this file against two trees.
"""

import contextlib
import dataclasses
import hashlib
import io
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import functrain as ft

Scenario = Callable[[], Any]
SCENARIOS: dict[str, Scenario] = {}
EXAMPLES = 22


def scenario(function: Scenario) -> Scenario:
    """Register a scenario under its function's name."""
    SCENARIOS[function.__name__] = function
    return function


# -- what is compared ------------------------------------------------------------------------------------


def digest(state: Any) -> str:
    """A checksum of each tensor and Python value of a state, in the order of the tree."""
    found = hashlib.sha256()
    for name in sorted(field.name for field in dataclasses.fields(state) if field.name != "recipe"):
        _feed(found, name, getattr(state, name))
    return found.hexdigest()[:16]


def _feed(found: Any, path: str, value: Any) -> None:
    if isinstance(value, torch.Tensor):
        data = (
            value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes() if value.numel() else b""
        )
        found.update(f"{path} {value.dtype} {tuple(value.shape)}".encode() + data)
    elif isinstance(value, dict):
        for key in sorted(value, key=str):
            _feed(found, f"{path}/{key}", value[key])
    elif isinstance(value, (tuple, list)):
        for number, each in enumerate(value):
            _feed(found, f"{path}/{number}", each)
    else:
        found.update(f"{path} {value!r}".encode())


def result_of(result: ft.FitResult) -> dict[str, Any]:
    """What is compared of a `FitResult`."""
    return {"state": digest(result.state), "stopped_by": result.stopped_by, "history": list(result.history)}


# Keys that differ from run to run; "files" are sizes and checksums of orbax's own files.
_CLOCK = ("seconds", "time", "sha256", "platform", "cpus", "files")
_TIMES = [
    (r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d(:\d\d)?(\.\d+)?(\+\d\d:\d\d|Z)?", "DATE"),
    (r"\d[\d,.]*/s\b", "N/s"),
    (r"\b\d+(\.\d+)?(e-?\d+)? ?(s|ms|µs|us|min|h)\b", "T"),
    (r"\b\d+:\d\d(:\d\d)?\b", "T"),
    (r"\d+(\.\d+)? (KiB|MiB|GiB|kB|MB|B)\b", "SIZE"),
    (r"pid \d+|process \d+", "PID"),
    (r"0x[0-9a-f]+", "ADDRESS"),
    (r"\b[0-9a-f]{32,64}\b", "DIGEST"),
]


def without_clock(text: str, folder: Path) -> str:
    """Printed text without times, sizes, dates and the folder's path."""
    text = text.replace(str(folder), "FOLDER").replace(str(Path(ft.__file__).parents[1]), "TREE")
    for pattern, name in _TIMES:
        text = re.sub(pattern, name, text)
    return re.sub(r"\bT( T)+\b", "T", re.sub(r"[ \t]+", " ", text))  # 1 min 5 s is a time as 59 s is


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in sorted(value.items()) if key not in _CLOCK}
    return [_plain(each) for each in value] if isinstance(value, list) else value


def files_of(folder: Path) -> dict[str, Any]:
    """The names of all files that are functrain's own, and the contents of its logs, configurations and metadata."""
    found: dict[str, Any] = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        inside = name.partition("checkpoints/")[2].partition("/")[2]
        if inside not in ("", "functrain.json") or path.name == "lock":
            continue  # orbax's files
        found[name] = None
        if path.name == "metrics.jsonl":
            found[name] = [_plain(json.loads(line)) for line in path.read_text().splitlines()]
        elif path.name == "functrain.json":
            found[name] = _plain(json.loads(path.read_text()))
        elif path.suffix in {".csv", ".yaml"}:
            found[name] = path.read_text()
    return {name if "/events/" not in f"/{name}" else "events/...": value for name, value in found.items()}


# -- scripts ---------------------------------------------------------------------------------------------


def make_state(**options: Any) -> ft.TrainState:
    """A small network with BatchNorm and dropout."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, 3))
    optimizer = options.pop("optimizer", None) or ft.optim.adamw(1e-2)
    return ft.init_state(model, ft.classification(), optimizer, **options)


def data(seed: int = 1) -> TensorDataset:
    """22 examples of 4 numbers, 3 classes."""
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(EXAMPLES, 4, generator=generator)
    return TensorDataset(inputs, torch.randint(0, 3, (EXAMPLES,), generator=generator))


def loader(seed: int = 1, **options: Any) -> DataLoader:
    """Shuffled batches of 4."""
    return DataLoader(data(seed), batch_size=4, shuffle=True, **options)


def train(state: ft.TrainState | None = None, loader_: Any = None, **options: Any) -> ft.FitResult:
    """`fit` for two epochs, eagerly, in ./run."""
    options = {"epochs": 2, "compile": False, "run_dir": "run", **options}
    return ft.fit(state or make_state(), loader_ or loader(), **options)


@scenario
def eager() -> Any:
    return result_of(train(eval_loader=loader(2)))


@scenario
def everything_in_the_step() -> Any:
    schedule = ft.optim.schedules.cosine(3e-3, 12)
    state = make_state(
        optimizer=ft.optim.adamw(schedule), accumulate=2, clip_norm=0.5, ema_decay=0.9, statistics="module"
    )
    return result_of(train(state, eval_loader=loader(2), epochs=3, tail="short", keep_best=2, watch="ema_loss"))


@scenario
def compiled_by_aot_eager() -> Any:
    state = make_state(accumulate=3, ema_decay=0.5)
    return result_of(train(state, compile=True, backend="aot_eager", tail="drop", epochs=3, save_every=2))


@scenario
def compiled_by_inductor() -> Any:
    return result_of(train(compile=True, eval_loader=loader(2), steps=9, steps_per_call=4, log_every=1))


@scenario
def half_precision() -> Any:
    bf16 = train(make_state(precision="bf16"), run_dir=None)
    scaling = ft.LossScaling(init_scale=2.0**20, growth_interval=2)
    fp16 = train(make_state(precision="fp16", loss_scale=scaling), run_dir="fp16", epochs=3)
    return [result_of(bf16), result_of(fp16)]


@scenario
def rules() -> Any:
    stopping = ft.optim.early_stopping(patience=2, min_delta=10.0, restore_best=True)
    plateau = ft.optim.plateau(patience=0, threshold=10.0, threshold_mode="abs")
    return result_of(train(epochs=9, eval_loader=loader(2), plateau=plateau, early_stopping=stopping))


@scenario
def stopped_and_resumed() -> Any:
    @ft.on("after_step")
    def stop(event: ft.Event) -> ft.Stop | None:
        return ft.Stop() if event.state.step == 4 else None

    first = train(callbacks=[stop], epochs=3)
    second = train(epochs=3)
    finished = train(epochs=3)
    whole = train(epochs=3, run_dir="whole")
    return [result_of(each) for each in (first, second, finished, whole)]


@scenario
def interrupted_by_a_signal() -> Any:
    @ft.on("after_step")
    def interrupt(event: ft.Event) -> None:
        if event.state.step == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    try:
        train(callbacks=[interrupt], progress=True)
    except SystemExit as error:
        return [error.code, result_of(train(progress=True))]


@scenario
def in_parts() -> Any:
    return [result_of(train(micro_batch=3, run_dir=None)), result_of(train(micro_batch="auto", run_dir=None))]


@scenario
def not_finite() -> Any:
    bad = [(torch.randn(4, 4, generator=torch.Generator().manual_seed(n)), torch.arange(4) % 3) for n in range(6)]
    bad[2] = (bad[2][0] * float("inf"), bad[2][1])
    skipped = result_of(train(loader_=bad, on_nonfinite="skip", run_dir="skip"))
    try:
        train(loader_=bad, run_dir="stop")
    except Exception as error:
        return [skipped, type(error).__name__, str(error)]


@scenario
def streams_and_weights() -> Any:
    def batches() -> Any:
        for inputs, targets in DataLoader(data(), batch_size=5):
            yield {"inputs": inputs, "targets": targets, "weights": torch.linspace(0, 1, len(inputs))}

    class Stream:
        def __iter__(self) -> Any:
            return batches()

    own = ft.data.Loader(data(), batch_size=6)
    return [
        result_of(train(loader_=Stream(), steps=7, epochs=None, run_dir="stream")),
        result_of(train(loader_=own, run_dir="own", tensorboard=True, tail="drop")),
    ]


@scenario
def steps_by_hand() -> Any:
    state, found = make_state(accumulate=2, clip_value=0.1), []
    step = ft.compile(ft.train_step, backend="aot_eager")
    for seed in range(4):
        batch = next(iter(DataLoader(data(seed), batch_size=8)))
        state, metrics = (step if seed > 1 else ft.train_step)(state, batch)
        found.append({name: value.tolist() if hasattr(value, "tolist") else value for name, value in metrics.items()})
    means = ft.eval_step(state, batch).means()
    keeper = ft.checkpoint.Checkpointer("checkpoints")
    keeper.save(state, step=state.step)
    keeper.wait()
    restored, info = keeper.restore(make_state(accumulate=2, clip_value=0.1))
    return [digest(state), digest(restored), info.step, found, {name: float(value) for name, value in means.items()}]


@scenario
def mistakes() -> Any:
    found = []
    for wrong in (
        {"epochs": None}, {"epochs": 0}, {"keep": 0}, {"tail": "long"}, {"watch": "loss"}, {"watch": "eval_loss"},
        {"resume": "yes"}, {"on_signal": "x"}, {"watch_mode": "up"}, {"steps_per_call": 0}, {"max_time": -1},
        {"micro_batch": 0}, {"micro_batch": "some"}, {"compile": 1}, {"compile": True, "backend": "x"},
        {"compile": True, "mode": "x"}, {"callbacks": 3}, {"tensorboard": True, "run_dir": None}, {"save_every": 1.5},
        {"plateau": 3}, {"early_stopping": 3}, {"log_every": 0}, {"metadata": 3}, {"progress": 3}, {"tf32": 3},
        {"max_consecutive_skips": 0}, {"save_every_minutes": "x"}, {"keep_best": -1}, {"deterministic": 2},
    ):  # fmt: skip
        try:
            train(**wrong)
        except Exception as error:
            found.append([type(error).__name__, str(error)])
        else:
            found.append([f"{wrong} was allowed"])
    return found


# -- the command line ------------------------------------------------------------------------------------

COMMANDS = [
    "train",
    "evaluate",
    "show",
    "export",
    "profile",
    "verify",
    "diff",
    "replay",
    "hunt",
    "find-lr",
    "find-batch-size",
]


def command(*words: str) -> list[Any]:
    """Exit code and what `functrain WORDS` prints."""
    process = subprocess.run(
        [sys.executable, "-m", "functrain", *words], capture_output=True, text=True, timeout=600, check=False
    )
    return [" ".join(words), process.returncode, process.stdout, process.stderr]


@scenario
def helps() -> Any:
    return [command("--help"), *(command(name, "--help") for name in COMMANDS)]


@scenario
def digits() -> Any:
    (tree,) = {str(Path(ft.__file__).parents[1])}
    run = ["train", f"{tree}/configs/digits.yaml", "training.epochs=2", "--run-dir", "run", "--no-progress"]
    return [
        command(*run),
        command(*run),
        command("show", "run"),
        command("show", "run/checkpoints/best"),
        command("evaluate", "run", "--split", "val"),
        command("verify", "run"),
        command("diff", "run/checkpoints/best", "run"),
        command("replay", "run"),
        command("hunt", "run"),
        command("export", "run", "digits.safetensors"),
        command("find-lr", f"{tree}/configs/digits.yaml", "--steps", "20"),
        command("train", f"{tree}/configs/digits.yaml", "optimizer.lr=fast"),
        command("train", f"{tree}/configs/digits.yaml", "optimizer.rate=1"),
        command("train", "nothing.yaml"),
        command("trian"),
        command("show", "nothing"),
    ]


# -- running them ----------------------------------------------------------------------------------------


def run_one(name: str, folder: Path) -> Any:
    """A scenario's result, output and files."""
    os.chdir(folder)
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        result = SCENARIOS[name]()
    texts = {"stdout": out.getvalue(), "stderr": err.getvalue()}
    found = {"result": result, "printed": texts, "files": files_of(folder)}
    return json.loads(without_clock(json.dumps(found, default=str), folder.resolve()))


def main() -> int:
    """Run all scenarios, or the ones that are named."""
    root, out, *names = sys.argv[1:]
    if names and names[0] == "--one":
        print(json.dumps(run_one(names[1], Path(root))))
        return 0
    results = {}
    for name in names or SCENARIOS:
        folder = Path(root) / name
        folder.mkdir(parents=True)
        words = [sys.executable, __file__, str(folder), "-", "--one", name]
        process = subprocess.run(words, capture_output=True, text=True, check=False)
        results[name] = json.loads(process.stdout) if process.returncode == 0 else process.stderr[-3000:]
        print(name, "done" if process.returncode == 0 else "FAILED", flush=True)
    Path(out).write_text(json.dumps(results, indent=1, sort_keys=True))
    return 0


if __name__ == "__main__":
    sys.exit(main())
