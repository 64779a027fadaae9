"""Tables: fitted on the training rows only, the same for the same row, errors that name column and row."""

import json
import math

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from functrain.data import DataWarning, TablePreprocessor, table
from functrain.data.columns import column_pieces, read_columns
from functrain.data.fitted import preprocessor_from
from functrain.foundation.errors import DataError

ROWS = 60


def write(path, **changes):
    rng = np.random.default_rng(0)
    columns = {
        "id": [f"row{i}" for i in range(ROWS)],
        "age": [f"{age:.1f}" if i % 9 else "" for i, age in enumerate(rng.normal(50, 10, ROWS))],
        "town": [("Bonn", "Rome", "Oslo")[i % 3] for i in range(ROWS)],
        "size": [("small", "large", "medium")[i % 3] for i in range(ROWS)],
        "patient": [f"p{i // 4}" for i in range(ROWS)],
        "ill": ["yes" if i % 4 == 0 else "no" for i in range(ROWS)],
        "dose": [str(i * 10 % 70) for i in range(ROWS)],
        **changes,
    }
    lines = [",".join(columns), *(",".join(row) for row in zip(*columns.values()))]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return columns


def parts(path, **options):
    options = {"target": "ill", "ignore": ["id", "patient"], **options}
    return [table(split, path=str(path), **options) for split in ("train", "val", "test")]


def test_all_is_measured_on_the_training_rows(tmp_path):
    columns = write(tmp_path / "t.csv")
    train, val, test = parts(tmp_path / "t.csv")
    fitted = train.preprocessor
    assert fitted == val.preprocessor == test.preprocessor
    assert len(train) + len(val) + len(test) == ROWS
    age = fitted.features.index("age")
    known = train.tensors[0][:, fitted.features.index("age is missing")] == 0
    assert train.tensors[0][known, age].mean().abs() < 1e-5
    assert abs(train.tensors[0][known, age].std(correction=0) - 1) < 1e-5
    assert train.tensors[0][~known, age].abs().max() < 1e-6  # the mean
    assert fitted.features == [
        *("age", "age is missing", "town=Bonn", "town=Oslo", "town=Rome"),
        *("size=large", "size=medium", "size=small", "dose"),
    ]
    assert set(map(float, train.tensors[0][:, 2:5].sum(1))) == {1.0}
    write(tmp_path / "t.csv", age=[*columns["age"][:-1], "1e9"])  # the last row may be in any split
    changed = parts(tmp_path / "t.csv")[0].preprocessor.columns[0]
    in_training = changed.mean > 1e6
    assert in_training or changed == fitted.columns[0]
    assert train.preprocessor.classes == ("no", "yes")
    shares = [float(part.tensors[1].float().mean()) for part in (train, val, test)]
    assert max(shares) - min(shares) < 0.1


def test_a_row_alone_is_what_it_is_among_others_and_columns_may_come_in_any_order(tmp_path):
    write(tmp_path / "t.csv")
    fitted = parts(tmp_path / "t.csv")[0].preprocessor
    rows = read_columns(tmp_path / "t.csv")
    together = fitted(rows)
    for row in (0, 9, 59):
        alone = {name: [cells[row]] for name, cells in reversed(rows.items())}
        assert torch.equal(fitted(alone)[0], together[row])


def test_a_fitted_preprocessor_travels_through_json_without_a_bit_lost(tmp_path):
    write(tmp_path / "t.csv")
    options = {"ordinal": {"size": ["small", "medium", "large"]}, "target": "dose", "target_is": "number"}
    fitted = parts(tmp_path / "t.csv", standardise_target=True, **options)[0].preprocessor
    again = preprocessor_from(json.loads(json.dumps(fitted.to_json())))
    rows = read_columns(tmp_path / "t.csv")
    assert again == fitted
    assert torch.equal(again(rows), fitted(rows))
    torch.testing.assert_close(
        again.in_own_unit(again.targets(rows)).flatten(),
        torch.tensor([float(cell) for cell in rows["dose"]], dtype=torch.float64),
        rtol=0,
        atol=1e-4,
    )
    places = fitted(rows)[:, fitted.features.index("size")]
    small, large, medium = places[:3]
    assert small < medium < large


