"""Checkpoints that several processes write together, and read together: here they are threads."""

import os
import zlib
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from thread_peers import in_pieces, on_all, thread_peers

from functrain.checkpoint import (
    Checkpointer,
    CheckpointWarning,
    DamagedCheckpointError,
    PieceWriter,
    read_arrays,
    read_checkpoint,
    row_store,
    verify_checkpoints,
    without_sight_of,
)
from functrain.checkpoint.checksums import joined
from functrain.checkpoint.index import load_index
from functrain.checkpoint.row_store import StoredArrays
from functrain.foundation.errors import CheckpointError
from functrain.foundation.trees import leaves


def make_tree(seed: int = 0, rows: int = 11) -> dict:
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(rows, 40, generator=generator)
    return {
        "params": {"w x/y": weight, "b": torch.randn(rows, generator=generator).bfloat16(), "scale": torch.tensor(2.0)},
        "opt": (torch.randn(rows, 40, generator=generator), torch.arange(rows) % 2 == 0, torch.zeros(0, 3)),
        "step": 3 + seed,
    }


def save(directory: Path, tree: dict, ranks: int, step: int = 1, **failing) -> list:
    """Save once with so many processes; how it ended on each."""

    def work(peers):
        if failing.get("ends") == peers.rank:
            return peers.ends()
        own = in_pieces(tree, peers.rank, ranks)
        if peers.rank == 0:
            with Checkpointer(directory, peers=peers) as checkpointer:
                checkpointer.save(own, step=step)
        else:
            with PieceWriter(directory, peers, copy=True) as piece_writer:
                piece_writer.save(own)
        return None

    return on_all(thread_peers(ranks), work)


def restore(directory: Path, like: dict, ranks: int, which: str = "last") -> list:
    def work(peers):
        checkpointer = Checkpointer(directory, read_only=peers.rank > 0, peers=peers)
        return checkpointer.restore(in_pieces(like, peers.rank, ranks), which).tree

    return on_all(thread_peers(ranks), work)


def expected(tree: dict, rank: int, ranks: int) -> list:
    return [leaf.rows if hasattr(leaf, "rows") else leaf for leaf in leaves(in_pieces(tree, rank, ranks))]


def check_equal(found: dict, wanted: list) -> None:
    assert not isinstance(found, Exception), found
    for one, other in zip(leaves(found), wanted, strict=True):
        if isinstance(other, torch.Tensor):
            assert (one.dtype, one.shape) == (other.dtype, other.shape)
            assert torch.equal(one, other)
        else:
            assert one == other


