"""Arrays and tokens on disk: the rows of the files, found by number in any process, never written to."""

import pickle

import numpy as np
import pytest
import torch
from data_helpers import same_bits

from functrain.data import Arrays, Loader, MemoryMapped, TokenWindows, as_stream, memory_mapped, tokens
from functrain.data.sampling import labels_of
from functrain.foundation.errors import DataError

VALUES = np.random.default_rng(0).normal(size=(23, 2, 3)).astype(np.float32)
LABELS = np.arange(23) % 3


@pytest.fixture
def folder(tmp_path):
    np.save(tmp_path / "inputs.npy", VALUES)
    np.save(tmp_path / "targets.npy", LABELS)
    for number, (begin, end) in enumerate([(0, 4), (4, 4), (4, 20), (20, 23)]):
        np.save(tmp_path / f"part-{number}.npy", VALUES[begin:end])
    return tmp_path


@pytest.mark.parametrize("pattern", ["inputs.npy", "part-*.npy"])
def test_the_batches_are_those_of_arrays_in_memory(folder, pattern):
    data = MemoryMapped(folder / pattern, folder / "targets.npy")
    expected = list(Loader(Arrays(VALUES, LABELS), 4).stream(3).batches(1))
    assert same_bits(list(Loader(data, 4).stream(3).batches(1)), expected)
    with_workers = as_stream(Loader(data, 4, num_workers=1, persistent_workers=True), 3)
    assert same_bits(list(with_workers.batches(1, start=2)), expected[2:])
    with_workers.close()
    assert same_bits(data.take([22, 0, 4, 4]), Arrays(VALUES, LABELS).take([22, 0, 4, 4]))
    assert same_bits(data[-1], data[22])
    assert labels_of(data).tolist() == LABELS.tolist()


def test_a_copy_for_a_worker_holds_paths_and_no_numbers(folder):
    data = MemoryMapped(folder / "inputs.npy", folder / "targets.npy")
    sent = pickle.dumps(data)
    assert len(sent) < 2000
    assert same_bits(pickle.loads(sent)[5], data[5])


def test_writing_into_a_sample_changes_no_file(folder):
    data, before = MemoryMapped(folder / "inputs.npy"), (folder / "inputs.npy").read_bytes()
    data[0][0].fill_(7)
    data.take([0])[0].fill_(7)
    assert (folder / "inputs.npy").read_bytes() == before
    assert torch.equal(data[0][0], torch.from_numpy(VALUES[0]))


def test_numbers_of_another_byte_order_are_turned(tmp_path):
    np.save(tmp_path / "a.npy", VALUES.astype(">f8"))
    assert torch.equal(MemoryMapped(tmp_path / "a.npy")[3][0], torch.from_numpy(VALUES[3].astype(np.float64)))


def test_files_that_cannot_be_used_are_named(folder, tmp_path):
    content = (folder / "inputs.npy").read_bytes()
    (tmp_path / "short.npy").write_bytes(content[:-10])
    (tmp_path / "head.npy").write_bytes(content[:20])
    (tmp_path / "text.npy").write_text("no array")
    np.save(tmp_path / "scalar.npy", np.float32(3))
    np.save(tmp_path / "objects.npy", np.array([{}, 1], object))
    np.save(tmp_path / "empty.npy", VALUES[:0])
    np.save(tmp_path / "other.npy", VALUES.astype(np.float64))
    for name, words in {
        "short.npy": "short.npy cannot be read as a .npy file: it is shorter than its header says",
        "head.npy": "head.npy cannot be read",
        "text.npy": "text.npy cannot be read",
        "scalar.npy": r"scalar.npy must hold numbers with a row for each example; got shape \[\]",
        "objects.npy": "objects.npy cannot be read",
        "empty.npy": "the data set is empty: .*empty.npy holds 0 rows",
        "none.npy": "there is no file .*none.npy",
        "none-*.npy": "there is no file .*none-",
    }.items():
        with pytest.raises(DataError, match=words):
            MemoryMapped(tmp_path / name)
    with pytest.raises(DataError, match=r"other.npy holds rows of \[2, 3\], float64, and .*inputs.npy rows of"):
        MemoryMapped([tmp_path / "inputs.npy", tmp_path / "other.npy"])
    with pytest.raises(DataError, match=r"the same number of rows.*inputs.npy: 23, .*part-0.npy: 4"):
        MemoryMapped(folder / "inputs.npy", folder / "part-0.npy")
    with pytest.raises(IndexError, match=r"index must lie in 0\.\.22, got 23"):
        MemoryMapped(folder / "inputs.npy")[23]


