"""The log of a run: damaged files come back bit for bit, full disks do not end a run."""

import contextlib
import json
import resource
import signal
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from loop_helpers import assert_same_bits, make_loader, make_state, quick_fit

import functrain as ft
from functrain.checkpoint import Checkpointer, read_info
from functrain.loop.output import log_files
from functrain.loop.output.log_files import (
    NO_MARK,
    AppendedFile,
    DamagedLogError,
    LogMark,
    LogWarning,
    line_of,
    recover,
)
from functrain.loop.output.records import Records

LOGS = ("metrics.jsonl", "metrics.csv")


def fit(run_dir: Path, **options: Any) -> ft.FitResult:
    return quick_fit(
        make_state(), make_loader(), eval_loader=make_loader(), run_dir=run_dir, log_every=1, eval_every=2, **options
    )


def logs(run_dir: Path) -> list[bytes]:
    return [(run_dir / name).read_bytes() for name in LOGS]


DAMAGE = {
    "a brace lost": (lambda log: log.replace(b'"kind"', b'"kind', 1), "line 1 is not JSON"),
    "a digit changed": (lambda log: log.replace(b'"step": 3,', b'"step": 7,', 1), "line 3 differs from metrics.csv"),
    "zeros": (lambda log: log[:40] + bytes(30) + log[70:], "line 1 is not JSON"),
    "not UTF-8": (lambda log: log[:40] + b"\xff\xfe" + log[42:], "line 1 is not "),
    "an empty line": (lambda log: log.replace(b"\n", b"\n\n", 1), "line 2 is not JSON"),
    "no kind": (lambda log: log.replace(b'"kind": "step", ', b"", 1), "line 1 is not a record"),
    "an array": (lambda log: b"[1]\n" + log, "line 1 is not a record"),
    "a deep array": (lambda log: b"[" * 100_000 + b"\n" + log, "line 1 is not JSON"),
    "cut": (lambda log: log[:-10], "it holds 13 records, but the checkpoint was saved after 14"),
    "emptied": (lambda log: b"", "it holds 0 records, but the checkpoint was saved after 14"),
    "gone": (None, "it is missing"),
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[ft.FitResult, list[bytes]]:
    """A run of three epochs that nothing disturbed."""
    folder = tmp_path_factory.mktemp("whole")
    return fit(folder, epochs=3), logs(folder)


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_log_is_rebuilt_from_the_table_bit_for_bit(
    name: str, tmp_path: Path, whole: tuple[ft.FitResult, list[bytes]]
) -> None:
    fit(tmp_path, epochs=2)
    damage, fault = DAMAGE[name]
    log = tmp_path / "metrics.jsonl"
    damaged = None if damage is None else damage(log.read_bytes())
    log.unlink() if damaged is None else log.write_bytes(damaged)
    with pytest.warns(LogWarning, match="metrics.jsonl was damaged") as caught:
        result = fit(tmp_path, epochs=3)
    assert fault in str(caught[0].message)
    assert "rebuilt from metrics.csv" in str(caught[0].message)
    assert (result.history, logs(tmp_path)) == (whole[0].history, whole[1])
    if damaged is not None:
        assert (tmp_path / "metrics.jsonl.damaged").read_bytes() == damaged


def test_without_a_table_the_history_comes_from_the_checkpoint(
    tmp_path: Path, whole: tuple[ft.FitResult, list[bytes]]
) -> None:
    fit(tmp_path, epochs=2)
    for name in LOGS:
        (tmp_path / name).write_bytes(b"\0" * 50)
    with pytest.warns(LogWarning, match="only the records of 2 epochs were rebuilt, from the checkpoint"):
        result = fit(tmp_path, epochs=3)
    assert result.history == whole[0].history
    with warnings.catch_warnings():
        warnings.simplefilter("error", LogWarning)
        assert fit(tmp_path, epochs=4).history[:3] == whole[0].history


def test_damage_behind_what_belongs_to_the_checkpoint_does_not_matter(
    tmp_path: Path, whole: tuple[ft.FitResult, list[bytes]]
) -> None:
    fit(tmp_path, epochs=2)
    with (tmp_path / "metrics.jsonl").open("ab") as file:
        file.write(b"\xff\0{half a line\n{")
    with warnings.catch_warnings():
        warnings.simplefilter("error", LogWarning)
        assert fit(tmp_path, epochs=3).history == whole[0].history
    assert logs(tmp_path) == whole[1]


def test_a_checkpoint_of_an_earlier_version_has_the_log_mended_where_the_table_agrees(tmp_path: Path) -> None:
    fit(tmp_path, epochs=2)
    count = read_info(tmp_path / "checkpoints" / "last").metadata["records"]
    expected = recover(tmp_path, count, NO_MARK)
    assert expected.fault == ""
    log = (tmp_path / "metrics.jsonl").read_bytes()
    (tmp_path / "metrics.jsonl").write_bytes(log.replace(b'"kind"', b"kind", 1))
    assert recover(tmp_path, count, NO_MARK).records == expected.records
    (tmp_path / "metrics.jsonl").write_bytes(log.replace(b'"kind"', b"kind", 1).replace(b'"step": 3', b'"step": 4', 1))
    with pytest.raises(DamagedLogError, match="line 1 is not JSON"):
        recover(tmp_path, count, NO_MARK)


RECORDS = [
    {"kind": "step", "epoch": 1, "step": 1, "loss": 0.1, "grad_norm": float("inf"), "skipped": 0.0},
    {"kind": "step", "epoch": 1, "step": 2, "loss": float("nan"), "grad_norm": -0.0, "skipped": 1.0},
    {"kind": "epoch", "epoch": 1, "step": 2, "samples": 12, "train_loss": 1 / 3, "train_n": 3},
    {"kind": "step", "epoch": 2, "step": 3, "loss": 5e-324, "grad_norm": 1e300, "skipped": 1e16},
    {"kind": "final", "epoch": 2, "step": 3, "samples": 16, "train_loss": -2.5, "train_n": 4, "eval_loss": 1e-7},
]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, LogMark]:
    folder = tmp_path_factory.mktemp("log")
    records = Records(folder)
    for record in RECORDS:
        records.append(record)
    return folder, records.mark()