def test_parquet_gives_what_csv_gives(tmp_path):
    columns = write(tmp_path / "t.csv")
    numbers = {
        "age": [float(cell) if cell else None for cell in columns["age"]],
        "dose": list(map(int, columns["dose"])),
    }
    parquet.write_table(pa.table({**columns, **numbers}), tmp_path / "t.parquet")
    first, second = parts(tmp_path / "t.csv")[0], parts(tmp_path / "t.parquet")[0]
    assert first.preprocessor == second.preprocessor
    assert all(torch.equal(a, b) for a, b in zip(first.tensors, second.tensors))


def test_no_group_is_in_two_splits(tmp_path):
    columns = write(tmp_path / "t.csv")
    plain = read_columns(tmp_path / "t.csv")
    found = parts(tmp_path / "t.csv", ignore=["id"], group="patient")
    fitted = found[0].preprocessor
    assert not any("patient" in feature for feature in fitted.features)
    everything = fitted(plain)
    patients = []
    for part in found:
        rows = [i for i in range(ROWS) if (part.tensors[0] == everything[i]).all(1).any()]
        patients.append({columns["patient"][i] for i in rows})
    assert sum(map(len, patients)) >= 15
    assert [len(part) % 4 for part in found] == [0, 0, 0]


def test_a_split_may_be_left_out(tmp_path):
    write(tmp_path / "t.csv")
    train, val, test = parts(tmp_path / "t.csv", fractions=(0.8, 0.2, 0.0))
    assert test is None
    assert len(train) + len(val) == ROWS


def test_a_new_category_is_none_of_the_known_and_says_so(tmp_path):
    write(tmp_path / "t.csv")
    fitted = parts(tmp_path / "t.csv")[0].preprocessor
    row = {"age": ["30"], "town": ["Kiel"], "size": ["large"], "dose": ["0"]}
    with pytest.warns(DataWarning, match=r"'town' has values that no training row has: 'Kiel'.*none of 'Bonn', 'Oslo'"):
        found = fitted(row)
    assert not found[0, 2:5].any()


@given(
    st.lists(st.one_of(st.none(), st.floats(-1e6, 1e6), st.integers(-99, 99)), min_size=2, max_size=30),
    st.sampled_from(["mean", "median"]),
)
@settings(max_examples=50)
def test_any_column_of_numbers_becomes_finite_features(cells, missing):
    if all(cell is None for cell in cells):
        return
    labels = ["a", "b"] * len(cells)
    fitted = TablePreprocessor.fit({"x": cells, "y": labels[: len(cells)]}, target="y", missing=missing)
    found = fitted({"x": [*cells, None]})
    assert found.isfinite().all()
    assert len(fitted.features) == 1 + any(cell is None for cell in cells)


@pytest.mark.parametrize(
    ("changes", "options", "error", "words"),
    [
        ({}, {"target": "sick"}, ValueError, "target: .* has no column 'sick'; it has 'id', 'age'"),
        (
            {},
            {"target": "dose"},
            ValueError,
            "'dose' holds numbers: say what they are, target_is='classes' or 'number'",
        ),
        ({}, {"ignore": ["name"]}, ValueError, "ignore: the table has no column 'name'"),
        ({}, {"ignore": [], "most_categories": 10}, DataError, "'id' has 36 different values in 36 training rows"),
        ({}, {"missing": "refuse"}, DataError, "'age' has no value in training row"),
        ({}, {"missing": "zero"}, ValueError, "missing must be 'mean', 'median' or 'refuse', got 'zero'"),
        ({}, {"ordinal": {"size": ["small", "large"]}}, DataError, "values that its order does not name: 'medium'"),
        ({}, {"ordinal": {"size": ["small"]}}, ValueError, "two or more, each once"),
        ({}, {"categorical": ["ill"]}, ValueError, "'ill' is named for two purposes"),
        ({}, {"fractions": (0.5, 0.5)}, ValueError, "fractions must be the shares of train, val and test"),
        ({}, {"group": "ward"}, ValueError, "group: .* has no column 'ward'"),
        ({"age": [""] * ROWS}, {}, DataError, "'age' has no value in the training rows; leave it out"),
        ({"ill": ["", *["no", "yes"] * 30][:ROWS]}, {}, DataError, "rows have no target 'ill'"),
        ({"ill": ["no"] * ROWS}, {}, DataError, "the target 'ill' has the one value 'no'"),
        (
            {"age": ["inf", *["1"] * (ROWS - 1)]},
            {"fractions": (1.0, 0, 0)},
            DataError,
            "'age' holds numbers, but row 0",
        ),
        (
            {"dose": ["x"] * ROWS},
            {"target": "dose", "target_is": "number"},
            DataError,
            "'dose' holds numbers, but row 0",
        ),
        ({}, {"standardise_target": True}, ValueError, "standardise_target is for a target that is a number"),
    ],
)
def test_what_cannot_be_used_is_refused_by_name(tmp_path, changes, options, error, words):
    write(tmp_path / "t.csv", **changes)
    with pytest.raises(error, match=words):
        parts(tmp_path / "t.csv", **options)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is empty; the first line of a table names its columns"),
        ("a,a\n1,2\n", "has two columns 'a'"),
        ("a,\n1,2\n", "has a column without a name"),
        ("a,b\n1\n", "line 2 of .* has 1 cells, the header has 2: '1'"),
        ("a;b\n1;2\n", "its delimiter may be ';'"),
        ("a,b\n", "has a header and no rows"),
        ('a,b\n"1,2\n', "cannot be read as a CSV file"),
    ],
)
def test_a_file_that_is_no_table_is_refused_by_line(tmp_path, text, words):
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(DataError, match=words):
        read_columns(tmp_path / "t.csv")


