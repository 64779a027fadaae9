"""What was saved is what is restored, bit for bit."""

import math
import struct

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from functrain.checkpoint import Checkpointer, read_arrays, read_checkpoint, read_info
from functrain.checkpoint.arrays import DTYPES, from_numpy, stored_form, to_numpy
from functrain.foundation.trees import leaves, node, static, structure, tree_map

pytestmark = pytest.mark.filterwarnings("ignore:ComplexHalf support is experimental")

LAYOUTS = ("contiguous", "transposed", "strided", "expanded", "scalar", "empty")


def random_tensor(dtype, layout, seed):
    """Random *bits*: NaN payloads, infinities, subnormals and -0.0 included."""
    shape = {"scalar": (), "empty": (2, 0), "expanded": (1, 3)}.get(layout, (4, 6))
    generator = torch.Generator().manual_seed(seed)
    count = math.prod(shape) * dtype.itemsize
    raw = torch.randint(0, 2 if dtype is torch.bool else 256, (count,), generator=generator).to(torch.uint8)
    tensor = raw.view(dtype).reshape(shape) if count else torch.empty(shape, dtype=dtype)
    if layout == "transposed":
        return tensor.T
    if layout == "strided":
        return tensor[1:, ::2]
    return tensor.expand(5, 3) if layout == "expanded" else tensor


tensor_leaves = st.builds(
    random_tensor,
    st.sampled_from([d for name, d in DTYPES.items() if name not in ("complex32", "float4_e2m1fn_x2")]),
    st.sampled_from(LAYOUTS),
    st.integers(0, 1000),
)
scalar_leaves = (
    st.none()
    | st.booleans()
    | st.integers(-(2**80), 2**80)
    | st.floats(allow_nan=True)
    | st.text(st.characters(), max_size=5)
)
keys = st.text(st.sampled_from("ab./\\% -é0") | st.characters(), max_size=4)
trees = st.recursive(
    tensor_leaves | scalar_leaves,
    lambda inner: st.lists(inner, max_size=3).map(tuple) | st.dictionaries(keys, inner, max_size=3),
    max_leaves=6,
)


def scalar_bits(value):
    return (type(value), struct.pack(">d", value) if isinstance(value, float) else value)


@settings(max_examples=40, deadline=None)
@given(tree=st.dictionaries(keys, trees, max_size=3))
def test_restore_of_save_is_the_identity(tmp_path_factory, bits, tree):
    directory = tmp_path_factory.mktemp("run")
    with Checkpointer(directory) as checkpointer:
        checkpointer.save(tree, step=1)
        restored = checkpointer.restore(
            like=tree_map(lambda x: torch.empty_like(x, device="meta") if isinstance(x, torch.Tensor) else x, tree)
        ).tree
    assert structure(restored) == structure(tree)
    for before, after in zip(leaves(tree), leaves(restored), strict=True):
        if isinstance(before, torch.Tensor):
            assert bits(after) == bits(before)
            assert after.data_ptr() % 64 == 0
        else:
            assert scalar_bits(after) == scalar_bits(before)


@pytest.mark.parametrize("name", DTYPES)
def test_every_dtype_survives_the_boundary_in_every_layout(bits, name):
    for seed, layout in enumerate(LAYOUTS):
        if name in ("complex32", "float4_e2m1fn_x2") and layout != "contiguous":
            continue  # torch cannot copy views of these
        tensor = random_tensor(DTYPES[name], layout, seed)
        array = to_numpy(tensor)
        assert (array.dtype, array.shape) == stored_form(name, tuple(tensor.shape))
        assert bits(from_numpy(array, name, tuple(tensor.shape), None, "cpu")) == bits(tensor)


def test_types_that_numpy_lacks_survive_the_disk(tmp_path, bits):
    names = [name for name in ("complex32", "float4_e2m1fn_x2") if name in DTYPES]
    tree = {"params": {name: random_tensor(DTYPES[name], "contiguous", 3) for name in names}}
    with Checkpointer(tmp_path) as checkpointer:
        checkpointer.save(tree, step=0)
        restored = checkpointer.restore(tree).tree
    assert all(bits(restored["params"][name]) == bits(tree["params"][name]) for name in names)