def test_a_file_that_has_changed_is_noticed_by_the_process_that_opens_it(folder):
    data, windows = MemoryMapped(folder / "inputs.npy"), TokenWindows(folder / "targets.npy", 4)
    sent = pickle.dumps((data, windows))
    np.save(folder / "inputs.npy", VALUES[:20])
    np.save(folder / "targets.npy", LABELS[:20])
    for each in pickle.loads(sent):
        with pytest.raises(DataError, match="than when the data set was made"):
            each[0]


def test_a_folder_for_each_split(tmp_path):
    (tmp_path / "train").mkdir()
    with pytest.raises(DataError, match=r"there is no file inputs.npy, or inputs-\*.npy, in .*train"):
        memory_mapped("train", path=str(tmp_path))
    for name, array in {"inputs-0": VALUES[:9], "inputs-1": VALUES[9:], "targets": LABELS, "weight": LABELS}.items():
        np.save(tmp_path / "train" / f"{name}.npy", array)
    data = memory_mapped("train", path=str(tmp_path))
    assert len(data[0]) == 3
    assert len(data) == 23
    assert memory_mapped("val", path=str(tmp_path)) is None
    with pytest.raises(DataError, match="there is no folder"):
        memory_mapped("train", path=str(tmp_path / "none"))


TEXT = np.random.default_rng(1).integers(0, 50_000, 1000)


@pytest.mark.parametrize("kind", ["bin", "npy", "shards"])
def test_windows_are_those_of_the_text_and_positions_are_reached_without_reading(tmp_path, kind):
    TEXT.astype("<u2").tofile(tmp_path / "train.bin")
    np.save(tmp_path / "train.npy", TEXT)
    for number in range(4):
        TEXT[number * 250 : (number + 1) * 250].astype("<u2").tofile(tmp_path / f"shard-{number}.bin")
    files = tmp_path / ("shard-*.bin" if kind == "shards" else f"train.{kind}")
    data = TokenWindows(files, 16)
    begins = [b for s in range(0, 1000, 250) for b in range(s, s + 233, 16)] if kind == "shards" else range(0, 983, 16)
    assert len(data) == len(begins)
    for index, begin in enumerate(begins):
        inputs, targets = data[index]
        assert inputs.dtype == torch.int64
        assert inputs.tolist() == TEXT[begin : begin + 16].tolist()
        assert targets.tolist() == TEXT[begin + 1 : begin + 17].tolist()
    stream = as_stream(Loader(data, 5), 1)
    whole = list(stream.batches(2))
    assert same_bits(whole[7:], list(as_stream(Loader(data, 5, num_workers=1), 1).batches(2, start=7)))
    assert same_bits(pickle.loads(pickle.dumps(data))[3], data[3])


def test_a_text_is_divided_into_splits_that_share_no_token(tmp_path):
    (tmp_path / "book.txt").write_bytes(bytes(range(200)))
    parts = [
        tokens(split, path=str(tmp_path / "book.txt"), length=4, dtype="uint8") for split in ("train", "val", "test")
    ]
    seen = [{int(t) for index in range(len(part)) for window in part[index] for t in window} for part in parts]
    assert not seen[0] & seen[1]
    assert not seen[1] & seen[2]
    assert max(seen[0]) < 180 <= min(seen[1])
    (tmp_path / "val.bin").write_bytes(bytes(60))
    with pytest.raises(DataError, match=r"there is no file in .* whose name begins with 'train'"):
        tokens("train", path=str(tmp_path))
    assert len(tokens("val", path=str(tmp_path), length=4)) == 7
    assert tokens("test", path=str(tmp_path), length=4) is None


def test_wrong_tokens_are_refused(tmp_path):
    (tmp_path / "odd.bin").write_bytes(bytes(9))
    (tmp_path / "few.bin").write_bytes(bytes(8))
    (tmp_path / "none.bin").write_bytes(b"")
    np.save(tmp_path / "floats.npy", VALUES)
    for name, words in {
        "odd.bin": "odd.bin has 9 bytes, no whole number of uint16 tokens",
        "few.bin": "few.bin holds 4 tokens, too few for a window of length=4",
        "none.bin": "none.bin holds 0 tokens",
        "floats.npy": "floats.npy must hold tokens",
    }.items():
        with pytest.raises(DataError, match=words):
            TokenWindows(tmp_path / name, 4)
    for options, words in (
        ({"length": 0}, "length must be a whole number >= 1"),
        ({"length": 4, "dtype": "float32"}, "dtype must be one of 'uint8', 'uint16'"),
        ({"length": 4, "part": (0.5, 0.5)}, "part must be two fractions"),
    ):
        with pytest.raises(ValueError, match=words):
            TokenWindows(tmp_path / "few.bin", **options)
