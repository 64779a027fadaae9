"""What users read when something cannot be saved or restored."""

import os
import resource

import numpy as np
import pytest
import torch

from functrain.checkpoint import Checkpointer, CheckpointWarning, background, files, read_arrays, read_info
from functrain.foundation.errors import CheckpointError

TREE = {"params": {"w": torch.ones(3, 4), "b": torch.ones(4)}, "step": 3}


@pytest.fixture
def saved(tmp_path):
    with Checkpointer(tmp_path) as checkpointer:
        checkpointer.save(TREE, step=3)
    return tmp_path


def test_a_misfit_lists_leaves_with_both_shapes(saved):
    like = {
        "params": {"w": torch.ones(3, 5), "c": torch.ones(4, dtype=torch.float64)},
        "step": torch.tensor(0),
        "x": "y",
    }
    with pytest.raises(CheckpointError) as error:
        Checkpointer(saved).restore(like)
    assert str(error.value) == (
        f"checkpoint {saved}/step-00000003 does not fit the state it is to be restored into:\n"
        "  params/c: not in the checkpoint, float64 (4,) in the state\n"
        "  params/w: float32 (3, 4) in the checkpoint, float32 (3, 5) in the state\n"
        "  params/b: float32 (4,) in the checkpoint, not in the state\n"
        "  step: int in the checkpoint, int64 () in the state\n"
        "  x: not in the checkpoint, str in the state\n"
        "This checkpoint belongs to another model or optimizer: build the state as it was built when the "
        "checkpoint was saved, or restore only what fits, as in groups=('params',)."
    )


def test_a_misfit_of_many_leaves_is_counted(saved):
    like = {"params": {f"layer{i:02}": torch.ones(1) for i in range(20)}, "step": 0}
    with pytest.raises(CheckpointError, match=r"layer09: .*\n  \.\.\. and 12 more\nThis checkpoint"):
        Checkpointer(saved).restore(like)


def test_a_dtype_that_differs_is_a_misfit(saved):
    like = {"params": {"w": torch.ones(3, 4).double(), "b": torch.ones(4)}, "step": 3}
    with pytest.raises(CheckpointError, match=r"w: float32 \(3, 4\) in the checkpoint, float64 \(3, 4\) in the state"):
        Checkpointer(saved).restore(like)


def test_none_fits_what_is_absent_or_a_scalar(tmp_path):
    with Checkpointer(tmp_path) as checkpointer:
        checkpointer.save({"w": torch.ones(1), "best": None, "gone": None}, step=0)
        restored = checkpointer.restore({"w": torch.zeros(1), "best": 0.5, "new": None}).tree
    assert restored == {"w": torch.ones(1), "best": None, "new": None}


def test_a_group_that_is_not_there_is_named(saved):
    with pytest.raises(CheckpointError, match=r"there is no group 'ema' to read from .*: there are params, step"):
        read_arrays(saved / "last", groups=["ema"])
    with pytest.raises(CheckpointError, match="there is no group 'ema'"):
        Checkpointer(saved).restore(TREE, groups="ema")


def test_no_checkpoint_at_all(tmp_path):
    directory = tmp_path / "none"
    with pytest.raises(CheckpointError) as error:
        Checkpointer(directory).restore(TREE)
    assert str(error.value) == f"there is no checkpoint in {directory}"
    assert Checkpointer(directory).infos() == []
    assert not directory.exists()
    with pytest.raises(CheckpointError, match=r"there is no checkpoint at .*: it is not a directory"):
        read_info(directory)


def test_a_name_that_is_not_there(saved):
    with pytest.raises(CheckpointError) as error:
        Checkpointer(saved).restore(TREE, "step-00000004")
    assert str(error.value) == (
        f"there is no checkpoint 'step-00000004': it is neither one in {saved} (those there are step-00000003) nor the "
        "path of another"
    )


def test_best_without_a_metric(saved):
    with pytest.raises(CheckpointError, match=r"none of the 1 checkpoints in .* was saved with a metric"):
        Checkpointer(saved).restore(TREE, "best")


@pytest.mark.parametrize(
    ("leaf", "message"),
    [
        (
            np.zeros(2),
            r"leaf params/a\.b is a ndarray: a checkpoint holds tensors and bool, int, float, str or None",
        ),
        (np.float64(1), r"leaf params/a\.b is a float64: "),
        (b"x", r"leaf params/a\.b is a bytes: "),
        (torch.ones(1, device="meta"), r"leaf params/a\.b is a meta tensor, which has no values to save"),
        (
            torch.ones(2).to_sparse(),
            r"leaf params/a\.b has layout torch\.sparse_coo and dtype torch\.float32: ",
        ),
        (torch.nn.UninitializedParameter(), r"leaf params/a\.b is a UninitializedParameter: "),
    ],
)
def test_a_leaf_that_cannot_be_saved_is_refused_at_the_call(tmp_path, leaf, message):
    with Checkpointer(tmp_path) as checkpointer, pytest.raises(TypeError, match=message):
        checkpointer.save({"params": {"a.b": leaf}}, step=0)


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        ({"step": -1}, ValueError, "step must be an integer of at least 0, got -1"),
        ({"step": 1.0}, ValueError, r"step must be an integer of at least 0, got 1\.0"),
        ({"step": 1, "micro_step": -1}, ValueError, "micro_step must be an integer of at least 0, got -1"),
        ({"step": 1, "status": ""}, ValueError, "status must be a word, got ''"),
        (
            {"step": 1, "metadata": {"f": print}},
            TypeError,
            "metadata must be what JSON can hold: .*builtin_function",
        ),
    ],
)
def test_arguments_out_of_range_are_refused_at_the_call(tmp_path, arguments, kind, message):
    with Checkpointer(tmp_path) as checkpointer, pytest.raises(kind, match=message):
        checkpointer.save(TREE, **arguments)


