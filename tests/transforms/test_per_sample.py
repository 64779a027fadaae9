"""Gradients of single examples: those of a loop, opacus's, and parts of the batch's."""

import warnings
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import functrain as ft
from functrain.foundation.errors import FunctrainError
from functrain.step.gradient import gradient

EXAMPLES = 6


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.project, self.head = nn.Linear(4, 12), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.project(x.view(len(x), 3, 4)).view(len(x), 3, 3, 2, 2).permute(2, 0, 3, 1, 4)
        return self.head(F.scaled_dot_product_attention(q, k, v).mean(2).flatten(1))


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cell, self.head = nn.LSTM(4, 5, batch_first=True), nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.cell(x.view(len(x), -1, 4))[0][:, -1])


NETWORKS = {
    "mlp": lambda: nn.Sequential(nn.Linear(12, 5), nn.Tanh(), nn.Linear(5, 3)),
    "frozen": lambda: nn.Sequential(nn.Linear(12, 5).requires_grad_(False), nn.Tanh(), nn.Linear(5, 3)),
    "convolution": lambda: nn.Sequential(
        nn.Unflatten(1, (3, 2, 2)), nn.Conv2d(3, 4, 2, padding=1), nn.GroupNorm(2, 4), nn.Flatten(), nn.Linear(36, 3)
    ),
    "frozen statistics": lambda: nn.Sequential(nn.Linear(12, 5), nn.BatchNorm1d(5).eval(), nn.Linear(5, 3)),
    "attention": Attention,
}


def make_state(net: nn.Module, objective: Any = None, **options: Any) -> ft.TrainState:
    options = {"precision": "fp64", **options}
    return ft.init_state(net, objective or ft.classification(), ft.optim.sgd(0.1), **options)


def make_batch(count: int = EXAMPLES, *, weighted: bool = False) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(count)
    inputs = torch.randn(count, 12, generator=generator, dtype=torch.float64)
    labels = torch.randint(3, (count,), generator=generator)
    weight = torch.rand(count, generator=generator, dtype=torch.float64)
    return (inputs, labels, weight) if weighted else (inputs, labels)


def single(state: ft.TrainState, batch: tuple[Tensor, ...]) -> dict[str, Tensor]:
    """Gradients of the summed loss of batches of one, by the train step's own function."""
    each = [
        gradient(state, tuple(part[i : i + 1] for part in batch), state.buffers).grads for i in range(len(batch[0]))
    ]
    return {name: torch.stack([grads[name] for grads in each]) for name in each[0]}


