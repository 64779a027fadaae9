"""Cached preprocessing: computed once for the same content, again for other, and whole or not there."""

import multiprocessing
import os
import random
import warnings
from collections import deque
from pathlib import Path

import numpy as np
import pytest
import torch

from functrain.data import Arrays, DataWarning, Transformed, cached, clear_cache
from functrain.data.transforms import Noise
from functrain.foundation.errors import DataError

FACTOR = 3
calls = deque()  # not a plain value, which would be part of what the functions are


def helper(values):
    return values + 1


def other_helper(values):
    return values + 2


def doubled(values):
    calls.append(1)
    return values * 2


def scaled(values, times=2):
    calls.append(1)
    return torch.as_tensor(values) * times * FACTOR + helper(0)


def drawn(count):
    calls.append(1)
    return np.array([random.random() + np.random.rand() + float(torch.rand(())) for _ in range(count)])


def of_samples(dataset):
    calls.append(1)
    return torch.stack([dataset[index][0] for index in range(len(dataset))])


def first_line(path):
    calls.append(1)
    file = next(path.iterdir()) if path.is_dir() else path
    return np.array([float(file.read_text().split()[0])])


@pytest.fixture(autouse=True)
def forget():
    calls.clear()


def test_it_is_computed_once_and_read_the_next_time(tmp_path):
    values = torch.arange(4.0)
    first, again = (cached(scaled, values, folder=tmp_path) for _ in range(2))
    assert len(calls) == 1
    assert torch.equal(first.take(range(4))[0], scaled(values))
    assert torch.equal(again.take(range(4))[0], first.take(range(4))[0])


@pytest.mark.parametrize(
    "change",
    ["values", "dtype", "shape", "argument", "constant", "helper", "version", "function"],
)
def test_other_content_is_another_entry(tmp_path, monkeypatch, change):
    cached(scaled, torch.arange(4.0), folder=tmp_path)
    values, arguments, function, options = torch.arange(4.0), [], scaled, {}
    if change == "values":
        values[3] = 9
    elif change == "dtype":
        values = values.double()
    elif change == "shape":
        values = values.view(2, 2)
    elif change == "argument":
        arguments = [5]
    elif change == "constant":
        monkeypatch.setitem(scaled.__globals__, "FACTOR", 4)
    elif change == "helper":
        monkeypatch.setitem(scaled.__globals__, "helper", other_helper)
    elif change == "version":
        options = {"version": "2"}
    else:
        function = doubled
    cached(function, values, *arguments, folder=tmp_path, **options)
    assert len(calls) == 2


def test_files_and_folders_count_by_their_contents(tmp_path):
    cache, folder = tmp_path / "cache", tmp_path / "raw"
    folder.mkdir()
    (folder / "a.txt").write_text("1")
    for path in (folder, folder / "a.txt"):
        calls.clear()
        (folder / "a.txt").write_text("1")
        assert cached(first_line, path, folder=cache)[0][0] == 1
        os.utime(folder / "a.txt", (1, 1))
        assert cached(first_line, path, folder=cache)[0][0] == 1
        assert len(calls) == 1
        (folder / "a.txt").write_text("2")
        assert cached(first_line, path, folder=cache)[0][0] == 2
    with pytest.raises(ValueError, match=r"is a text, and a file has this name: give pathlib\.Path"):
        cached(first_line, str(folder / "a.txt"), folder=cache)


def test_all_samples_of_a_data_set_count(tmp_path):
    rows = torch.arange(100.0).view(50, 2)
    data = Transformed(Arrays(rows), lambda sample, key: sample)
    cached(of_samples, data, folder=tmp_path)
    assert torch.equal(cached(of_samples, data, folder=tmp_path).take(range(50))[0], rows)
    assert len(calls) == 1
    rows[27, 1] = -1
    cached(of_samples, Transformed(Arrays(rows), lambda sample, key: sample), folder=tmp_path)
    assert len(calls) == 2
    state = torch.get_rng_state()
    noisy = Transformed(Arrays(rows), Noise())
    assert len({str(cached(of_samples, noisy, folder=tmp_path)[0]) for _ in range(2)}) == 1
    assert torch.equal(torch.get_rng_state(), state)


