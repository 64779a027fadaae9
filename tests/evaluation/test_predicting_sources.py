"""Inputs of predictions from files."""

import numpy as np
import pytest
import torch
from PIL import Image

from functrain.evaluation.predicting import read_inputs
from functrain.foundation.errors import DataError

ROWS = np.array([[0.5, 1.0, -2.0], [3.0, 4.0, 5.0]], np.float32)


def read(path, **options):
    return [(sample.name, sample.value) for sample in read_inputs(path, **options)]


def values(path, **options):
    return torch.stack([value for _, value in read(path, **options)])


def test_arrays_give_their_rows(tmp_path):
    np.save(tmp_path / "rows.npy", ROWS)
    np.savez(tmp_path / "one.npz", anything=ROWS)
    np.savez(tmp_path / "two.npz", inputs=ROWS, targets=np.zeros(2))
    np.savez(tmp_path / "other.npz", a=ROWS, b=2 * ROWS)
    for name, options, expected in (
        ("rows.npy", {}, ROWS),
        ("one.npz", {}, ROWS),
        ("two.npz", {}, ROWS),
        ("other.npz", {"key": "b"}, 2 * ROWS),
    ):
        torch.testing.assert_close(values(tmp_path / name, **options), torch.from_numpy(expected), rtol=0, atol=0)
    assert [name for name, _ in read(tmp_path / "rows.npy")] == ["0", "1"]


@pytest.mark.parametrize("text", ["0.5,1,-2\n3,4,5\n", "a,b,c\n0.5,1,-2\n3,4,5\n", "\ufeffa,b,c\n0.5,1,-2\n\n3,4,5"])
def test_tables_give_their_rows(tmp_path, text):
    (tmp_path / "t.csv").write_text(text, encoding="utf-8")
    torch.testing.assert_close(values(tmp_path / "t.csv"), torch.from_numpy(ROWS), rtol=0, atol=0)


def test_columns_are_chosen_by_name(tmp_path):
    from pyarrow import parquet, table

    (tmp_path / "t.csv").write_text("a,b,c\n0.5,1,-2\n3,4,5\n")
    parquet.write_table(table({name: ROWS[:, i] for i, name in enumerate("abc")}), tmp_path / "t.parquet")
    for name in ("t.csv", "t.parquet"):
        chosen = values(tmp_path / name, key="c, a")
        torch.testing.assert_close(chosen, torch.from_numpy(ROWS[:, [2, 0]].copy()), rtol=0, atol=0)
        with pytest.raises(DataError, match=r"no column 'z'; its columns are a, b, c"):
            read(tmp_path / name, key="z")
    torch.testing.assert_close(values(tmp_path / "t.parquet"), torch.from_numpy(ROWS), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("mode", "dtype", "top"), [("L", np.uint8, 255), ("RGB", np.uint8, 255), ("I;16", np.uint16, 65535)]
)
def test_images_are_scaled_to_one(tmp_path, mode, dtype, top):
    shape = (4, 6, 3) if mode == "RGB" else (4, 6)
    pixels = np.random.default_rng(0).integers(0, top, shape, endpoint=True).astype(dtype)
    pixels.flat[0] = top
    Image.fromarray(pixels).save(tmp_path / "one.png")
    [(name, value)] = read(tmp_path / "one.png")
    expected = pixels.astype(np.float32) / np.float32(top)
    expected = expected.transpose(2, 0, 1) if mode == "RGB" else expected[None]
    assert (name, value.dtype, value.max().item()) == ("one", torch.float32, 1.0)
    torch.testing.assert_close(value, torch.from_numpy(expected.copy()), rtol=0, atol=0)


def test_a_folder_gives_its_images_in_the_order_of_their_names(tmp_path):
    for name in ("b.png", "a.jpg", "c.PNG", "a.png"):
        Image.new("L", (2, 3), 7).save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no image")
    assert [name for name, _ in read(tmp_path)] == ["a.jpg", "a.png", "b", "c"]


BROKEN = {
    "empty.csv": (b"", "is empty"),
    "header.csv": (b"a,b\n", "has a header and no rows"),
    "words.csv": (b"a,b\n1,x\n", "row 0 of .* must be 2 numbers; got '1,x'"),
    "short.csv": (b"1,2\n3\n", "row 1 of .* must be 2 numbers; got '3'"),
    "half.npy": (b"\x93NUMPY\x01\x00v\x00", "cannot be read"),
    "none.npz": (b"PK", "cannot be read"),
    "noise.png": (b"not an image", "the image .* cannot be read"),
    "data.xlsx": (b"", r"inputs are read from \.npy"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_cannot_be_read_is_named(tmp_path, name):
    content, message = BROKEN[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        read(tmp_path / name)


def test_what_is_not_there_is_an_error_at_once(tmp_path):
    with pytest.raises(DataError, match="there is no file or folder"):
        read_inputs(tmp_path / "nothing")
    with pytest.raises(DataError, match="there is no image in"):
        read_inputs(tmp_path)
    np.savez(tmp_path / "two.npz", a=ROWS, b=ROWS)
    with pytest.raises(DataError, match=r"name one of a, b"):
        read_inputs(tmp_path / "two.npz")
    np.save(tmp_path / "text.npy", np.array(["a", "b"]))
    with pytest.raises(DataError, match="must hold numbers"):
        read_inputs(tmp_path / "text.npy")


def test_a_pickle_is_not_read(tmp_path):
    np.save(tmp_path / "objects.npy", np.array([{}, {}], object), allow_pickle=True)
    with pytest.raises(DataError, match="cannot be read"):
        read_inputs(tmp_path / "objects.npy")


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("order", ["C", "F"])
def test_rows_of_an_npz_are_read_one_after_another(tmp_path, save, order):
    rows = np.random.default_rng(0).normal(size=(200, 1000)).astype(">f4", order=order)
    save(tmp_path / "rows.npz", inputs=rows)
    found = read_inputs(tmp_path / "rows.npz")
    assert all(np.array_equal(next(found).value.numpy(), row) for row in rows)
    assert next(found, None) is None
    whole = (tmp_path / "rows.npz").read_bytes()
    (tmp_path / "rows.npz").write_bytes(whole[:9000] + b"?" * 100 + whole[9100:])
    with pytest.raises(DataError, match=r"rows\.npz cannot be read"):
        list(read_inputs(tmp_path / "rows.npz"))


def test_an_npy_that_is_called_npz_is_one_clear_error(tmp_path):
    np.save(tmp_path / "rows.npy", ROWS)
    (tmp_path / "rows.npy").rename(tmp_path / "rows.npz")
    with pytest.raises(DataError, match="cannot be read: File is not a zip file"):
        read_inputs(tmp_path / "rows.npz")