def test_trees_without_names_or_with_equal_names_are_refused(tmp_path):
    with Checkpointer(tmp_path) as checkpointer:
        with pytest.raises(TypeError, match=r"a checkpoint holds a tree with named children .* got Tensor"):
            checkpointer.save(torch.ones(1), step=0)
        with pytest.raises(ValueError, match="two keys of the tree read 'w/1'"):
            checkpointer.save({"w": {1: torch.ones(1), "1": torch.ones(1)}}, step=0)


def test_closed_and_read_only_checkpointers_do_not_save(saved):
    checkpointer = Checkpointer(saved)
    checkpointer.close()
    with pytest.raises(CheckpointError, match=r"cannot save to .*: this Checkpointer is closed"):
        checkpointer.save(TREE, step=4)
    assert checkpointer.restore(TREE).info.step == 3
    with pytest.raises(CheckpointError, match=r"cannot save to .*: this Checkpointer is read_only"):
        Checkpointer(saved, read_only=True).save(TREE, step=4)


def test_a_file_in_place_of_the_directory(tmp_path):
    target = tmp_path / "file"
    target.write_text("mine")
    checkpointer = Checkpointer(target)
    checkpointer.save(TREE, step=4)
    with pytest.raises(CheckpointError) as error:
        checkpointer.close()
    assert str(error.value) == (
        f"could not save checkpoint {target}/step-00000004: [Errno 17] File exists: '{target}'; there is none there"
    )
    assert target.read_text() == "mine"


def test_a_full_disk_is_reported_once_and_the_next_save_is_tried(saved, monkeypatch):
    def full(path):
        raise OSError(28, "No space left on device")

    checkpointer = Checkpointer(saved)
    with monkeypatch.context() as patch:
        patch.setattr(files, "_sync", full)
        checkpointer.save(TREE, step=4)
        with pytest.raises(CheckpointError) as error:
            checkpointer.save(TREE, step=5)
        assert str(error.value) == (
            f"could not save checkpoint {saved}/step-00000004: [Errno 28] No space left on device; "
            "the newest there is step-00000003"
        )
        assert isinstance(error.value.__cause__, OSError)
    assert sorted(os.listdir(saved)) == ["last", "step-00000003"]  # nothing half-written stays behind
    checkpointer.save(TREE, step=5)
    checkpointer.close()
    assert checkpointer.names() == ["step-00000003", "step-00000005"]


def test_a_refused_write_inside_orbax_is_reported_in_the_systems_words(saved, caplog):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    checkpointer = Checkpointer(saved)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, hard))
        checkpointer.save({"w": torch.rand(500_000)}, step=4)
        with pytest.raises(
            CheckpointError, match=r"step-00000004: \[Errno 27\] File too large; the newest there is step-00000003$"
        ):
            checkpointer.wait()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert sorted(os.listdir(saved)) == ["last", "step-00000003"]
    assert caplog.records == []  # orbax would log the error eight times


def test_an_exception_that_is_passing_is_not_masked_by_a_failed_save(tmp_path):
    (tmp_path / "file").touch()

    def train():
        with Checkpointer(tmp_path / "file") as checkpointer:
            checkpointer.save(TREE, step=4)
            raise ZeroDivisionError

    with pytest.warns(CheckpointWarning, match="could not save"), pytest.raises(ZeroDivisionError):
        train()


def test_an_error_nobody_asked_for_is_told_at_the_end(tmp_path):
    (tmp_path / "file").touch()
    Checkpointer(tmp_path / "file").save(TREE, step=4)
    with pytest.warns(CheckpointWarning, match="could not save"):
        background._finish_all()


def test_a_failed_cleanup_says_that_the_checkpoint_is_saved(saved, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(files, "delete", refuse)
    checkpointer = Checkpointer(saved, keep=1)
    checkpointer.save(TREE, step=4)
    with pytest.raises(CheckpointError, match=r"saved .*step-00000004, but could not remove older checkpoints: "):
        checkpointer.close()
    assert checkpointer.names() == ["step-00000003", "step-00000004"]


@pytest.mark.parametrize("free", [5, 20])
def test_too_few_file_descriptors_are_one_message(tmp_path, free, capfd):
    """Orbax would leave tracebacks of its event loop: seen first, nothing of it has begun."""
    usual = resource.getrlimit(resource.RLIMIT_NOFILE)
    checkpointer = Checkpointer(tmp_path)
    checkpointer.save(TREE, step=1)
    checkpointer.wait()
    capfd.readouterr()
    try:
        used = {int(name) for name in os.listdir("/dev/fd")}
        limit = next(n for n in range(usual[0]) if n - sum(number < n for number in used) == free)
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, usual[1]))
        checkpointer.save(TREE, step=2)
        with pytest.raises(CheckpointError, match="Too many open files"):
            checkpointer.wait()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, usual)
    assert capfd.readouterr() == ("", "")
    with checkpointer:
        checkpointer.save(TREE, step=2)
    assert checkpointer.names() == ["step-00000001", "step-00000002"]
