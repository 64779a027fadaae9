"""The compiled update is the eager one to rounding, its counters and refusals exactly: every optimizer and every loss.

One network has a layer for each registered optimizer, and one objective all registered losses, so that one program is
made for all of them. It runs as traced; inductor has its own test in `tests/compiler/test_backends.py`.
"""

import dataclasses

import torch
from torch import nn

import functrain as ft
from functrain.objectives import contrastive, term, weighted_sum
from functrain.objectives.losses import BINARY, CLASSES, PAIRS, REGISTRY, VALUES

OPTIMIZERS = sorted(ft.optim.REGISTRY)
UPDATES = 4
BAD = 2  # the update that is refused


class LayerForEach(nn.Module):
    """A layer for each optimizer; the outputs are what the losses take."""

    def __init__(self):
        super().__init__()
        for name in OPTIMIZERS:
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
    assert terms.keys() == REGISTRY.keys()
    return weighted_sum(terms, {"huber": ft.schedules.linear(1.0, 10)})


def initial():
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = LayerForEach()
    optimizer = ft.optim.partition({f"{name}.*": ft.optim.REGISTRY[name](0.01) for name in OPTIMIZERS})
    return ft.init_state(
        model,
        objective(),
        optimizer,
        precision="fp64",
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
    }
    return inputs, targets, torch.tensor([1.0, 0.0, 2.0, 1.0, 1.0, 0.5], dtype=dtype)


def run(step, state):
    skipped = []
    for seed in range(UPDATES):
        state, metrics = step(state, batch(seed))
        skipped.append(metrics["skipped"].item())
    return state, skipped


def assert_the_same(compiled, eager, difference):
    for ours, theirs in ((compiled.params, eager.params), (compiled.ema.params, eager.ema.params)):
        muons = [name for name in ours if name.startswith("muon")]  # which iterates in bfloat16
        others = [name for name in ours if name not in muons]
        assert difference([ours[name] for name in muons], [theirs[name] for name in muons]) < 2**-8
        assert difference([ours[name] for name in others], [theirs[name] for name in others]) < 1e-11
    assert difference(compiled.epoch_totals, eager.epoch_totals) < 2**-8  # sums over all layers, Muon's too
    integers = ("step", "batch_idx", "samples_seen", "epoch", "key")
    assert [getattr(compiled, name) for name in integers] == [getattr(eager, name) for name in integers]
    for field in dataclasses.fields(eager.counts):
        assert torch.equal(getattr(compiled.counts, field.name), getattr(eager.counts, field.name))
    assert eager.counts.applied.item() == UPDATES - 1


def test_compiled_is_eager_to_rounding_and_refuses_and_counts_exactly(difference):
    compiled, compiled_skips = run(ft.compile(ft.train_step, backend="aot_eager"), initial())
    eager, skips = run(ft.train_step, initial())
    assert compiled_skips == skips == [float(seed == BAD) for seed in range(UPDATES)]
    assert_the_same(compiled, eager, difference)