def test_what_is_drawn_follows_from_the_content(tmp_path):
    first = cached(drawn, 5, folder=tmp_path / "a").take(range(5))[0]
    random.random()
    assert torch.equal(cached(drawn, 5, folder=tmp_path / "b").take(range(5))[0], first)


@pytest.mark.parametrize("damage", ["byte", "cut", "gone", "json"])
def test_a_damaged_entry_is_computed_again_with_a_warning(tmp_path, damage):
    expected = cached(scaled, torch.arange(400.0), folder=tmp_path).take(range(400))[0]
    (file,) = tmp_path.glob("*/0.npy")
    content = bytearray(file.read_bytes())
    if damage == "byte":
        content[-3] ^= 1
        file.write_bytes(content)
    elif damage == "cut":
        file.write_bytes(content[:-10])
    elif damage == "gone":
        file.unlink()
    else:
        (file.parent / "entry.json").write_text("{")
    with pytest.warns(DataWarning, match="is damaged and computed again"):
        again = cached(scaled, torch.arange(400.0), folder=tmp_path)
    assert torch.equal(again.take(range(400))[0], expected)
    assert len(calls) == 2
    cached(scaled, torch.arange(400.0), folder=tmp_path)
    assert len(calls) == 2


def test_a_function_that_fails_leaves_nothing(tmp_path):
    with pytest.raises(TypeError):
        cached(scaled, torch.arange(3.0), "x", folder=tmp_path)
    assert not list(tmp_path.glob("[!.]*"))
    assert not list(tmp_path.glob(".building*"))


def _ask(folder, counted):
    def slow(count):
        with open(counted, "a") as file:
            file.write("x")
        return np.arange(count)

    assert len(cached(slow, 1000, folder=folder, version="1")) == 1000


def test_processes_that_ask_together_compute_it_once(tmp_path):
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=_ask, args=(tmp_path / "cache", tmp_path / "counted")) for _ in range(3)]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"os\.fork\(\) was called", RuntimeWarning)  # jax's; these do not call it
        for process in processes:
            process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    assert (tmp_path / "counted").read_text() == "x"


def test_it_is_bounded_and_can_be_emptied(tmp_path):
    for number in range(4):
        cached(scaled, torch.full((1000,), float(number)), folder=tmp_path, limit_bytes=10_000)
        for place, file in enumerate(sorted(tmp_path.glob("*/entry.json"), key=os.path.getmtime)):
            os.utime(file, (place, place))
    assert len(list(tmp_path.glob("*/entry.json"))) == 2
    cached(scaled, torch.full((1000,), 3.0), folder=tmp_path)
    assert len(calls) == 4
    (tmp_path / "mine.txt").write_text("stays")
    assert clear_cache(tmp_path) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


@pytest.mark.parametrize(
    ("function", "arguments", "error", "words"),
    [
        (scaled, [object()], TypeError, "an argument is a object, whose content cannot be compared"),
        (lambda: None, [], TypeError, r"the function must give arrays or tensors \[N, ...\] of numbers"),
        (lambda: np.array(["a"]), [], TypeError, "the function must give arrays"),
        (lambda: (np.zeros(2), np.zeros(3)), [], DataError, r"they have \[2, 3\] rows"),
        (len, [[1]], ValueError, "the source of .* cannot be read.*give it a version"),
        (first_line, [Path("none.txt")], FileNotFoundError, "none.txt"),
    ],
)
def test_what_cannot_be_kept_is_refused(tmp_path, function, arguments, error, words):
    with pytest.raises(error, match=words):
        cached(function, *arguments, folder=tmp_path)
