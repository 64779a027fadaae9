"""Copies of a state that will be overwritten: the same bits, in memory that is used again."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from functrain.checkpoint import Checkpointer
from functrain.checkpoint.arrays import DTYPES
from functrain.checkpoint.staging import Staging

pytestmark = pytest.mark.filterwarnings("ignore:ComplexHalf support is experimental")


def random_tensor(dtype, shape, layout, seed):
    """Random bits, NaN payloads included."""
    count = math.prod(shape) * dtype.itemsize
    generator = torch.Generator().manual_seed(seed)
    raw = torch.randint(0, 2 if dtype is torch.bool else 256, (count,), generator=generator).to(torch.uint8)
    tensor = raw.view(dtype).reshape(shape) if count else torch.empty(shape, dtype=dtype)
    if layout == "transposed":
        return tensor.transpose(0, -1) if tensor.dim() > 1 else tensor
    return tensor[..., ::2] if layout == "strided" and tensor.dim() else tensor


shapes = st.sampled_from([(), (0, 3), (5,), (3, 4), (2, 3, 4, 5), (1, 2**19)])
tensors = st.builds(
    random_tensor,
    st.sampled_from([dtype for name, dtype in DTYPES.items() if name not in ("complex32", "float4_e2m1fn_x2")]),
    shapes,
    st.sampled_from(["contiguous", "transposed", "strided"]),
    st.integers(0, 99),
)


@settings(max_examples=40, deadline=None)
@given(batches=st.lists(st.lists(tensors, max_size=6), min_size=1, max_size=3))
def test_copies_have_the_bits_and_the_layout_of_what_was_copied_and_memory_of_their_own(bits, batches):
    staging = Staging()
    for batch in batches:
        copies = staging.copy(batch)
        assert [bits(copy) for copy in copies] == [bits(tensor) for tensor in batch]
        for copy, tensor in zip(copies, batch, strict=True):
            assert copy.stride() == tensor.clone().stride()
            assert not tensor.numel() or copy.data_ptr() != tensor.data_ptr()


@pytest.mark.parametrize("name", ["complex32", "float4_e2m1fn_x2"])
def test_types_that_numpy_lacks_are_copied(bits, name):
    if name not in DTYPES:
        pytest.skip("this torch does not have it")
    tensor = random_tensor(DTYPES[name], (3, 4), "contiguous", 0)
    (copy,) = Staging().copy([tensor])
    assert bits(copy) == bits(tensor)


@pytest.mark.parametrize("change", [torch.conj, torch._neg_view])
def test_a_pending_conjugation_or_negation_is_copied_as_what_it_means(bits, change):
    tensor, staging = torch.randn(4, dtype=torch.complex64), Staging()
    assert bits(staging.copy([tensor])[0]) == bits(tensor)
    assert bits(staging.copy([change(tensor)])[0]) == bits(change(tensor))


def test_large_tensors_are_copied_whole():
    batch = [torch.randn(2**22 + 2**18 + 7), torch.randn(2**18).to(memory_format=torch.preserve_format), torch.ones(3)]
    assert all(map(torch.equal, Staging().copy(batch), batch))


def test_the_next_copies_of_the_same_form_take_the_same_memory_until_it_is_released():
    staging = Staging()
    first = staging.copy([torch.ones(3), torch.ones(2, 2)])
    second = staging.copy([torch.zeros(3), torch.zeros(2, 2)])
    assert [tensor.data_ptr() for tensor in first] == [tensor.data_ptr() for tensor in second]
    storage = torch.multiprocessing.reductions.StorageWeakRef(second[0].untyped_storage())
    del first, second
    assert not storage.expired()
    staging.release()
    assert storage.expired()


def test_a_closed_checkpointer_holds_no_copies(tmp_path):
    with Checkpointer(tmp_path) as checkpointer:
        checkpointer.save({"params": torch.ones(2**18)}, step=1, copy=True)
        assert checkpointer._staging._places
    assert not checkpointer._staging._places


def test_what_is_written_to_a_copied_state_after_its_save_shows_in_no_checkpoint(tmp_path):
    large, small = torch.zeros(2**19), torch.zeros(3, 2).T
    tree = {"params": {"large": large, "tied": large, "small": small}}
    with Checkpointer(tmp_path, keep=9) as checkpointer:
        for step in range(4):
            checkpointer.save(tree, step=step, copy=True)
            large += 1
            small += 2
        for step in range(4):
            params = checkpointer.restore(tree, f"step-{step:08d}").tree["params"]
            assert params["large"] is params["tied"]
            assert params["large"].unique().tolist() == [step]
            assert params["small"].unique().tolist() == [2 * step]
            assert params["small"].stride() == small.stride()