def test_conjugate_and_negative_views_are_saved_as_they_read(tmp_path, bits):
    x = torch.randn(3, dtype=torch.complex64)
    tree = {"params": {"x": x, "conj": x.conj(), "neg": x.conj().imag}}
    with Checkpointer(tmp_path) as checkpointer:
        checkpointer.save(tree, step=0)
        restored = checkpointer.restore(tree).tree["params"]
    assert all(bits(restored[name]) == bits(tree["params"][name]) for name in tree["params"])


def test_dense_layouts_are_restored_and_views_come_back_contiguous(tmp_path, bits):
    channels_last = (
        random_tensor(torch.float32, "contiguous", 1).reshape(2, 3, 2, 2).to(memory_format=torch.channels_last)
    )
    tree = {"params": {"dense": channels_last, "view": torch.arange(9.0)[::2], "wide": torch.ones(1).expand(4)}}
    with Checkpointer(tmp_path) as checkpointer:
        checkpointer.save(tree, step=0)
        restored = checkpointer.restore(tree).tree["params"]
    assert restored["dense"].stride() == channels_last.stride()
    assert restored["dense"].is_contiguous(memory_format=torch.channels_last)
    assert restored["view"].is_contiguous()
    assert restored["wide"].is_contiguous()
    assert all(bits(restored[name]) == bits(tree["params"][name]) for name in restored)


def test_tied_tensors_come_back_tied_across_groups_and_are_stored_once(tmp_path):
    weight = torch.randn(4, 4)
    tree = {
        "params": {"in": weight, "out": weight, "view": weight.view(4, 4), "T": weight.T},
        "ema": {"in": weight},
    }
    with Checkpointer(tmp_path) as checkpointer:
        checkpointer.save(tree, step=0)
        restored, info = checkpointer.restore(tree)
        only_ema = checkpointer.restore(tree, groups=["ema"]).tree
    params = restored["params"]
    assert params["in"] is params["out"] is params["view"] is restored["ema"]["in"]
    assert torch.equal(params["T"], weight.T)
    assert params["T"].data_ptr() != params["in"].data_ptr()  # another view of the memory is another tensor
    assert sum(info.nbytes.values()) == 2 * weight.nbytes
    assert torch.equal(only_ema["ema"]["in"], weight)
    assert only_ema["params"]["in"] is weight  # a group that was not asked for stays as it was


def test_nodes_keep_their_class_and_static_fields(tmp_path):
    @node
    class State:
        params: dict
        step: int
        best: float | None
        name: str = static(default="s")

    state = State({"w": torch.ones(2)}, 3, 0.5, "mine")
    with Checkpointer(tmp_path) as checkpointer:
        checkpointer.save(state, step=3)
        restored = checkpointer.restore(State({"w": torch.empty(2, device="meta")}, 0, None, "mine")).tree
    assert isinstance(restored, State)
    assert (restored.step, restored.best, restored.name) == (3, 0.5, "mine")
    assert torch.equal(restored.params["w"], torch.ones(2))


def test_info_tells_all_without_arrays(tmp_path, state):
    with Checkpointer(tmp_path) as checkpointer:
        checkpointer.save(
            state,
            step=3,
            micro_step=2,
            status="INTERRUPTED",
            metric=0.5,
            metadata={"lr": [0.1, float("inf")]},
        )
        checkpointer.wait()
        (info,) = checkpointer.infos()
    assert info == read_info(tmp_path / "last") == read_info(tmp_path / "best")
    assert (info.name, info.step, info.micro_step, info.status, info.metric) == (
        "step-00000003.m2", 3, 2, "INTERRUPTED", 0.5,
    )  # fmt: skip
    assert info.metadata == {"lr": [0.1, float("inf")]}
    assert info.time.endswith("+00:00")
    assert info.groups["params"]["conv.weight"] == ((3, 4), "float32")
    assert info.groups["progress"]["key"] == ((), "int")
    assert info.groups["plateau"] == {}
    assert info.nbytes["optimizer"] == 3 * 2 + 8


