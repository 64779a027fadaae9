"""TensorBoard's event files: its own reader finds each step once, after any number of kills."""

import random
import struct
import warnings
import zlib

import pytest
from loop_helpers import make_loader, make_state, quick_fit, stop_after

import functrain as ft
from functrain.loop.output.records import read_records
from functrain.loop.output.tensorboard import EventFile, _checksum, scalars

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # their imports
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator


def shown(run_dir):
    """What TensorBoard would show: (step, value) by tag."""
    accumulator = EventAccumulator(str(run_dir / "events"), size_guidance={"scalars": 0})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        accumulator.Reload()
    return {tag: [(e.step, e.value) for e in accumulator.Scalars(tag)] for tag in accumulator.Tags()["scalars"]}


def single(value):
    return struct.unpack("<f", struct.pack("<f", value))[0]


def expected(run_dir):
    """The same, from metrics.jsonl."""
    found = {}
    for record in read_records(run_dir / "metrics.jsonl"):
        for tag, value in scalars(record).items():
            found.setdefault(tag, []).append((record["step"], single(value)))
    return found


def fit(run_dir, **options):
    return quick_fit(
        make_state(), make_loader(), eval_loader=make_loader(), run_dir=run_dir, tensorboard=True, epochs=3,
        log_every=1, save_every=4, keep=9, **options,
    )  # fmt: skip


def test_tensorboard_shows_every_record_once_at_its_step(tmp_path):
    fit(tmp_path)
    found = shown(tmp_path)
    assert found == expected(tmp_path)
    assert [step for step, _ in found["step/loss"]] == list(range(1, 19))
    assert [step for step, _ in found["eval/loss"]] == [6, 12, 18]
    assert {"train/loss", "train/accuracy", "eval/accuracy", "step/lr", "step/grad_norm"} <= found.keys()


class Killed(BaseException):
    """No handler looks at it."""


def killed_at(step):
    @ft.on("after_step")
    def callback(event):
        if event.state.step == step:
            raise Killed

    return callback


@pytest.mark.parametrize("seed", range(3))
def test_after_any_number_of_kills_each_step_stands_there_once_as_in_the_uninterrupted_run(tmp_path, seed):
    fit(tmp_path / "whole")
    steps = sorted(random.Random(seed).sample(range(1, 18), 5))
    for step in steps:
        with pytest.raises(Killed):
            fit(tmp_path / "killed", callbacks=[killed_at(step)])
        path = next((tmp_path / "killed" / "events").glob("*tfevents*"))
        with path.open("ab") as file:
            file.write(b"\x07torn")  # a kill in the middle of writing an event
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fit(tmp_path / "killed")
    assert shown(tmp_path / "killed") == shown(tmp_path / "whole")
    assert len(list((tmp_path / "killed" / "events").iterdir())) == 1


def test_events_keep_the_times_at_which_they_were_made(tmp_path):
    fit(tmp_path, callbacks=[stop_after(9)])
    accumulator = EventAccumulator(str(tmp_path / "events")).Reload()
    before = [event.wall_time for event in accumulator.Scalars("step/loss")]
    fit(tmp_path)
    after = [event.wall_time for event in EventAccumulator(str(tmp_path / "events")).Reload().Scalars("step/loss")]
    assert after[: len(before)] == before
    assert len(after) == 18


def test_switched_on_late_it_shows_the_whole_run(tmp_path):
    quick_fit(make_state(), make_loader(), run_dir=tmp_path, epochs=1, log_every=1)
    assert not (tmp_path / "events").exists()
    quick_fit(make_state(), make_loader(), run_dir=tmp_path, epochs=2, log_every=1, tensorboard=True)
    assert shown(tmp_path) == expected(tmp_path)


def test_an_event_that_is_not_the_records_is_made_anew(tmp_path):
    records = [{"kind": "step", "step": step, "loss": 1.0 / step} for step in range(1, 5)]
    EventFile(tmp_path, records)
    changed = [*records[:2], {**records[2], "loss": 9.0}, records[3]]
    file = EventFile(tmp_path, changed)
    with file.path.open("ab") as stream:
        stream.write(file.frame({"kind": "step", "step": 5, "loss": 0.0}))
    values = [(1, 1.0), (2, 0.5), (3, 9.0), (4, 0.25), (5, 0.0)]
    assert shown(tmp_path) == {"step/loss": values}


def test_numbers_that_are_not_finite_or_beyond_float32_do_not_end_the_run(tmp_path):
    records = [{"kind": "step", "step": 300, "a": float("nan"), "b": float("inf"), "c": -1e300, "layer.ü": 2**70}]
    EventFile(tmp_path, records)
    found = shown(tmp_path)
    assert str(found["step/a"]) == "[(300, nan)]"
    assert found["step/b"] == [(300, float("inf"))]
    assert found["step/c"] == [(300, float("-inf"))]
    assert found["step/layer.ü"] == [(300, 2.0**70)]


def test_the_checksum_is_crc32c():
    """The check value of the CRC catalogue, masked by hand; and not that of zlib."""
    crc = 0xE3069283
    masked = ((crc >> 15) | (crc << 17 & 0xFFFFFFFF)) + 0xA282EAD8 & 0xFFFFFFFF
    assert _checksum(b"123456789") == struct.pack("<I", masked)
    assert zlib.crc32(b"123456789") != crc


def test_it_needs_a_directory(tmp_path):
    with pytest.raises(ValueError, match="tensorboard=True writes to run_dir/events: give fit a run_dir"):
        quick_fit(make_state(), make_loader(), epochs=1, tensorboard=True)


def test_an_earlier_runs_events_are_set_aside_with_its_logs(tmp_path):
    fit(tmp_path)
    fit(tmp_path, resume="never")
    assert shown(tmp_path) == expected(tmp_path)
    assert shown(tmp_path / "previous-1") == expected(tmp_path / "previous-1")
