"""Something else in a file's place, absurd sizes, names that cost time or steer a terminal: an error, at once."""

import json
import os
import shutil

import pytest
import torch

import functrain as ft
from functrain.checkpoint import (
    Checkpointer,
    CheckpointWarning,
    DamagedCheckpointError,
    RunLock,
    init_from,
    load_state_dict,
    load_torch,
    read_arrays,
    read_safetensors,
)
from functrain.checkpoint.foreign.state_dicts import plain_names, strip_wrappers
from functrain.foundation.errors import CheckpointError

TREE = {"params": {"w": torch.arange(30_000.0)}, "n": 1}


@pytest.fixture(scope="module")
def pristine(tmp_path_factory):
    directory = tmp_path_factory.mktemp("run")
    with Checkpointer(directory) as checkpointer:
        for step in (1, 2):
            checkpointer.save(TREE, step=step)
    return directory


def fifo(path):
    os.mkfifo(path)


def directory(path):
    path.mkdir()


def device(path):
    path.symlink_to("/dev/zero")


def endless(path):
    with path.open("wb") as file:
        file.truncate(2**43)  # sparse: takes no space


@pytest.mark.parametrize("kind", [fifo, directory, device, endless])
def test_something_else_in_the_place_of_a_file_is_damage_and_is_not_waited_for(pristine, tmp_path, kind):
    files = [p.relative_to(pristine) for p in (pristine / "step-00000002").rglob("*") if p.is_file()]
    assert len(files) > 5
    for number, file in enumerate(files):
        run = shutil.copytree(pristine, tmp_path / str(number), symlinks=True)
        (run / file).unlink()
        kind(run / file)
        with pytest.raises(DamagedCheckpointError):
            read_arrays(run / "step-00000002")
        with pytest.warns(CheckpointWarning, match=r"step-00000002 is damaged"):
            assert Checkpointer(run).restore(TREE).info.step == 1


@pytest.mark.parametrize("name", ["w.pt", "w.safetensors"])
@pytest.mark.parametrize("kind", [fifo, device])
def test_weights_are_regular_files(tmp_path, kind, name):
    kind(tmp_path / name)
    with pytest.raises(CheckpointError, match="not a regular file"):
        load_state_dict(tmp_path / name)


def test_a_lock_file_is_a_regular_one(tmp_path):
    os.mkfifo(tmp_path / ".functrain-lock")
    with pytest.raises(CheckpointError, match="it is a fifo, not a regular file"):
        RunLock(tmp_path).acquire()


@pytest.mark.parametrize(
    "value",
    [torch.ones(3, 3).to_sparse(), torch.ones(3, 3, device="meta")],
    ids=["sparse", "meta"],
)
def test_tensors_without_plain_values_are_named(tmp_path, value):
    state = ft.init_state(torch.nn.Linear(3, 3), ft.regression(), ft.optim.adam(0.1))
    torch.save({"weight": value, "bias": torch.ones(3)}, tmp_path / "w.pt")
    for read in (lambda path: load_state_dict(path), lambda path: init_from(state, path)):
        with pytest.raises(CheckpointError, match=r"no parameter can take its values from: weight \("):
            read(tmp_path / "w.pt")
    optimizer = torch.optim.Adam(torch.nn.Linear(3, 3).parameters()).state_dict()
    slot = {"step": torch.tensor(1.0), "exp_avg": value, "exp_avg_sq": value}
    plain = {"step": torch.tensor(1.0), "exp_avg": torch.ones(3), "exp_avg_sq": torch.ones(3)}
    optimizer["state"] = {0: slot, 1: plain}
    weights = {"weight": torch.ones(3, 3), "bias": torch.ones(3)}
    torch.save({"model_state_dict": weights, "optimizer_state_dict": optimizer}, tmp_path / "c.pt")
    with pytest.raises(CheckpointError, match="exp_avg of weight: "):
        load_torch(state, tmp_path / "c.pt")


