"""Accumulating writes in a compiled program: the same sums, and the same bits at each call."""

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given
from torch import Tensor, nn
from torch._subclasses import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx

import functrain as ft
from functrain.compiler.summation import added_in_order, order_sums

put = torch.ops.aten.index_put.default
put_masked = torch.ops.aten._unsafe_masked_index_put_accumulate.default


@st.composite
def writes(draw) -> tuple[Tensor, list[Tensor | None], Tensor]:
    """A base, indices for some of its dimensions, and values; whole numbers, so that sums are exact in any order."""
    shape = draw(st.lists(st.integers(1, 4), min_size=1, max_size=3))
    length = draw(st.integers(1, 6))
    numbers = torch.Generator().manual_seed(draw(st.integers(0, 9999)))
    chosen = draw(st.lists(st.booleans(), min_size=len(shape), max_size=len(shape)).filter(any))
    indices = [
        torch.randint(-size, size, (length,), generator=numbers) if indexed else None
        for size, indexed in zip(shape, chosen)
    ]
    base = torch.randint(-9, 9, shape, generator=numbers).double()
    values = torch.randint(-9, 9, torch.ops.aten.index(base, indices).shape, generator=numbers).double()
    return base, indices, values


@given(writes())
def test_added_in_order_is_index_put(write):
    base, indices, values = write
    assert torch.equal(added_in_order(base, values, None, *indices), put(base, indices, values, True))


@given(writes(), st.integers(0, 9999))
def test_added_in_order_with_a_mask_is_the_masked_index_put(write, seed):
    base, indices, values = write
    mask = torch.randint(0, 2, values.shape, generator=torch.Generator().manual_seed(seed)).bool()
    assert torch.equal(added_in_order(base, values, mask, *indices), put_masked(base, mask, indices, values))


def test_one_value_is_broadcast():
    index = torch.tensor([1, 1, 0])
    found = added_in_order(torch.zeros(2, 3), torch.tensor(1.0), None, index)
    assert torch.equal(found, torch.tensor([[1.0] * 3, [2.0] * 3]))


@pytest.mark.parametrize(
    ("write", "replaced"),
    [
        (lambda x, i, v: put(x, [i], v, True), True),
        (lambda x, i, v: put(x, [None, i], v.T, accumulate=True), True),
        (lambda x, i, v: put_masked(x, i[:, None] > 2, [i], v), True),
        (lambda x, i, v: put(x, [i], v), False),
        (lambda x, i, v: put(x.long(), [i], v.long(), True), False),  # whole numbers add to the same in any order
        (lambda x, i, v: put(x, [x[:, 0] > 0], v[0], True), False),  # a mask names each place once
    ],
)
def test_what_is_replaced_in_a_graph_computes_the_same(write, replaced):
    x, i, v = torch.zeros(5, 5), torch.tensor([3, 3, 1]), torch.arange(15.0).view(3, 5)
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        module = make_fx(write)(*(mode.from_tensor(t) for t in (x, i, v)))
    before = str(module.graph)
    order_sums(module.graph)
    module.graph.lint()
    assert ("scatter_add" in str(module.graph)) == replaced
    assert (str(module.graph) != before) == replaced
    module.recompile()
    assert torch.equal(module(x, i, v), write(x, i, v))


class Looked(nn.Module):
    """Rows of tables by number, in two ways."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.randn(50, 8))
        self.embedding = nn.Embedding(50, 8, padding_idx=3)

    def forward(self, rows: Tensor) -> Tensor:
        return torch.tanh(self.table[rows] + self.embedding(rows))


def test_a_compiled_steps_gradients_have_the_same_bits_each_time_and_are_the_eager_ones():
    threads = torch.get_num_threads()
    torch.set_num_threads(4)
    try:
        state = ft.init_state(Looked().double(), ft.regression(), ft.optim.sgd(0.1))
        batch = torch.randint(0, 50, (20_000,)), torch.randn(20_000, 8).double()
        step = ft.compile(ft.train_step)
        first, *others = [step(state, batch)[0].params for _ in range(60)]
        assert all(torch.equal(first[name], other[name]) for other in others for name in first)
        wanted = ft.train_step(state, batch)[0].params
        for name, value in first.items():
            torch.testing.assert_close(value, wanted[name], rtol=0, atol=1e-12)  # 400 sums of 1e-2 or less, in float64
    finally:
        torch.set_num_threads(threads)
