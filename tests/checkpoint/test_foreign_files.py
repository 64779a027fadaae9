"""Files of torch, safetensors, DataParallel and torch.compile: what comes in is what was written."""

import json
import struct

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from functrain.checkpoint import Checkpointer, load_state_dict, read_safetensors, write_safetensors
from functrain.checkpoint.foreign.safetensors_format import _DTYPES
from functrain.checkpoint.foreign.state_dicts import plain_names
from functrain.foundation.errors import CheckpointError


def small_model():
    return torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.BatchNorm2d(2), torch.nn.Flatten())


def same(left, right, bits):
    return list(left) == list(right) and all(bits(left[name]) == bits(right[name]) for name in right)


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")  # torch.compile's own imports
@pytest.mark.parametrize("suffix", [".pt", ".pth", ".pth.tar"])
@pytest.mark.parametrize("key", ["model_state_dict", "state_dict", "model", None])
@pytest.mark.parametrize("wrap", ["plain", "DataParallel", "compiled", "DataParallel of compiled", "compiled part"])
def test_every_layout_with_every_wrapper_gives_the_models_state_dict(tmp_path, bits, suffix, key, wrap):
    model = small_model()
    expected = {name: value.clone() for name, value in model.state_dict().items()}
    wrapped = model
    if "compiled" in wrap:
        wrapped = torch.compile(model) if wrap != "compiled part" else model
    if wrap == "compiled part":
        wrapped[0] = torch.compile(wrapped[0])
    if "DataParallel" in wrap:
        wrapped = torch.nn.DataParallel(wrapped)
    content = wrapped.state_dict()
    torch.save(content if key is None else {key: content, "epoch": 3, "best_acc1": 0.5}, tmp_path / f"old{suffix}")
    assert same(load_state_dict(tmp_path / f"old{suffix}"), expected, bits)


@given(st.lists(st.text("abm_.", min_size=1, max_size=6), min_size=1, max_size=4, unique=True), st.integers(0, 3))
def test_wrappers_come_off_in_any_number(names, depth):
    wrapped = names
    for number in range(depth):
        wrapped = [("module.", "_orig_mod.")[number % 2] + name for name in wrapped]
    assert plain_names(wrapped) == plain_names(names) == names


def test_a_child_called_module_is_no_wrapper_if_it_is_not_alone():
    assert plain_names(["module.weight", "head.weight"]) == ["module.weight", "head.weight"]


def test_a_prefix_picks_the_model_out_of_a_larger_one(tmp_path):
    content = {"model.net.w": torch.ones(1), "model.net.b": torch.ones(1), "loss.weight": torch.ones(3)}
    torch.save({"state_dict": content, "global_step": 3}, tmp_path / "lightning.ckpt")
    assert list(load_state_dict(tmp_path / "lightning.ckpt", prefix="model.net.")) == ["w", "b"]
    with pytest.raises(CheckpointError, match=r"no name in .* begins with 'x\.'; there are model\.net\.w, model"):
        load_state_dict(tmp_path / "lightning.ckpt", prefix="x.")


def test_a_checkpoint_of_functrain_is_read_by_its_directory(tmp_path, bits):
    tensors = {"a.w": torch.randn(3), "odd/name\\": torch.ones(1)}
    with Checkpointer(tmp_path) as checkpointer:
        checkpointer.save({"params": tensors, "buffers": {"n": torch.tensor(2)}, "step": 1}, step=1)
    assert same(load_state_dict(tmp_path / "last"), {**tensors, "n": torch.tensor(2)}, bits)


class Evil:
    def __reduce__(self):
        return (print, ("executed",))


def test_a_file_with_code_is_refused_and_not_run(tmp_path, capsys):
    torch.save({"state_dict": {"w": torch.ones(1)}, "args": Evil()}, tmp_path / "evil.pt")
    torch.save(small_model(), tmp_path / "module.pt")
    for name in ("evil.pt", "module.pt"):
        with pytest.raises(CheckpointError, match=r"cannot load .* with weights_only=True: .* can run any code"):
            load_state_dict(tmp_path / name)
    assert capsys.readouterr().out == ""