def test_other_files_are_refused(tmp_path):
    (tmp_path / "t.csv").write_bytes(b"a,b\n\xff\xfe,1\n")
    (tmp_path / "t.parquet").write_bytes(b"PAR1 no")
    (tmp_path / "t.txt").write_text("a")
    for name, words in {
        "t.csv": "cannot be read as a CSV file in UTF-8",
        "t.parquet": "cannot be read as a Parquet file",
        "t.txt": "tables are read from .csv and .parquet",
        "none.csv": "there is no file",
    }.items():
        with pytest.raises(DataError, match=words):
            read_columns(tmp_path / name)


def test_rows_are_numbered_over_the_whole_file(tmp_path, monkeypatch):
    monkeypatch.setattr("functrain.data.columns.ROWS", 8)
    columns = write(tmp_path / "t.csv")
    fitted = parts(tmp_path / "t.csv")[0].preprocessor
    assert [len(piece["id"]) for piece in column_pieces(tmp_path / "t.csv")] == [8] * 7 + [4]
    write(tmp_path / "new.csv", age=[*columns["age"][:50], "old", *columns["age"][51:]])
    with pytest.raises(DataError, match="'age' holds numbers, but row 50 has 'old'"):
        list(fitted.rows(tmp_path / "new.csv"))
    assert len(list(fitted.rows(tmp_path / "t.csv"))) == ROWS
    assert math.isfinite(float(next(fitted.rows(tmp_path / "t.csv")).sum()))


@pytest.mark.parametrize("group", [None, "patient"])
def test_each_row_validates_in_one_fold_and_is_measured_in_the_others(tmp_path, group):
    columns = write(tmp_path / "t.csv")
    columns["age"] = [f"{i}" for i in range(ROWS)]  # names the row
    write(tmp_path / "t.csv", age=columns["age"])
    options = {"path": str(tmp_path / "t.csv"), "target": "ill", "group": group, "folds": 3}
    options["ignore"] = ["id", *(["patient"] if group is None else [])]
    seen = []
    for fold in range(3):
        train, val = (table(split, fold=fold, **options) for split in ("train", "val"))
        assert table("test", fold=fold, **options) is None
        fitted = train.preprocessor.columns[0]
        rows = [
            [round(float(age) * fitted.std + fitted.mean) for age in part.tensors[0][:, 0]] for part in (train, val)
        ]
        assert sorted(rows[0] + rows[1]) == list(range(ROWS))
        assert fitted.mean == pytest.approx(np.mean(rows[0]), rel=1e-12)
        if group is None:
            assert val.tensors[1].sum() == 5  # a third of the 15
        else:
            assert not {row // 4 for row in rows[0]} & {row // 4 for row in rows[1]}
        seen += rows[1]
    assert sorted(seen) == list(range(ROWS))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fold": 5}, "fold must be a whole number from 0 to 4, got 5"),
        ({"fold": -1, "folds": 3}, "from 0 to 2, got -1"),
        ({"fold": True}, "got True"),
        ({"folds": 1}, "folds must be a whole number >= 2, got 1"),
        ({"fold": 0, "fractions": (0.5, 0.5, 0.0)}, "give fold or fractions, not both"),
    ],
)
def test_folds_that_there_are_not_are_refused(tmp_path, options, message):
    write(tmp_path / "t.csv")
    with pytest.raises(ValueError, match=message):
        parts(tmp_path / "t.csv", **options)
