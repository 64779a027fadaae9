"""Weights & Biases (off line) and MLflow (a folder of files): each record once, whatever interrupts a run."""

import json
import warnings
from pathlib import Path
from typing import Any

import pytest
from loop_helpers import make_loader, make_state, quick_fit, stop_after

import functrain as ft
from functrain.loop.output.log_files import LogWarning
from functrain.loop.output.records import read_records
from functrain.loop.output.sinks import FedSink, SinkRun, Tracker, TrackerError
from functrain.loop.output.tensorboard import scalars
from functrain.loop.output.wandb import WANDB, WandbOptions

OFFLINE = {"mode": "offline", "project": "tests"}


def fit(run_dir: Path, **options: Any) -> ft.FitResult:
    return quick_fit(
        make_state(), make_loader(), **{
            "eval_loader": make_loader(), "run_dir": run_dir, "epochs": 2, "log_every": 2, "save_every": 4, **options,
        },
    )  # fmt: skip


class Killed(BaseException):
    """No handler looks at it."""


def killed_at(step: int) -> Any:
    @ft.on("after_step")
    def callback(event: ft.Event) -> None:
        if event.state.step == step:
            raise Killed

    return callback


class Memory:
    """A tracker's run that keeps what it gets."""

    def __init__(self, run: SinkRun) -> None:
        self.id, self.place = run.id or f"run-{len(runs)}", "in memory"
        self.rows: list[dict[str, Any]] = runs.setdefault(self.id, [])
        self.status = ""

    def log(self, records: Any, first: int) -> None:
        if self.id in broken:
            raise OSError("the network is down\nand more")
        assert first == len(self.rows)
        self.rows += records

    def close(self, status: str) -> None:
        ended[self.id] = status


runs: dict[str, list[dict[str, Any]]] = {}
broken: set[str] = set()
ended: dict[str, str] = {}
MEMORY = Tracker("wandb", "Memory", "json", WandbOptions, lambda _, run: Memory(run))


@pytest.fixture(autouse=True)
def _empty(monkeypatch: pytest.MonkeyPatch) -> None:
    for each in (runs, broken, ended):
        each.clear()
    # Stands in for W&B, whose runs take a second each to start.
    monkeypatch.setattr(
        "functrain.loop.settings.Settings.trackers", lambda self: [(MEMORY, None)] if self.wandb else []
    )


def the_log(run_dir: Path) -> list[dict[str, Any]]:
    return read_records(run_dir / "metrics.jsonl")


def test_a_tracker_gets_each_record_of_the_log(tmp_path: Path) -> None:
    fit(tmp_path, wandb=True)
    assert runs == {"run-0": the_log(tmp_path)}
    assert ended == {"run-0": "finished"}


