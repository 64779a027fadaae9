"""Many small leaves are stored together, and that is all that anybody notices."""

import hashlib
import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from functrain.checkpoint import Checkpointer, DamagedCheckpointError, bundles, read_arrays, read_checkpoint, read_info
from functrain.checkpoint.arrays import DTYPES
from functrain.checkpoint.index import INDEX_FILE, dump_index, load_index
from functrain.checkpoint.names import array_key, is_bundle_key
from functrain.foundation.trees import tree_map

SHAPES = [(), (1,), (3,), (2, 3), (4, 1, 2)]


def tensor_of(dtype, shape, seed):
    count = torch.Size(shape).numel() * dtype.itemsize
    raw = torch.randint(0, 2 if dtype is torch.bool else 256, (count,), generator=torch.Generator().manual_seed(seed))
    tensor = raw.to(torch.uint8).view(dtype)
    return tensor.reshape(shape) if tensor.numel() == torch.Size(shape).numel() else tensor


def many(count=64):
    """Leaves of every dtype and shape, random bits, some tied, some strided, one too large for a bundle."""
    dtypes = list(DTYPES.values())
    leaves = {f"layer{i}.w": tensor_of(dtypes[i % len(dtypes)], SHAPES[i % 5], i) for i in range(count)}
    leaves["tied"] = leaves["layer7.w"]
    leaves["transposed"] = torch.arange(12.0).reshape(3, 4).T
    leaves["large"] = torch.arange(bundles.SMALL_NBYTES / 4 + 1)
    return {"params": leaves, "few": {"w": torch.ones(2)}, "step": 3}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    directory = tmp_path_factory.mktemp("run")
    with Checkpointer(directory) as checkpointer:
        checkpointer.save(many(), step=3)
    return directory / "step-00000003"


pytestmark = pytest.mark.filterwarnings("ignore:ComplexHalf support is experimental")


def test_many_small_leaves_of_every_dtype_come_back_bit_for_bit(saved, bits):
    tree = many()
    like = tree_map(lambda x: torch.empty_like(x, device="meta") if isinstance(x, torch.Tensor) else x, tree)
    restored = read_checkpoint(saved, like).tree
    for name, value in tree["params"].items():
        assert bits(restored["params"][name]) == bits(value), name
        assert restored["params"][name].stride() == value.stride()
        assert restored["params"][name].data_ptr() % 64 == 0
    assert restored["params"]["tied"] is restored["params"]["layer7.w"]


def test_orbax_stores_few_arrays_and_the_index_says_where_a_leaf_is(saved):
    index = load_index(saved)
    records = index.groups["params"].leaves.values()
    keys = {bundles.key_of(leaf) for leaf in records if leaf.kind == "array"}
    types = [name for name in DTYPES if name not in ("complex32", "float4_e2m1fn_x2")]
    assert {key for key in keys if is_bundle_key(key)} == {f"%bundle-{name}" for name in types}
    assert "large" in keys
    assert index.groups["few"].leaves["w"].bundle is None
    assert sum(read_info(saved).nbytes.values()) == sum(
        tensor.nbytes for tree in many().values() if isinstance(tree, dict) for n, tensor in tree.items() if n != "tied"
    )


def test_one_leaf_out_of_a_bundle_is_read_for_those_it_is_tied_to(tmp_path, bits):
    leaves = {f"a{i}": tensor_of(torch.bfloat16, (3,), i) for i in range(40)}
    with Checkpointer(tmp_path) as checkpointer:
        checkpointer.save({"params": leaves, "zema": {"w": leaves["a7"]}}, step=1)
    assert bits(read_arrays(tmp_path / "last", groups="zema")["zema"]["w"]) == bits(leaves["a7"])


@settings(max_examples=50, deadline=None)
@given(st.lists(st.text(max_size=3), min_size=1, max_size=5))
def test_no_leaf_has_the_name_of_a_bundle(names):
    assert not any(is_bundle_key(array_key(name)) for name in names)
    assert not is_bundle_key(array_key("%bundle-float32"))


def rewrite(path, change):
    """The index with a valid checksum, as somebody who means harm would write it."""
    body = json.loads((path / INDEX_FILE).read_text().split("\n")[1])
    change({leaf["path"]: leaf for leaf in body["groups"][1]["leaves"]})
    text = json.dumps(body)
    digest = hashlib.sha256(text.encode()).hexdigest()
    (path / INDEX_FILE).write_text(f'{{"sha256": "{digest}", "index":\n{text}\n}}\n')


@pytest.mark.parametrize(
    "change",
    [
        lambda leaves: leaves["a0"].update(bundle=["%bundle-float32", 2**60]),
        lambda leaves: leaves["a1"].update(bundle=["%bundle-float32", 0]),
        lambda leaves: leaves["a1"].update(bundle=["%bundle-float32", -1]),
        lambda leaves: leaves["a1"].update(bundle=["%bundle-int8", 3]),
        lambda leaves: leaves["a1"].update(bundle=["a", 3]),
        lambda leaves: leaves["a1"].update(bundle=[3]),
        lambda leaves: leaves["a1"].update(bundle=None),
    ],
)
def test_places_that_nobody_would_have_written_are_refused(tmp_path, change):
    with Checkpointer(tmp_path) as checkpointer:
        checkpointer.save({"empty": {}, "params": {f"a{i}": torch.ones(3) for i in range(40)}}, step=1)
    path = tmp_path / "step-00000001"
    rewrite(path, change)
    with pytest.raises(DamagedCheckpointError, match="does not have the expected form"):
        read_arrays(path)


def test_damage_in_a_bundle_names_the_leaf(tmp_path, monkeypatch):
    from functrain.checkpoint import inventory

    monkeypatch.setattr(inventory, "CHECKSUM_UP_TO", -1)
    leaves = {f"a{i}": torch.full((50,), float(i)) for i in range(40)}
    with Checkpointer(tmp_path) as checkpointer:
        checkpointer.save({"params": leaves}, step=1)
    needle = leaves["a7"].numpy().tobytes()
    (file,) = [p for p in (tmp_path / "step-00000001").rglob("*") if p.is_file() and needle in p.read_bytes()]
    file.write_bytes(file.read_bytes().replace(needle, b"\x01" + needle[1:]))
    with pytest.raises(DamagedCheckpointError, match="the data of params/a7 do not match their checksum"):
        read_arrays(tmp_path / "step-00000001")


def test_checkpoints_of_the_first_format_are_read(tmp_path, bits):
    with Checkpointer(tmp_path) as checkpointer:
        checkpointer.save({"params": {"w": torch.arange(3.0)}}, step=1)
    path = tmp_path / "step-00000001"
    index = load_index(path)
    object.__setattr__(index, "format_version", 1)  # which differs by having no bundles
    (path / INDEX_FILE).write_bytes(dump_index(index))
    assert bits(read_arrays(path)["params"]["w"]) == bits(torch.arange(3.0))