def test_a_refusal_does_not_pass_on_torchs_advice_to_load_it_all_the_same(tmp_path):
    torch.save(small_model(), tmp_path / "module.pt")
    (tmp_path / "text.pt").write_text("# no weights\n")
    reasons = {
        "module.pt": "with weights_only=True: Unsupported global: GLOBAL ",
        "text.pt": "is a text file, not a file of weights",
    }
    for name, reason in reasons.items():
        with pytest.raises(CheckpointError, match=reason) as refusal:
            load_state_dict(tmp_path / name)
        assert "False" not in str(refusal.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1, 2], "holds a list, not a state dict"),
        ({}, "holds no state dict: it has none under model_state_dict, state_dict, model, and is none itself$"),
        ({"epoch": 3, "w": torch.ones(1)}, r"is none itself, for it holds 'epoch' \(int\)"),
        ({"model": {"w": torch.ones(1), "n": 3}}, r"for it holds 'n' \(int\)"),
        ({"_orig_mod.w": torch.ones(1), "w": torch.ones(1)}, "two tensors that are called 'w' without their prefixes"),
    ],
)
def test_what_is_no_state_dict_is_said(tmp_path, content, message):
    torch.save(content, tmp_path / "x.pt")
    with pytest.raises(CheckpointError, match=message):
        load_state_dict(tmp_path / "x.pt")


def test_a_state_of_a_modules_own_is_passed_over(tmp_path):
    torch.save({"w": torch.ones(1), "w._extra_state": {"a": 1}}, tmp_path / "x.pt")
    assert list(load_state_dict(tmp_path / "x.pt")) == ["w"]


