"""The laws of messages: what travels together, and that it makes no difference to what arrives."""

import functools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from functrain.distributed import messages
from functrain.distributed.mesh import Group
from functrain.distributed.messages import bucket_bytes, buckets, gather_all, scatter_sums

DTYPES = torch.float32, torch.bfloat16, torch.bool


def gpt2_shapes():
    """Parameters of GPT-2 with 124 million of them."""
    norms, attention = [(768,)] * 4, [(2304, 768), (2304,), (768, 768), (768,)]
    block = [*norms, *attention, (3072, 768), (3072,), (768, 3072), (768,)]
    return [(50257, 768), (1024, 768), *block * 12, (768,), (768,)]


@given(
    st.lists(st.tuples(st.integers(0, 2**24), st.sampled_from(DTYPES)), max_size=40),
    st.sampled_from([2, 8, 256, 4096]),
    st.sampled_from([1, 2]),
)
def test_each_tensor_is_in_one_bucket_of_its_dtype_which_has_a_bound(given_tensors, ranks, times):
    tensors = [torch.empty(size, dtype=dtype, device="meta") for size, dtype in given_tensors]
    found = list(buckets(tensors, ranks, times=times))
    assert sorted(place for places in found for place in places) == list(range(len(tensors)))
    for places in found:
        assert len({tensors[place].dtype for place in places}) == 1
        assert len(places) == 1 or sum(tensors[place].nbytes for place in places) * times <= bucket_bytes(ranks)


@pytest.mark.parametrize(("ranks", "at_most"), [(8, 32), (64, 22), (1024, 5)])
def test_gpt2_is_sent_in_few_messages_by_many_processes(ranks, at_most):
    """498 MB in 148 leaves: the table of 154 MB alone, and the others in buckets that are half full at the least."""
    grads = [torch.empty(shape, device="meta") for shape in gpt2_shapes()]
    assert len(list(buckets(grads, ranks))) <= at_most


@pytest.mark.parametrize("limits", [(0, 0), (2**40, 0), (2**40, 100), (2**40, 2**40)])
def test_what_arrives_does_not_depend_on_the_buckets(limits, monkeypatch, bits):
    """Each process would get its own rows back, in the place of those of others."""
    monkeypatch.setattr(messages.dist, "all_to_all_single", lambda received, flat, group: received.copy_(flat))
    monkeypatch.setattr(
        messages, "gathered", lambda flat, ranks, _: torch.stack([flat * rank for rank in range(ranks)])
    )
    for name, value in zip(("ALONE", "BUCKET"), limits):
        monkeypatch.setattr(messages, name, value)
    monkeypatch.setattr(messages, "BUCKET_OF_A_RANK", 0)
    shapes = (5, 3), (7,), (), (2, 2, 2), (1,)
    rows = [torch.randn(2, *shape, dtype=dtype) for shape in shapes for dtype in (torch.float32, torch.float64)]
    add = functools.partial(functools.reduce, torch.add)
    assert bits(scatter_sums(list(rows), Group(0, 2), add)) == bits([each[0] + each[1] for each in rows])
    assert bits(gather_all(rows, Group(0, 3))) == bits(
        [torch.stack([each * rank for rank in range(3)]) for each in rows]
    )


def test_what_is_sent_is_forgotten_once_it_is_in_its_bucket(monkeypatch):
    alive = []

    def exchanged(received, flat, group):
        received.copy_(flat)
        alive.append(sum(torch._C._storage_Use_Count(pointer) > 1 for pointer in pointers))

    monkeypatch.setattr(messages.dist, "all_to_all_single", exchanged)
    monkeypatch.setattr(messages, "bucket_bytes", lambda ranks: 2**10)
    sent = [torch.ones(2, 64) for _ in range(6)]  # of 512 bytes
    held = [each.untyped_storage() for each in sent]
    pointers = [each._cdata for each in held]
    scatter_sums(sent, Group(0, 2), lambda rows: rows[0] + rows[1])
    assert sent == []
    assert alive == [4, 2, 0]