def test_arrays_are_read_without_a_template(tmp_path, state, bits):
    with Checkpointer(tmp_path) as checkpointer:
        checkpointer.save(state, step=3)
    found = read_arrays(tmp_path / "step-00000003")
    assert list(found) == ["ema", "optimizer", "params", "plateau", "progress"]
    assert bits(found["params"]["conv/weight"]) == bits(state["params"]["conv"]["weight"])
    assert bits(found["params"]["none"]) == bits(state["params"]["none"])
    assert found["params"]["head\\/w"] is found["params"]["conv.weight"]
    assert found["progress"]["key"] == 2**64 - 1
    assert list(read_arrays(tmp_path / "last", groups=("params",))) == ["params"]


def test_arrays_are_readable_by_plain_orbax(tmp_path):
    from functrain.checkpoint.orbax_io import import_orbax

    tree = {
        "params": {
            "conv.weight": torch.arange(6.0).reshape(2, 3),
            "half": torch.ones(3, dtype=torch.bfloat16),
        }
    }
    with Checkpointer(tmp_path) as checkpointer:
        checkpointer.save(tree, step=0)
    like = {
        "conv.weight": np.zeros((2, 3), np.float32),
        "half": to_numpy(torch.zeros(3, dtype=torch.bfloat16)),
    }
    found = import_orbax().load(tmp_path / "step-00000000", like, checkpointable_name="params")
    np.testing.assert_array_equal(found["conv.weight"], np.arange(6.0).reshape(2, 3))
    assert found["half"].dtype.name == "bfloat16"


def test_part_of_a_state_is_restored_and_the_rest_kept(tmp_path):
    with Checkpointer(tmp_path) as checkpointer:
        checkpointer.save({"params": {"w": torch.ones(2)}, "optimizer": {"mu": torch.ones(5)}, "step": 9}, step=9)
    like = {"params": {"w": torch.zeros(2)}, "optimizer": {"other": torch.zeros(3)}, "step": 0}
    restored = read_checkpoint(tmp_path / "last", like, groups=("params",)).tree
    assert torch.equal(restored["params"]["w"], torch.ones(2))
    assert restored["optimizer"]["other"] is like["optimizer"]["other"]
    assert restored["step"] == 0


def test_copy_shields_a_save_from_later_writes(tmp_path, monkeypatch):
    import threading

    from functrain.checkpoint import writer

    release = threading.Event()
    to_numpy_then = writer.arrays.to_numpy
    monkeypatch.setattr(writer.arrays, "to_numpy", lambda t: (release.wait(30), to_numpy_then(t))[1])
    metadata = {"epoch": [1]}
    tree = {"params": {"w": torch.ones(4), "tied": torch.zeros(0)}}
    with Checkpointer(tmp_path) as checkpointer:
        checkpointer.save(tree, step=0, copy=True, metadata=metadata)
        tree["params"]["w"].fill_(2)
        metadata["epoch"].append(2)
        release.set()
        restored, info = checkpointer.restore(tree)
    assert torch.equal(restored["params"]["w"], torch.ones(4))
    assert info.metadata == {"epoch": [1]}


@pytest.mark.gpu
def test_device_tensors_are_saved_and_restored_to_the_device_of_like(tmp_path):
    tree = {"params": {"w": torch.randn(3, 4, device="cuda"), "cpu": torch.ones(2)}}
    expected = tree["params"]["w"].clone()
    with Checkpointer(tmp_path) as checkpointer:
        checkpointer.save(tree, step=0)
        tree["params"]["w"].zero_()
        restored = checkpointer.restore(tree).tree["params"]
    assert restored["w"].device == expected.device
    assert torch.equal(restored["w"], expected)
    assert restored["cpu"].device.type == "cpu"
