"""Laws of the rows that an evaluation keeps in files."""

import itertools
import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import functrain as ft
from functrain.data import Arrays, Loader
from functrain.evaluation import kept_rows
from functrain.evaluation.array_files import ColumnFile
from functrain.evaluation.kept_rows import BatchRows, KeptRows
from functrain.foundation.errors import DataError, FunctrainError


@pytest.fixture(autouse=True)
def _commits_each_batch(monkeypatch):
    monkeypatch.setattr(kept_rows, "COMMIT_SECONDS", 0.0)


def batch(start, stop):
    values = np.arange(start * 3, stop * 3, dtype=np.float32).reshape(-1, 3)
    return BatchRows({"logits": values, "targets": np.arange(start, stop)}, {"sum": values.sum(0).astype(float)})


def everything(rows):
    parts = list(rows.parts("logits", "targets"))
    return [np.concatenate(arrays) for arrays in zip(*parts)]


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(0, 5), min_size=1, max_size=8), st.data())
def test_rows_do_not_depend_on_batches_nor_on_the_processes_that_wrote_them(tmp_path_factory, sizes, data):
    folder = tmp_path_factory.mktemp("rows")
    ends = np.cumsum([0, *sizes])
    rows = KeptRows(folder, {"of": "a"})
    for number, (start, stop) in enumerate(itertools.pairwise(ends)):
        if data.draw(st.booleans()):
            rows = KeptRows(folder, {"of": "a"})  # as after a kill
        assert rows.batches == number
        rows.append(batch(start, stop))
    logits, targets = everything(KeptRows(folder, {"of": "a"})) if ends[-1] else (np.empty((0, 3)), np.empty(0))
    expected = batch(0, ends[-1])
    assert np.array_equal(logits, expected.arrays["logits"])
    assert np.array_equal(targets, expected.arrays["targets"])
    assert np.allclose(rows.sums["sum"], expected.sums["sum"], rtol=1e-15)


def test_what_was_appended_after_the_last_commit_is_cut_off(tmp_path, monkeypatch):
    rows = KeptRows(tmp_path)
    rows.append(batch(0, 4))
    monkeypatch.setattr(kept_rows, "COMMIT_SECONDS", 1e9)
    rows.append(batch(4, 6))
    again = KeptRows(tmp_path)
    assert (again.batches, len(again)) == (1, 4)
    again.append(batch(4, 5))
    assert everything(again)[1].tolist() == [0, 1, 2, 3, 4]


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: flip(folder / "logits.rows"),
        lambda folder: (folder / "targets.rows").unlink(),
        lambda folder: (folder / "logits.rows").write_bytes(b""),
        lambda folder: (folder / "progress.json").write_text("{"),
        lambda folder: (folder / "progress.json").write_text("[]"),
        lambda folder: (folder / "progress.json").write_bytes(b"\xff"),
        lambda folder: (folder / "progress.json").write_text(json.dumps({"about": {}, "batches": "many"})),
        lambda folder: (folder / "progress.json").unlink(),
    ],
)
def test_damaged_rows_are_removed_and_nothing_else(tmp_path, damage):
    KeptRows(tmp_path).append(batch(0, 4))
    (tmp_path / "of-the-user.txt").write_text("mine")
    damage(tmp_path)
    rows = KeptRows(tmp_path)
    assert (rows.batches, len(rows), rows.sums) == (0, 0, {})
    rows.append(batch(0, 2))
    assert len(KeptRows(tmp_path)) == 2
    rows.remove()
    assert [path.name for path in tmp_path.iterdir()] == ["of-the-user.txt"]


def test_rows_of_something_else_are_removed(tmp_path):
    KeptRows(tmp_path, {"checkpoint": "a"}).append(batch(0, 4))
    assert len(KeptRows(tmp_path, {"checkpoint": "a"})) == 4
    assert len(KeptRows(tmp_path, {"checkpoint": "b"})) == 0


def test_batches_of_two_shapes_are_refused():
    rows = KeptRows()
    rows.append(BatchRows({"logits": np.zeros((2, 3))}))
    with pytest.raises(DataError, match=r"logits of one shape: got \[4\] for an example after \[3\]"):
        rows.append(BatchRows({"logits": np.zeros((2, 4))}))


def test_a_folder_that_cannot_be_written_is_one_clear_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(FunctrainError, match="file/rows cannot be written: Not a directory"):
        KeptRows(tmp_path / "file" / "rows")


@given(st.lists(st.integers(0, 4), min_size=1, max_size=5), st.integers(1, 4))
@settings(max_examples=20, deadline=None)
def test_columns_do_not_depend_on_the_parts(tmp_path_factory, sizes, columns):
    whole = np.random.default_rng(0).normal(size=(sum(sizes), columns))
    file = ColumnFile(tmp_path_factory.mktemp("columns") / "c", np.dtype(float), len(whole), columns)
    for start, size in zip(np.cumsum([0, *sizes]), sizes):
        file.append(whole[start : start + size])
    for number in range(columns if len(whole) else 0):
        assert np.array_equal(file.column(number), whole[:, number])


class Counted(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer, self.calls = nn.Linear(4, 3), 0

    def forward(self, inputs):
        self.calls += 1
        if self.calls > self.most:
            raise KeyboardInterrupt
        return self.layer(inputs)

    most = 10**9


def reported(model, folder, inputs, seed=0):
    torch.manual_seed(seed)
    model.layer.reset_parameters()
    state = ft.init_state(model, ft.classification(), ft.optim.sgd(0.1))
    loader = Loader(Arrays(inputs, torch.arange(len(inputs)) % 3), batch_size=4)
    return ft.evaluation_report(state, loader, keep=folder)


def test_a_report_goes_on_only_with_the_same_model_and_data(tmp_path, monkeypatch):
    inputs = torch.randn(40, 4, generator=torch.Generator().manual_seed(1))
    expected = reported(Counted(), None, inputs).numbers

    def interrupted(folder):
        monkeypatch.setattr(Counted, "most", 6)
        with pytest.raises(KeyboardInterrupt):
            reported(Counted(), folder, inputs)
        monkeypatch.setattr(Counted, "most", 10**9)
        return folder

    model = Counted()
    assert reported(model, interrupted(tmp_path / "same"), inputs).numbers == expected
    assert model.calls < 10  # the first batch again, and those that were missing
    assert reported(Counted(), tmp_path / "same", inputs).numbers == expected
    for name, other in {"seed": {"seed": 1}, "data": {"inputs": inputs + 1}}.items():
        given_ = {"inputs": inputs, **other}
        found = reported(Counted(), interrupted(tmp_path / name), **given_).numbers
        assert found == reported(Counted(), None, **given_).numbers

    class Changed(Counted):  # other code, equal parameters
        def forward(self, inputs):
            return super().forward(inputs) * 2

    found = reported(Changed(), interrupted(tmp_path / "code"), inputs).numbers
    assert found == reported(Changed(), None, inputs).numbers