def file_of(directory: Path, group: str, rank: int) -> Path:
    """The largest file with a process's rows."""
    folder = next(directory.glob(f"step-*/{group}/{row_store.folder_of(rank)}"))
    return max((path for path in folder.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)


@given(st.lists(st.binary(max_size=300), max_size=5))
def test_the_checksum_of_parts_is_that_of_the_whole(parts):
    assert joined([(zlib.crc32(part), len(part)) for part in parts]) == zlib.crc32(b"".join(parts))


@given(st.integers(1, 20), st.integers(1, 4), st.integers(1, 4))
@settings(max_examples=8, deadline=None)
def test_what_some_processes_write_any_number_reads(tmp_path_factory, rows, writing, reading):
    directory, tree = tmp_path_factory.mktemp("pieces"), make_tree(rows=rows)
    assert save(directory, tree, writing) == [None] * writing
    checkpoint = directory / "step-00000001"
    assert os.listdir(directory) in (["step-00000001"], ["last", "step-00000001"], ["step-00000001", "last"])
    assert verify_checkpoints(directory).ok
    check_equal(read_checkpoint(checkpoint, tree).tree, leaves(tree))
    for rank, found in enumerate(restore(directory, tree, reading)):
        check_equal(found, expected(tree, rank, reading))
    with Checkpointer(directory) as checkpointer:
        checkpointer.save(tree, step=2)
    together, alone = (
        {name: [leaf.crc32 for leaf in group.leaves.values()] for name, group in load_index(path).groups.items()}
        for path in (checkpoint, directory / "step-00000002")
    )
    assert together == alone
    for rank, found in enumerate(restore(directory, tree, reading)):
        check_equal(found, expected(tree, rank, reading))


def test_each_process_writes_its_rows_and_reads_no_others(tmp_path, monkeypatch):
    tree = {"params": {"w": torch.randn(512, 256), "bias": torch.randn(7)}}
    assert save(tmp_path, tree, 4) == [None] * 4
    for rank in range(4):
        assert file_of(tmp_path, "params", rank).stat().st_size == pytest.approx(128 * 1024, rel=0.01)
    sizes: list[int] = []
    value = StoredArrays._value

    def counting(self, name, where=None):
        found = value(self, name, where)
        sizes.append(len(found))
        return found

    monkeypatch.setattr(StoredArrays, "_value", counting)
    monkeypatch.setattr(row_store, "AT_ONCE", 2**14)
    for ranks in (2, 3, 8):
        sizes.clear()
        for rank, found in enumerate(restore(tmp_path, tree, ranks)):
            check_equal(found, expected(tree, rank, ranks))
        assert max(sizes) <= 2**14
        assert sum(sizes) < 512 * 1024 + ranks * 20_000


@pytest.mark.parametrize("failing", [0, 1, 2])
def test_where_one_cannot_write_nothing_is_committed_and_all_say_who(tmp_path, monkeypatch, failing):
    tree = make_tree()
    assert save(tmp_path, tree, 3) == [None] * 3
    write = row_store.write_rows

    def full(directory, found):
        if directory.name == row_store.folder_of(failing):
            directory.mkdir(parents=True)
            (directory / "half").write_bytes(b"half")
            raise OSError(28, "No space left on device")
        write(directory, found)

    monkeypatch.setattr(row_store, "write_rows", full)
    outcomes = save(tmp_path, tree, 3, step=2)
    words = f"process {failing} could not write its rows: " if failing else ""
    assert all(isinstance(each, CheckpointError) for each in outcomes), outcomes
    assert all(f"{words}[Errno 28] No space left on device" in str(each) for each in outcomes), outcomes
    assert sorted(os.listdir(tmp_path)) == ["last", "step-00000001"]
    monkeypatch.undo()
    assert save(tmp_path, tree, 3, step=2) == [None] * 3
    assert verify_checkpoints(tmp_path).newest_good == "step-00000002"


def test_where_one_ends_nothing_is_committed_and_the_others_say_who(tmp_path):
    outcomes = save(tmp_path, make_tree(), 3, ends=1)
    for rank in (0, 2):
        assert "process 1 has ended, or does not answer" in str(outcomes[rank])
    assert os.listdir(tmp_path) == []


def test_where_the_first_ends_the_others_say_so(tmp_path):
    outcomes = save(tmp_path, make_tree(), 3, ends=0)
    for rank in (1, 2):
        assert "process 0 has ended, or does not answer" in str(outcomes[rank])
    assert not tmp_path.exists() or os.listdir(tmp_path) == []


def test_the_error_of_a_save_is_raised_by_the_first_alone_where_training_goes_on(tmp_path):
    """The others hear of it, and wait no longer."""
    tree, peers = make_tree(), thread_peers(2)
    (tmp_path / "file").touch()

    def work(each):
        own = in_pieces(tree, each.rank, 2)
        if each.rank:
            with PieceWriter(tmp_path / "file", each) as piece_writer:
                piece_writer.save(own)
                piece_writer.save(own)
                with pytest.raises(CheckpointError, match="could not save a checkpoint in"):
                    piece_writer.wait()
                return piece_writer.wait()
        checkpointer = Checkpointer(tmp_path / "file", peers=each)
        for _ in range(2):
            checkpointer.save(own, step=1)
            with pytest.raises(CheckpointError, match="could not save checkpoint"):
                checkpointer.wait()
        return None

    assert on_all(peers, work) == [None, None]


@pytest.mark.parametrize("rank", [0, 2])
def test_damage_to_the_rows_of_one_process_is_found_and_named(tmp_path, rank):
    tree = {"params": {"w": torch.randn(3 * 4096, 128)}}
    assert save(tmp_path, tree, 3) == [None] * 3
    file = file_of(tmp_path, "params", rank)
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 16
    file.write_bytes(data)
    words = (
        f"the data of params/w do not match their checksum; the damage is in rows {rank * 4096} to "
        f"{rank * 4096 + 4095}, which process {rank} wrote"
    )
    [verdict] = verify_checkpoints(tmp_path).checkpoints
    assert (verdict.status, verdict.reason) == ("damaged", words)
    with pytest.raises(DamagedCheckpointError, match=words):
        read_arrays(tmp_path / "last")
    for found in restore(tmp_path, tree, 3):
        assert words in str(found)
    for found in restore(tmp_path, tree, 2):
        assert isinstance(found, CheckpointError)
        assert "the data of params/w do not match their checksum" in str(found)


def test_small_and_missing_files_of_one_process_are_named(tmp_path):
    tree = make_tree()
    assert save(tmp_path, tree, 2) == [None] * 2
    file = file_of(tmp_path, "opt", 1)
    file.write_bytes(file.read_bytes()[:-1])
    [verdict] = verify_checkpoints(tmp_path).checkpoints
    assert verdict.status == "damaged"
    assert f"its file opt/{row_store.folder_of(1)}/" in verdict.reason


def test_all_fall_back_to_the_same_older_checkpoint(tmp_path):
    older, newer = make_tree(), make_tree(1)
    assert save(tmp_path, older, 2, step=1) == save(tmp_path, newer, 2, step=2) == [None] * 2
    file = max(
        (tmp_path / "step-00000002/params").glob(f"{row_store.folder_of(1)}/d/*"), key=lambda p: p.stat().st_size
    )
    file.write_bytes(b"x" + file.read_bytes()[1:])
    with pytest.warns(CheckpointWarning, match=r"renamed to step-00000002\.damaged and step-00000001 is used instead"):
        found = restore(tmp_path, older, 3)
    for rank, each in enumerate(found):
        check_equal(each, expected(older, rank, 3))


def test_a_checkpoint_of_another_model_is_refused_on_all(tmp_path):
    assert save(tmp_path, make_tree(), 2) == [None] * 2
    for found in restore(tmp_path, make_tree(rows=12), 2):
        assert "float32 (11, 40) in the checkpoint, float32 (12, 40) in the state" in str(found)


def test_an_array_in_another_layout_is_read_whole(tmp_path, monkeypatch):
    tree = make_tree()
    with Checkpointer(tmp_path) as checkpointer:
        checkpointer.save(tree, step=1)
    monkeypatch.setattr(row_store, "_is_sharded", lambda *_: (_ for _ in ()).throw(row_store.UnknownLayoutError()))
    for rank, found in enumerate(restore(tmp_path, tree, 2)):
        check_equal(found, expected(tree, rank, 2))


def test_many_small_leaves_in_a_bundle_are_read_in_parts(tmp_path):
    tree = {"params": {f"w{number:02}": torch.randn(number + 1, 3) for number in range(40)}}
    with Checkpointer(tmp_path) as checkpointer:
        checkpointer.save(tree, step=1)
    for rank, found in enumerate(restore(tmp_path, tree, 3)):
        check_equal(found, expected(tree, rank, 3))


def test_processes_without_sight_of_the_directory_are_found(tmp_path):
    there, elsewhere = tmp_path / "run", tmp_path / "elsewhere"

    def work(peers):
        return without_sight_of(there, peers)

    assert on_all(thread_peers(3), work) == [[], [], []]
    assert os.listdir(tmp_path) == []
    peers = thread_peers(3)
    assert on_all(peers, lambda each: without_sight_of(elsewhere if each.rank == 1 else there, each)) == [[1]] * 3