@pytest.mark.parametrize("count", [torch.ones(2), float("nan"), float("inf"), "many", torch.tensor(float("nan"))])
def test_a_count_that_is_none_is_refused(tmp_path, count):
    state = ft.init_state(torch.nn.Linear(1, 1), ft.regression(), ft.optim.adam(0.1))
    slot = {"step": count, "exp_avg": torch.ones(1, 1), "exp_avg_sq": torch.ones(1, 1)}
    slots = {0: slot, 1: {**slot, "exp_avg": torch.ones(1), "exp_avg_sq": torch.ones(1)}}
    optimizer = {**torch.optim.Adam(torch.nn.Linear(1, 1).parameters()).state_dict(), "state": slots}
    weights = {"weight": torch.ones(1, 1), "bias": torch.ones(1)}
    torch.save({"model_state_dict": weights, "optimizer_state_dict": optimizer}, tmp_path / "c.pt")
    with pytest.raises(CheckpointError, match="a step that is no whole number"):
        load_torch(state, tmp_path / "c.pt")


def write_header(path, header):
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text)


@pytest.mark.parametrize(
    "shape",
    [
        [2**62, 0], [2**62, 4, 0], [2**64, 0], [2**200, 0], [0] * 65, [0] * 100_000, [10**4000] * 500 + [0],
        [2**31, 2**31, 2**31, 0], [1.0, 0], [-1, 0], [True, 0], ["0"], None, 0, {"0": 0}, [[0]],
    ],
)  # fmt: skip
def test_absurd_shapes_are_refused_or_read(tmp_path, shape):
    write_header(tmp_path / "w.safetensors", {"w": {"dtype": "F32", "shape": shape, "data_offsets": [0, 0]}})
    if shape == [2**62, 0]:
        assert read_safetensors(tmp_path / "w.safetensors")["w"].shape == (2**62, 0)
        return
    with pytest.raises(CheckpointError, match="is not a safetensors file, or is damaged"):
        read_safetensors(tmp_path / "w.safetensors")


def renamed_one_by_one(names):
    """The rule as it is told: `_orig_mod.` anywhere, a leading `module.` that all have, again and again."""
    while True:
        before = names
        names = [".".join(part for part in name.split(".")[:-1] if part != "_orig_mod") for name in names]
        names = [f"{front}.{old.split('.')[-1]}".lstrip(".") for front, old in zip(names, before)]
        if names and all(name.startswith("module.") for name in names):
            names = [name.removeprefix("module.") for name in names]
        if names == before:
            return names


@pytest.mark.parametrize(
    "names",
    [
        ["module.module.a.w", "module.b.w"],
        ["module._orig_mod.module._orig_mod._orig_mod.w", "_orig_mod.module.module.w"],
        ["a._orig_mod._orig_mod._orig_mod.w", "module.w"],
        ["_orig_mod.w", "my_orig_mod.w", "_orig_mod_.w"],
        ["module.module.w"],
        [],
    ],
)
def test_wrappers_names_are_taken_off_as_before(names):
    assert plain_names(names) == renamed_one_by_one(names)


def test_the_work_for_names_grows_with_their_length():
    """One pass for each prefix, and one for each name that became equal, took minutes."""
    deep = ["module." * 20_000 + f"{number}.w" for number in range(50)]
    assert plain_names(deep) == [f"{number}.w" for number in range(50)]
    equal = [("_orig_mod." * (number % 7)) + f"{number // 2}.w" for number in range(60_000)]
    assert len(plain_names(equal)) == 60_000


def test_two_tensors_of_one_name_are_found_among_many(tmp_path):
    names = [*(f"{number}.w" for number in range(100_000)), "_orig_mod.99999.w"]
    with pytest.raises(CheckpointError, match=r"two tensors that are called '99999\.w'"):
        strip_wrappers(dict.fromkeys(names, torch.ones(1)), tmp_path)


def test_names_do_not_steer_the_terminal(tmp_path):
    state = ft.init_state(torch.nn.Linear(3, 3), ft.regression(), ft.optim.sgd(0.1))
    torch.save({"\x1b[2J\x9b31mw\u202e": torch.ones(1), "weight": torch.ones(3, 3)}, tmp_path / "w.pt")
    with pytest.raises(CheckpointError) as error:
        init_from(state, tmp_path / "w.pt")
    assert r"\x1b[2J\x9b31mw\u202e" in str(error.value)
    assert str(error.value).replace("\n", "").isprintable()
    with pytest.raises(ValueError, match="fits nothing") as wrong:
        init_from(state, tmp_path / "w.pt", allow_dropped=["x"])
    assert "\x1b" not in str(wrong.value)