@pytest.mark.parametrize("steps", [(1,), (5, 5, 11)])
def test_after_any_number_of_kills_a_tracker_has_each_record_once(tmp_path: Path, steps: tuple[int, ...]) -> None:
    fit(tmp_path / "whole")
    for step in steps:
        with pytest.raises(Killed):
            fit(tmp_path / "run", wandb=True, callbacks=[killed_at(step)])
        assert ended == {"run-0": "failed"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the kills
        fit(tmp_path / "run", wandb=True)
    assert runs == {"run-0": the_log(tmp_path / "whole")}


def test_switched_on_late_a_tracker_gets_the_whole_log(tmp_path: Path) -> None:
    fit(tmp_path, epochs=1)
    fit(tmp_path, wandb=True)
    assert runs == {"run-0": the_log(tmp_path)}


def test_a_run_that_starts_afresh_has_a_tracker_run_of_its_own(tmp_path: Path) -> None:
    fit(tmp_path, wandb=True)
    fit(tmp_path, wandb=True, resume="never")
    assert runs == {"run-0": the_log(tmp_path / "previous-1"), "run-1": the_log(tmp_path)}


def test_a_tracker_that_fails_is_told_of_once_and_gets_all_later(tmp_path: Path) -> None:
    @ft.on("after_step")
    def mend(event: ft.Event) -> None:
        if event.state.step == 1:
            broken.add("run-0")
        if event.state.step == 8:
            broken.clear()

    with pytest.warns(LogWarning, match=r"Memory took no record \(the network is down\): training goes on") as told:
        result = fit(tmp_path, wandb=True, callbacks=[mend])
    assert len(told) == 1
    assert runs["run-0"] == the_log(tmp_path)
    assert result.state.step == 12


def test_what_a_tracker_never_got_is_told_at_the_end_and_sent_by_the_next_start(tmp_path: Path) -> None:
    broken.add("run-0")
    with pytest.warns(LogWarning) as told:
        fit(tmp_path, epochs=1, wandb=True)
    count = len(the_log(tmp_path))
    assert [str(each.message).partition(";")[0] for each in told][1:] == [f"Memory lacks the last {count} records"]
    broken.clear()
    fit(tmp_path, wandb=True)
    assert runs["run-0"] == the_log(tmp_path)


def test_a_damaged_memory_begins_a_new_tracker_run_with_the_whole_log(tmp_path: Path) -> None:
    fit(tmp_path, epochs=1, wandb=True)
    for damage in ("", "{", '{"id": 3}', '{"id": "a", "sent": 1, "last": 5}'):
        runs.clear()
        (tmp_path / "wandb.json").write_text(damage)
        fit(tmp_path, wandb=True)
        assert list(runs.values()) == [the_log(tmp_path)]


def test_a_tracker_that_does_not_start_is_an_error_and_leaves_no_directory(tmp_path: Path) -> None:
    def refuse(_: Any, __: Any) -> Any:
        raise RuntimeError("no key")

    with pytest.raises(TrackerError, match="Memory did not start: no key"):
        FedSink(Tracker("memory", "Memory", "json", WandbOptions, refuse), None, tmp_path, {}, [])


def test_an_interrupted_run_is_told_so(tmp_path: Path) -> None:
    fit(tmp_path, wandb=True, max_time=1e-6, on_signal="return")
    assert ended == {"run-0": "interrupted"}
    fit(tmp_path, wandb=True, callbacks=[stop_after(3)])
    assert ended == {"run-0": "finished"}


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"projct": "x"}, "wandb has no option 'projct'; did you mean 'project'"),
        ({"mode": "of"}, "wandb.mode must be one of online, offline, disabled; got 'of'"),
        ({"tags": "a"}, "wandb.tags must be a list of texts; got 'a'"),
    ],
)
def test_options_are_checked(value: Any, message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        WANDB.asked(value)


def test_a_missing_package_is_named_with_the_line_that_installs_it() -> None:
    missing = Tracker("wandb", "Weights & Biases", "no_such_package", WandbOptions, lambda _, __: None)
    assert missing.asked(None) is missing.asked(False) is None
    with pytest.raises(ModuleNotFoundError, match=r"Run: pip install 'functrain\[wandb\]'"):
        missing.asked(True)


# The real ones.


@pytest.fixture
def _real(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.undo()
    for name in ("WANDB_CACHE_DIR", "WANDB_CONFIG_DIR", "WANDB_DATA_DIR"):
        monkeypatch.setenv(name, str(tmp_path / "elsewhere"))


def wandb_rows(run_dir: Path) -> list[dict[str, Any]]:
    """The rows in the files of W&B, in the order in which they were made.

    A file is blocks of 32 KiB of records: checksum, length, kind (whole, first, middle, last part), data.
    """
    from wandb.proto.wandb_internal_pb2 import Record

    rows = []
    for path in sorted((run_dir / "wandb").glob("offline-run-*/*.wandb"), key=lambda path: path.stat().st_mtime_ns):
        data, place, parts = path.read_bytes(), 7, b""
        while place + 7 <= len(data):
            if 32768 - place % 32768 < 7:
                place += 32768 - place % 32768
                continue
            length, kind = int.from_bytes(data[place + 4 : place + 6], "little"), data[place + 6]
            parts += data[place + 7 : place + 7 + length]
            place += 7 + length
            if kind in (1, 4):
                record = Record.FromString(parts)
                parts = b""
                if record.HasField("history"):
                    items = record.history.item
                    rows.append({"/".join(i.nested_key) or i.key: json.loads(i.value_json) for i in items})
    return rows


def expected_rows(run_dir: Path) -> list[dict[str, Any]]:
    return [{"step": record["step"], **scalars(record)} for record in the_log(run_dir)]


@pytest.mark.usefixtures("_real")
def test_wandb_off_line_holds_each_row_once_after_a_kill(tmp_path: Path) -> None:
    run = tmp_path / "run"
    with pytest.raises(Killed):
        fit(run, wandb=OFFLINE, callbacks=[killed_at(7)])  # 4 is saved: 6, and the first epoch, come again
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fit(run, wandb=OFFLINE)
    rows = [{name: value for name, value in row.items() if not name.startswith("_")} for row in wandb_rows(run)]
    assert rows == expected_rows(run)
    numbers = [row["_step"] for row in wandb_rows(run)]
    assert numbers == list(range(len(rows)))
    assert len(list((run / "wandb").glob("offline-run-*"))) == 2
    assert len({path.name.rpartition("-")[2] for path in (run / "wandb").glob("offline-run-*")}) == 1  # one id


def mlflow_values(store: Path) -> dict[str, list[tuple[int, float]]]:
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=store.as_uri())
    experiment = client.get_experiment_by_name("functrain")
    [found] = client.search_runs([experiment.experiment_id])
    return {
        name: [(each.step, each.value) for each in client.get_metric_history(found.info.run_id, name)]
        for name in found.data.metrics
    } | {"status": found.info.status, "params": found.data.params, "tags": found.data.tags}


@pytest.mark.usefixtures("_real")
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_mlflows_folder_holds_each_value_once_after_a_kill(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, setting = tmp_path / "run", {"tags": {"team": "a"}}
    metadata = {"config": {"optimizer": {"lr": 0.01}, "name": "x"}}
    with pytest.raises(Killed):
        fit(run, mlflow=setting, metadata=metadata, callbacks=[killed_at(7)])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fit(run, mlflow=setting, metadata=metadata)
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    found = mlflow_values(tmp_path / "mlruns")
    expected: dict[str, list[tuple[int, float]]] = {}
    for row in expected_rows(run):
        step = row.pop("step")
        for name, value in row.items():
            expected.setdefault(name, []).append((step, value))
    assert found.pop("params") == {"optimizer.lr": "0.01", "name": "x"}
    assert found.pop("tags")["team"] == "a"
    assert found.pop("status") == "FINISHED"
    assert found == expected
