"""`functrain predict`: from files to files."""

import csv

import numpy as np
import pytest


@pytest.fixture
def inputs(runs):
    """Inputs of the tiny run, as an array and as a table."""
    rows = np.random.default_rng(0).normal(size=(5, 2)).astype(np.float32)
    np.save(runs / "rows.npy", rows)
    text = "\n".join(["x,y", *(",".join(map(repr, row.tolist())) for row in rows)])
    (runs / "rows.csv").write_text(text + "\n")
    return runs


def test_predict_from_an_array_and_from_a_table(functrain, inputs):
    code, out, err = functrain("predict", "runs/tiny", "runs/rows.npy")
    assert (code, err) == (0, "")
    assert "5 predictions of" in out
    table = inputs / "tiny" / "predictions" / "predictions.csv"
    rows = list(csv.DictReader(table.read_text().splitlines()))
    assert [row["name"] for row in rows] == ["0", "1", "2", "3", "4"]
    assert all(float(row[f"p({row['predicted']})"]) == max(float(row[f"p({i})"]) for i in range(3)) for row in rows)
    assert functrain("predict", "runs/tiny", "runs/rows.csv", "--out", "runs/other", "--ema")[0] == 0
    assert functrain("predict", "runs/tiny/checkpoints/last", "runs/rows.csv", "--out", "runs/again")[0] == 0
    assert (inputs / "again" / "predictions.csv").read_bytes() == table.read_bytes()
    assert (inputs / "other" / "predictions.csv").read_bytes() != table.read_bytes()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing.npy"], "there is no file or folder nothing.npy"),
        (["runs/rows.npy", "--threshold", "2"], "must be between 0 and 1"),
        (["runs/rows.npy", "--after", "blur:2"], "an operation on masks is one of"),
        (["runs/rows.npy", "--flips", "horizontal"], "flips are for images"),
        (["runs/rows.csv", "--columns", "z"], "no column 'z'; its columns are x, y"),
        (["runs/rows.csv", "--columns", "x"], "[32, 1]"),
    ],
)
def test_wrong_input_is_one_message(functrain, inputs, arguments, message):
    code, _, err = functrain("predict", "runs/tiny", *arguments)
    assert code == 2
    assert message in err
    assert err.count("\n") == 1
    assert not (inputs / "tiny" / "predictions").exists()
