"""The digest of a state is equal exactly where no bit differs."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import functrain as ft

DTYPES = [torch.float32, torch.bfloat16, torch.float64, torch.int64, torch.bool, torch.uint8, torch.complex64]


@pytest.mark.parametrize("dtype", DTYPES)
def test_layout_and_origin_of_a_tensor_do_not_count(dtype):
    plain = torch.arange(12).reshape(3, 4).to(dtype)
    same = [plain.clone(), plain.t().contiguous().t(), torch.stack([plain, plain])[1], nn.Parameter(plain, False)]
    assert {ft.digest({"w": each}) for each in same} == {ft.digest({"w": plain})}


CHANGES = {
    "a bit": {"a": torch.tensor([1.0, 2.0000002]), "n": 3},
    "a sign of zero": {"a": torch.tensor([1.0, -0.0]), "n": 3},
    "a dtype": {"a": torch.tensor([1.0, 2.0]).view(torch.int32), "n": 3},
    "a shape": {"a": torch.tensor([[1.0, 2.0]]), "n": 3},
    "a name": {"b": torch.tensor([1.0, 2.0]), "n": 3},
    "a counter": {"a": torch.tensor([1.0, 2.0]), "n": 4},
    "the type of a counter": {"a": torch.tensor([1.0, 2.0]), "n": 3.0},
    "a leaf more": {"a": torch.tensor([1.0, 2.0]), "n": 3, "o": torch.empty(0)},
    "the cut between two leaves": {"a": torch.tensor([1.0]), "n": 3, "o": torch.tensor([2.0])},
}


def test_everything_that_diff_states_tells_apart_has_another_digest():
    base = {"a": torch.tensor([1.0, 2.0]), "n": 3}
    found = {name: ft.digest(tree) for name, tree in CHANGES.items()} | {"base": ft.digest(base)}
    assert len(set(found.values())) == len(found)


@given(st.integers(0, 2**32 - 1), st.integers(0, 5), st.integers(0, 31))
def test_each_bit_of_a_state_counts(bits, place, bit):
    values = torch.full((6,), bits - 2**31, dtype=torch.int32)
    other = values.clone()
    other[place] ^= (1 << bit) - (1 << 32 if bit == 31 else 0)
    assert ft.digest({"w": values.view(torch.float32)}) != ft.digest({"w": other.view(torch.float32)})


def test_the_order_of_a_dictionary_and_what_is_constant_do_not_count():
    a, b = torch.ones(2), torch.zeros(3)
    assert ft.digest({"a": a, "b": b}) == ft.digest({"b": b, "a": a})
    models = [nn.Linear(2, 1), nn.Sequential(nn.Linear(2, 1))]
    states = [ft.init_state(model, ft.regression(), ft.optim.sgd(0.1), clip_norm=c) for model in models for c in (1, 2)]
    found = [ft.digest(state) for state in states]
    assert found[0] == found[1] != found[2] == found[3]


def test_compiled_donated_and_several_updates_in_a_call_have_the_digests_of_single_steps(tmp_path):
    generator = torch.Generator().manual_seed(0)
    data = [(torch.randn(4, 3, generator=generator), torch.randn(4, 1, generator=generator)) for _ in range(6)]
    state = ft.init_state(nn.Linear(3, 1), ft.regression(), ft.optim.adam(0.1), seed=1)
    logs = []
    for donate, per_call in ((False, 1), (True, 4)):
        run = tmp_path / f"{donate}"
        options = {"backend": "eager", "donate": donate, "steps_per_call": per_call, "progress": False}
        ft.fit(state, data, epochs=2, run_dir=run, digest_every=2, log_every=3, **options)
        logs.append((run / "metrics.jsonl").read_text())
    assert logs[0] == logs[1]
    assert logs[0].count('"digest"') == 6 + 2