@given(data=st.data())
def test_whatever_bytes_change_the_records_come_back_with_their_bits(
    written: tuple[Path, LogMark], data: st.DataObject
) -> None:
    folder, mark = written
    log = folder / "metrics.jsonl"
    intact = b"".join(map(line_of, RECORDS))
    start = data.draw(st.integers(0, len(intact) - 1))
    length = data.draw(st.integers(0, 40))
    damaged = intact[:start] + data.draw(st.binary(max_size=40)) + intact[start + length :]
    log.write_bytes(damaged)
    found = recover(folder, len(RECORDS), mark)
    assert b"".join(map(line_of, found.records)) == intact
    assert bool(found.fault) == (damaged[: len(intact)] != intact)


def test_lines_that_could_not_be_written_come_back_from_the_checkpoint(tmp_path: Path) -> None:
    lines = [line_of(record) for record in RECORDS]
    (tmp_path / "metrics.jsonl").write_bytes(b"".join(lines[:3]))
    mark = LogMark(log_files.sha256(lines), "", b"".join(lines[3:]).decode())
    found = recover(tmp_path, len(RECORDS), mark)
    assert (list(map(line_of, found.records)), found.fault) == (lines, "")


@contextlib.contextmanager
def full_disk(bytes_in_a_file: int) -> Iterator[None]:
    """No file of this process can get longer."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (bytes_in_a_file, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def test_what_a_full_disk_does_not_take_is_written_when_there_is_room_again(tmp_path: Path) -> None:
    file = AppendedFile(tmp_path / "log")
    file.append(b"first\n")
    with full_disk(10):
        file.append(b"second\n")  # four bytes of it fit
        file.append(b"third\n")
        assert file.error is not None
        assert bytes(file.pending) == b"second\nthird\n"
    file.append(b"fourth\n")
    assert file.path.read_bytes() == b"first\nsecond\nthird\nfourth\n"
    assert (file.error, bytes(file.pending)) == (None, b"")


def test_a_disk_that_is_full_for_a_while_leaves_no_trace_in_the_log(
    tmp_path: Path, whole: tuple[ft.FitResult, list[bytes]]
) -> None:
    with contextlib.ExitStack() as stack:

        @ft.on("after_step", "after_epoch")
        def fill(event: ft.Event) -> None:
            if (event.scope, event.state.step) == ("after_step", 2):
                stack.enter_context(full_disk(500))
            if (event.scope, event.state.step) == ("after_epoch", 6):
                stack.close()

        with pytest.warns(LogWarning, match=r"cannot be written \(File too large\)") as caught:
            result = fit(tmp_path, epochs=3, callbacks=[fill], tensorboard=True)
    assert len(caught) == 1
    assert (result.history, logs(tmp_path)) == (whole[0].history, whole[1])


def test_a_log_that_cannot_be_written_to_the_end_is_said_once_more(
    tmp_path: Path, whole: tuple[ft.FitResult, list[bytes]]
) -> None:
    @ft.on("after_step")
    def block(event: ft.Event) -> None:
        if event.state.step == 3:
            (tmp_path / "metrics.jsonl").unlink()
            (tmp_path / "metrics.jsonl").mkdir()

    with pytest.warns(LogWarning) as caught:
        result = fit(tmp_path, epochs=2, callbacks=[block])
    first, last = (str(warning.message) for warning in caught)
    assert "training goes on" in first
    assert "metrics.jsonl cannot be written (Is a directory)" in last
    assert "the log is incomplete" in last
    assert result.stopped_by == "epochs"
    with pytest.warns(LogWarning, match="not a regular file"):
        resumed = fit(tmp_path, epochs=3)
    assert_same_bits(resumed.state, whole[0].state)
    assert resumed.history == whole[0].history


def test_the_copy_in_a_checkpoint_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("functrain.loop.output.records.MOST_EPOCHS", 2)
    fit(tmp_path, epochs=3)
    mark = LogMark(**Checkpointer(tmp_path / "checkpoints", read_only=True).infos()[-1].metadata["log"])
    assert [json.loads(line)["epoch"] for line in mark.epochs.splitlines()] == [2, 3]
    assert mark.unwritten == ""