def test_a_damaged_or_missing_file_is_an_error_with_a_message(tmp_path):
    with pytest.raises(CheckpointError, match=r"cannot read .*none\.pt: .*No such file"):
        load_state_dict(tmp_path / "none.pt")
    torch.save({"w": torch.ones(1000)}, tmp_path / "x.pt")
    whole = (tmp_path / "x.pt").read_bytes()
    for damaged in (whole[: len(whole) // 2], b"", b"\0" * 100, whole[:-30]):
        (tmp_path / "x.pt").write_bytes(damaged)
        reason = r"cannot load .*with weights_only=True" if damaged else r"x\.pt is empty, not a file of weights"
        with pytest.raises(CheckpointError, match=reason):
            load_state_dict(tmp_path / "x.pt")


# -- safetensors -----------------------------------------------------------------------------------------


def tensor_of(dtype, shape, seed):
    """Random bits."""
    count = torch.Size(shape).numel() * dtype.itemsize
    raw = torch.randint(0, 2 if dtype is torch.bool else 256, (count,), generator=torch.Generator().manual_seed(seed))
    return raw.to(torch.uint8).view(dtype).reshape(shape)


safetensors_dicts = st.dictionaries(
    st.text(max_size=4).filter(lambda name: name != "__metadata__"),
    st.builds(
        tensor_of,
        st.sampled_from(list(_DTYPES.values())),
        st.lists(st.integers(0, 3), max_size=3),
        st.integers(0, 99),
    ),
    max_size=5,
)


@settings(max_examples=60, deadline=None)
@given(safetensors_dicts, st.dictionaries(st.text(max_size=3), st.text(max_size=3), max_size=2))
def test_what_is_written_as_safetensors_is_read_again_bit_for_bit(tmp_path_factory, bits, tensors, metadata):
    path = tmp_path_factory.mktemp("files") / "x.safetensors"
    write_safetensors(tensors, path, metadata)
    found = read_safetensors(path)
    assert found.keys() == tensors.keys()
    assert all(bits(found[name]) == bits(tensors[name]) for name in tensors)


def test_other_readers_read_our_safetensors(tmp_path, bits):
    """orbax has a reader of its own of this format."""
    from functrain.checkpoint.arrays import to_numpy
    from functrain.checkpoint.orbax_io import import_orbax

    orbax = import_orbax()
    model = small_model()
    # orbax gives jax arrays, which have no 64-bit integers
    tensors = {name: value for name, value in model.state_dict().items() if value.dtype != torch.int64}
    tensors["half"] = torch.randn(3, 5).bfloat16()
    write_safetensors(tensors, tmp_path / "x.safetensors")
    context = orbax.Context()
    context.checkpoint_layout = orbax.options.CheckpointLayout.SAFETENSORS
    with context:
        found = orbax.load(tmp_path / "x.safetensors", {name: to_numpy(value) for name, value in tensors.items()})
    for name, value in tensors.items():
        assert np.asarray(found[name]).tobytes() == to_numpy(value).tobytes()


def test_the_bytes_are_those_of_the_format(tmp_path):
    """Written out by hand from the format's description."""
    write_safetensors(
        {"b": torch.tensor([True]), "a": torch.tensor([1.0, 2.0])}, tmp_path / "x.safetensors", {"k": "v"}
    )
    header = (
        b'{"__metadata__":{"k":"v"},"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},'
        b'"b":{"dtype":"BOOL","shape":[1],"data_offsets":[8,9]}}'
    )
    header += b" " * (-len(header) % 8)
    expected = struct.pack("<Q", len(header)) + header + struct.pack("<ff", 1.0, 2.0) + b"\x01"
    assert (tmp_path / "x.safetensors").read_bytes() == expected


def frame(header, data=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


F32 = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "its header would have 0 bytes, the file has 0"),
        (struct.pack("<Q", 2**62) + b"{}", "its header would have 4611686018427387904 bytes, the file has 10"),
        (frame(b"[]"), "not a JSON object"),
        (frame(b"{"), "Expecting property name"),
        (frame(b"[" * 5000), "recursion"),
        (frame({"w": {**F32, "dtype": "F99"}}, bytes(4)), "F99"),
        (frame({"w": {"dtype": "F32"}}, bytes(4)), "data_offsets"),
        (frame({"w": {**F32, "shape": [-1]}}, bytes(4)), "not a natural number"),
        (frame({"w": {**F32, "shape": [2**60]}}, bytes(4)), "cannot be bytes 0 to 4"),
        (frame({"w": {**F32, "data_offsets": [4, 8]}}, bytes(8)), "cannot be bytes 4 to 8"),
        (frame({"w": F32, "v": F32}, bytes(4)), "cannot be bytes 0 to 4"),
        (frame({"w": F32}, bytes(8)), "its tensors have 4 bytes, the file holds 8"),
        (frame({"w": F32}, bytes(2)), "its tensors have 4 bytes, the file holds 2"),
        (frame(b'{"w":' + json.dumps(F32).encode() + b',"w":' + json.dumps(F32).encode() + b"}", bytes(4)), "twice"),
    ],
)
def test_a_file_that_is_not_in_the_format_is_refused_before_memory_is_taken(tmp_path, content, reason):
    (tmp_path / "x.safetensors").write_bytes(content)
    with pytest.raises(CheckpointError, match="is not a safetensors file, or is damaged") as error:
        load_state_dict(tmp_path / "x.safetensors")
    assert reason in str(error.value)


def test_a_dtype_that_the_format_lacks_is_refused(tmp_path):
    with pytest.raises(TypeError, match=r"tensor w is torch\.complex128: safetensors holds bool, uint8"):
        write_safetensors({"w": torch.ones(1, dtype=torch.complex128)}, tmp_path / "x.safetensors")


def test_a_file_that_cannot_be_written_leaves_the_old_one(tmp_path, monkeypatch):
    import os

    path = tmp_path / "x.safetensors"
    write_safetensors({"w": torch.ones(1)}, path)

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(CheckpointError, match=r"could not write .*x\.safetensors: No space left"):
        write_safetensors({"w": torch.zeros(1)}, path)
    assert read_safetensors(path)["w"] == 1
    assert [p.name for p in tmp_path.iterdir()] == ["x.safetensors"]
