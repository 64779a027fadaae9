"""The times of epochs lie beside the log, which holds none."""

import torch
from torch import nn

import functrain as ft
from functrain.loop.output.timing import FILE, EpochClock, Timing, read_timings

LOADER = ft.data.Loader(ft.data.Arrays(torch.ones(12, 2), torch.zeros(12, 1)), 4)


def train(run_dir, epochs, **options):
    state = ft.init_state(nn.Linear(2, 1), ft.regression(), ft.optim.sgd(0.1))
    return ft.fit(state, LOADER, epochs=epochs, run_dir=run_dir, compile=False, progress=False, **options)


def test_a_run_writes_the_time_of_each_epoch(tmp_path):
    train(tmp_path, 2)
    found = read_timings(tmp_path)
    assert [(t.epoch, t.step, t.examples) for t in found] == [(1, 3, 12), (2, 6, 12)]
    assert all(t.seconds > 0 for t in found)
    train(tmp_path, 3)
    assert read_timings(tmp_path)[:2] == found
    assert [t.step for t in read_timings(tmp_path)] == [3, 6, 9]


def test_a_resume_within_an_epoch_counts_what_it_trained(tmp_path):
    train(tmp_path, None, steps=4)
    assert [(t.epoch, t.step, t.examples) for t in read_timings(tmp_path)] == [(1, 3, 12), (2, 4, 4)]
    train(tmp_path, 2)
    assert [(t.epoch, t.step, t.examples) for t in read_timings(tmp_path)] == [(1, 3, 12), (2, 4, 4), (2, 6, 8)]


def test_times_of_later_steps_are_cut_off(tmp_path):
    train(tmp_path, 3, keep=9)
    train(tmp_path, 2, resume="step-00000003")
    assert [t.step for t in read_timings(tmp_path)] == [3, 6]
    train(tmp_path, 1, resume="never")
    assert [t.step for t in read_timings(tmp_path)] == [3]


def test_a_damaged_or_unwritable_file_does_no_harm(tmp_path):
    (tmp_path / FILE).write_bytes(b"epoch,step,examples,seconds\n1,3,12,0.5\nx\n\xff\x00,2\n2,6,1")
    assert read_timings(tmp_path) == [Timing(1, 3, 12, 0.5)]
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / FILE).mkdir()
    clock = EpochClock(tmp_path / "other", 0)
    clock.start(0)
    clock.stop(1, 3, 12)
    assert read_timings(tmp_path / "other") == []


def test_without_a_directory_nothing_is_timed():
    clock = EpochClock(None, 0)
    clock.start(0)
    clock.stop(1, 3, 12)