def assert_close(left: dict[str, Tensor], right: dict[str, Tensor], tolerance: float = 1e-12) -> None:
    assert list(left) == list(right)
    for name in left:
        torch.testing.assert_close(left[name], right[name], rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("chunk_size", [None, 1, 4])
@pytest.mark.parametrize("network", NETWORKS)
def test_each_example_has_the_gradient_of_a_batch_of_one(network: str, chunk_size: int | None, weighted: bool) -> None:
    torch.manual_seed(0)
    state, batch = make_state(NETWORKS[network]()), make_batch(weighted=weighted)
    found = ft.transforms.per_sample_gradients(state, batch, chunk_size=chunk_size)
    assert_close(found, single(state, batch))
    norms = ft.transforms.per_sample_gradient_norms(state, batch, chunk_size=chunk_size)
    expected = torch.cat([grad.flatten(1) for grad in found.values()], 1).norm(dim=1)
    torch.testing.assert_close(norms, expected, rtol=1e-12, atol=0)


@settings(deadline=None, max_examples=20)
@given(count=st.integers(1, 7), weighted=st.booleans(), chunk_size=st.sampled_from([None, 1, 2, 3]))
def test_the_gradients_of_the_examples_add_up_to_that_of_the_batch(
    count: int, weighted: bool, chunk_size: int | None
) -> None:
    torch.manual_seed(1)
    state, batch = make_state(NETWORKS["mlp"]()), make_batch(count, weighted=weighted)
    found = ft.transforms.per_sample_gradients(state, batch, chunk_size=chunk_size)
    assert_close({name: grad.sum(0) for name, grad in found.items()}, gradient(state, batch, {}).grads)


def test_they_are_those_of_opacus() -> None:
    grad_sample = pytest.importorskip("opacus.grad_sample")
    torch.manual_seed(2)
    net, (inputs, labels) = NETWORKS["convolution"]().double(), make_batch()
    found = ft.transforms.per_sample_gradients(make_state(net), (inputs, labels))
    wrapped = grad_sample.GradSampleModule(net, loss_reduction="sum")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch's, about hooks on modules whose inputs need no gradient
        F.cross_entropy(wrapped(inputs), labels, reduction="sum").backward()
    assert_close(found, {name: p.grad_sample for name, p in net.named_parameters()})


def test_each_example_has_its_own_dropout_and_the_state_decides_it() -> None:
    net = nn.Sequential(nn.Linear(12, 64, bias=False), nn.Dropout(0.5), nn.Linear(64, 3))
    state = make_state(net)
    inputs, labels = make_batch(1)
    batch = (inputs.expand(8, -1), labels.expand(8))
    before = torch.random.get_rng_state()
    found = ft.transforms.per_sample_gradients(state, batch)["2.weight"]
    assert torch.equal(torch.random.get_rng_state(), before)
    masks = {tuple((grad != 0).any(0).tolist()) for grad in found}
    assert len(masks) == 8
    assert torch.equal(found, ft.transforms.per_sample_gradients(state, batch)["2.weight"])
    assert not torch.equal(found, ft.transforms.per_sample_gradients(state.replace(step=1), batch)["2.weight"])


def test_a_network_that_vmap_cannot_compute_is_computed_one_example_after_another() -> None:
    class Branching(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) * (2.0 if x.sum().item() > 0 else 1.0)

    state, batch = make_state(Branching(12, 3)), make_batch()
    with pytest.raises(FunctrainError, match=r"Branching has code .* Set chunk_size=1"):
        ft.transforms.per_sample_gradients(state, batch)
    assert_close(ft.transforms.per_sample_gradients(state, batch, chunk_size=1), single(state, batch))


def test_recurrent_networks_run_one_example_after_another() -> None:
    state, batch = make_state(Recurrent()), make_batch()
    assert_close(ft.transforms.per_sample_gradients(state, batch, chunk_size=1), single(state, batch))


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_batch_norm_is_refused_by_name(mode: str) -> None:
    net = getattr(nn.Sequential(nn.Linear(12, 3), nn.BatchNorm1d(3)), mode)()
    with pytest.raises(FunctrainError, match=r"'1' \(BatchNorm1d\) normalises each example by its whole batch"):
        ft.transforms.per_sample_gradients(make_state(net), make_batch())


def test_batches_that_cannot_be_cut_are_refused() -> None:
    state = make_state(NETWORKS["mlp"]())
    with pytest.raises(ValueError, match="chunk_size must be a whole number"):
        ft.transforms.per_sample_gradients(state, make_batch(), chunk_size=0)
    with pytest.raises(ft.errors.BatchError):
        ft.transforms.per_sample_gradients(state, (make_batch()[0], ["a"] * EXAMPLES))
    with pytest.raises(TypeError, match="takes a TrainState first"):
        ft.transforms.per_sample_gradients(nn.Linear(1, 1), make_batch())  # type: ignore[arg-type]


def test_the_precision_of_the_state_is_kept() -> None:
    state = make_state(NETWORKS["mlp"](), precision="bf16")
    inputs, labels = make_batch()
    found = ft.transforms.per_sample_gradients(state, (inputs.float(), labels))
    assert {grad.dtype for grad in found.values()} == {torch.float32}
    exact = ft.transforms.per_sample_gradients(make_state(NETWORKS["mlp"](), precision="fp32"), (inputs, labels))
    assert not torch.equal(found["0.weight"], exact["0.weight"])


def test_a_compiled_transform_gives_the_same() -> None:
    torch.manual_seed(3)
    state, batch = make_state(NETWORKS["mlp"]()), make_batch()
    compiled = ft.compile(ft.transforms.per_sample_gradients, backend="aot_eager")
    assert_close(compiled(state, batch), ft.transforms.per_sample_gradients(state, batch))
    assert compiled.runner.compilations.total() == 1  # type: ignore[attr-defined]
