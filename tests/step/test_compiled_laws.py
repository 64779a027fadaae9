"""The compiled update is the eager one to rounding, its counters and refusals exactly: every optimizer and every loss.

One network has a layer for each registered optimizer, and one objective all registered losses, so that one program is
made for all of them. Each compiled update begins with the state of the eager run: the layers share their losses, so
that a difference of Muon's, which iterates in bfloat16, would be in every gradient of the next update.
"""

import dataclasses

import pytest
import torch
from torch import nn

import functrain as ft
from functrain.foundation import trees
from functrain.objectives import contrastive, term, weighted_sum
from functrain.objectives.losses import BINARY, CLASSES, PAIRS, REGISTRY, TEACHERS, VALUES

OPTIMIZERS = sorted(ft.optim.REGISTRY)
UPDATES = 4
FROZEN = "frozen"  # a layer that no optimizer moves
BAD = 2  # the update that is refused
# Of a leaf's largest element: a sum of some ten terms in another order, squared, in a quotient. Found: 8.
ROUNDINGS = 32


class LayerForEach(nn.Module):
    """A layer for each optimizer; the outputs are what the losses take."""

    def __init__(self):
        super().__init__()
        for name in [*OPTIMIZERS, FROZEN]:
            self.add_module(name, nn.Linear(4, 12))

    def forward(self, x):
        hidden = sum(torch.tanh(layer(x)) for layer in self.children())
        return {
            "classes": hidden.unflatten(1, (4, 3)),
            "binary": hidden,
            "values": hidden,
            "first": hidden[:, :6],
            "second": hidden[:, 6:],
        }


def objective():
    terms = {name: term(name, output="classes", target="classes") for name in CLASSES}
    terms |= {name: term(name, output="binary", target="binary") for name in BINARY}
    terms |= {name: term(name, output="values", target="values") for name in VALUES}
    terms |= {name: contrastive("first", "second") for name in PAIRS}
    terms |= {name: term(name, output="classes", target="taught") for name in TEACHERS}
    assert terms.keys() == REGISTRY.keys()
    return weighted_sum(terms, {"huber": ft.schedules.linear(1.0, 10)})


def initial(precision):
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = LayerForEach()
    makers = {**ft.optim.REGISTRY, FROZEN: lambda lr: ft.optim.freeze()}
    optimizer = ft.optim.partition({f"{name}.*": makers[name](0.01) for name in [*OPTIMIZERS, FROZEN]})
    return ft.init_state(
        model,
        objective(),
        optimizer,
        precision=precision,
        clip_norm=1.0,
        ema=ft.optim.ema(0.9, warmup=True),
        loss_scale=256.0,
    )


def batch(seed, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(6, 4, generator=generator, dtype=dtype)
    if seed == BAD:
        inputs[0, 0] = float("inf")
    labels = torch.randint(4, (6, 3), generator=generator)
    labels[0, 0] = -100
    targets = {
        "classes": labels,
        "binary": torch.randint(2, (6, 12), generator=generator),
        "values": torch.randn(6, 12, generator=generator, dtype=dtype),
        "taught": torch.randn(6, 4, 3, generator=generator, dtype=dtype),
    }
    return inputs, targets, torch.tensor([1.0, 0.0, 2.0, 1.0, 1.0, 0.5], dtype=dtype)


def relative_differences(compiled, eager, eps):
    """Path -> largest difference, relative to the leaf's largest element, in units of the arithmetic's rounding."""
    assert trees.structure(compiled) == trees.structure(eager)
    found = {}
    for (path, expected), actual in zip(trees.leaves_with_paths(eager), trees.leaves(compiled), strict=True):
        if isinstance(expected, torch.Tensor) and expected.is_floating_point() and expected.numel():
            difference = (actual.double() - expected.double()).nan_to_num().abs().max().item()
            scale = max(expected.double().abs().max().item(), torch.finfo(torch.float32).tiny)
            assert torch.equal(actual.isnan(), expected.isnan()), path
            found[path] = difference / scale / eps
        else:
            assert actual == expected if not isinstance(expected, torch.Tensor) else torch.equal(actual, expected), path
    return found


def assert_the_same(compiled, eager, eps):
    # Muon's Newton-Schulz iterations are in bfloat16: a fused kernel keeps in float32 what eager rounds between two.
    in_bfloat16 = {"params/muon.weight", "ema/params/muon.weight"}
    allowed = {path: torch.finfo(torch.bfloat16).eps / eps for path in in_bfloat16}
    differences = relative_differences(compiled, eager, eps)
    assert in_bfloat16 <= differences.keys()
    beyond = {path: found for path, found in differences.items() if found > allowed.get(path, ROUNDINGS)}
    assert not beyond


def check(precision, dtype, backend):
    eps = torch.finfo(dtype).eps
    state, step = initial(precision), ft.compile(ft.train_step, backend=backend)
    frozen = {name: leaf for name, leaf in state.params.items() if name.startswith(FROZEN)}
    for seed in range(UPDATES):
        compiled, metrics = step(state, batch(seed, dtype))
        state, expected = ft.train_step(state, batch(seed, dtype))
        assert_the_same(compiled, state, eps)
        assert all(torch.equal(compiled.params[name], leaf) for name, leaf in frozen.items())
        assert metrics["skipped"].item() == expected["skipped"].item() == float(seed == BAD)
        # The metrics of an update that is refused are of numbers that are not finite.
        assert seed == BAD or max(relative_differences(metrics, expected, eps).values()) < ROUNDINGS
    integers = {field.name for field in dataclasses.fields(state) if isinstance(getattr(state, field.name), int)}
    assert integers == {"step", "batch_idx", "samples_seen", "epoch", "key"}  # compared exactly
    assert state.counts.applied.item() == UPDATES - 1


@pytest.mark.parametrize(("precision", "dtype"), [("fp64", torch.float64), ("fp32", torch.float32)])
def test_compiled_is_eager_to_rounding_and_refuses_and_counts_exactly(precision, dtype):
    check(precision, dtype, "aot_eager")


@pytest.mark.slow
@pytest.mark.parametrize(("precision", "dtype"), [("fp64", torch.float64), ("fp32", torch.float32)])
def test_inductor_is_eager_to_rounding_and_refuses_and_counts_exactly(precision, dtype):
    check(precision, dtype, "inductor")
