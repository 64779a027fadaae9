"""Real files of Lightning, Accelerate and safetensors: training goes on from theirs, and they read ours."""

import subprocess
import sys

import pytest
import safetensors.torch
import torch
import torch.nn.functional as F
import write_foreign_files as foreign

import functrain as ft
from functrain.checkpoint import (
    init_from,
    load_state_dict,
    load_torch,
    read_safetensors,
    save_safetensors,
    save_torch,
    write_safetensors,
)
from functrain.checkpoint.foreign.safetensors_format import _DTYPES
from functrain.foundation.errors import CheckpointError

OURS = {"adam": ft.optim.adam, "adamw": ft.optim.adamw, "sgd": ft.optim.sgd}


@pytest.fixture(scope="session")
def real_files(tmp_path_factory):
    """A folder for each of the two, written once, for importing them takes seconds."""
    folder = tmp_path_factory.mktemp("foreign")
    save_torch(fresh_state("adam"), folder / "ours.pt")
    command = [sys.executable, "-W", "ignore", foreign.__file__, str(folder)]
    subprocess.run(command, check=True, capture_output=True, timeout=300)
    return folder


def fresh_state(name):
    optimizer = OURS[name](**foreign.OPTIMIZERS[name][1])
    return ft.init_state(foreign.network(seed=9), ft.supervised(F.cross_entropy), optimizer, precision="fp64")


def train(state):
    for batch in foreign.batches()[foreign.SAVED_AFTER :]:
        state, _ = ft.train_step(state, batch)
    return state


def assert_same_weights(found, expected):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        # The rounding of a few float64 updates in another order of operations.
        torch.testing.assert_close(found[name], value, rtol=1e-12, atol=1e-12, msg=lambda m, name=name: f"{name}: {m}")


@pytest.mark.parametrize("name", OURS)
def test_training_goes_on_from_a_checkpoint_of_lightning_as_its_trainer_went_on(real_files, name):
    folder = real_files / "lightning" / name
    state = load_torch(fresh_state(name), folder / f"step={foreign.SAVED_AFTER}.ckpt", prefix="model.")
    assert state.step == foreign.SAVED_AFTER
    expected = load_state_dict(folder / f"step={foreign.UPDATES}.ckpt", prefix="model.")
    assert_same_weights(ft.to_module(train(state)).state_dict(), expected)


@pytest.mark.parametrize("kind", ["", "-pickled"])
@pytest.mark.parametrize("name", OURS)
def test_training_goes_on_from_a_folder_of_accelerate_as_its_loop_went_on(real_files, name, kind):
    folder = real_files / "accelerate" / name
    # Its state counts updates within Adam's state alone.
    step = foreign.SAVED_AFTER if name == "sgd" else None
    state = load_torch(fresh_state(name), folder / f"step={foreign.SAVED_AFTER}{kind}", step=step)
    assert state.step == foreign.SAVED_AFTER
    expected = load_state_dict(folder / f"step={foreign.UPDATES}-pickled")
    assert_same_weights(ft.to_module(train(state)).state_dict(), expected)


def test_a_folder_without_the_optimizers_file_says_which_one_is_missing(real_files, tmp_path):
    source = real_files / "accelerate" / "adam" / "step=3" / "model.safetensors"
    (tmp_path / "model.safetensors").write_bytes(source.read_bytes())
    assert torch.equal(init_from(fresh_state("adam"), tmp_path).params["1.bias"], load_state_dict(source)["1.bias"])
    with pytest.raises(CheckpointError, match=r"cannot read .*optimizer\.bin: .*No such file"):
        load_torch(fresh_state("adam"), tmp_path)


def test_a_folder_that_holds_no_weights_is_no_checkpoint(tmp_path):
    with pytest.raises(CheckpointError, match=r"model\.safetensors or pytorch_model\.bin"):
        load_state_dict(tmp_path)


def test_without_the_prefix_of_lightnings_attribute_the_message_names_it(real_files):
    with pytest.raises(CheckpointError, match=r"all names of the model are there behind 'model\.'.*prefix"):
        init_from(fresh_state("adam"), real_files / "lightning" / "adam" / "step=3.ckpt")


def test_lightning_loads_our_parameters_strictly(real_files):
    ours, read = (torch.load(real_files / name, weights_only=True) for name in ("ours.pt", "read_by_lightning.pt"))
    assert read.keys() == ours["model_state_dict"].keys()
    assert all(torch.equal(read[name], value) for name, value in ours["model_state_dict"].items())


# -- safetensors' own library ----------------------------------------------------------------------------


def every_dtype():
    """Random bits of every dtype of the format, in shapes that are empty, scalar and odd."""
    generator = torch.Generator().manual_seed(0)
    tensors = {}
    for code, dtype in _DTYPES.items():
        for shape in ((), (0, 3), (3, 5)):
            count = torch.Size(shape).numel() * dtype.itemsize
            raw = torch.randint(0, 2 if code == "BOOL" else 256, (count,), generator=generator).to(torch.uint8)
            tensors[f"{code}{list(shape)}"] = raw.view(dtype).reshape(shape)
    return tensors


def test_the_safetensors_library_reads_every_dtype_that_we_write(tmp_path, bits):
    tensors = every_dtype()
    write_safetensors(tensors, tmp_path / "x.safetensors", {"format": "pt"})
    found = safetensors.torch.load_file(tmp_path / "x.safetensors")
    assert {name: bits(value) for name, value in found.items()} == {n: bits(v) for n, v in tensors.items()}


def test_we_read_every_dtype_that_the_safetensors_library_writes(tmp_path, bits):
    tensors = every_dtype()
    safetensors.torch.save_file(tensors, tmp_path / "x.safetensors", {"format": "pt"})
    found = read_safetensors(tmp_path / "x.safetensors")
    assert {name: bits(value) for name, value in found.items()} == {n: bits(v) for n, v in tensors.items()}


def test_the_safetensors_library_loads_our_model_with_its_ties(tmp_path):
    state = fresh_state("adam")
    save_safetensors(state, tmp_path / "x.safetensors")
    module = foreign.network(seed=1)
    assert safetensors.torch.load_model(module, tmp_path / "x.safetensors", strict=True) == (set(), [])
    assert all(torch.equal(value, ft.to_module(state).state_dict()[n]) for n, value in module.state_dict().items())
    assert module[0].weight is module[3].weight


def test_we_load_a_model_that_the_safetensors_library_saved_with_its_ties(tmp_path):
    module = foreign.network(seed=1)
    safetensors.torch.save_model(module, tmp_path / "x.safetensors")
    loaded = ft.to_module(init_from(fresh_state("adam"), tmp_path / "x.safetensors")).state_dict()
    assert all(torch.equal(value, loaded[name]) for name, value in module.state_dict().items())
