"""What is written in place is read afterwards, and random numbers are torch's, in programs that inductor makes."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch._inductor import aot_compile
from torch._inductor.ir import InplaceBernoulliFallback
from torch.fx.experimental.proxy_tensor import make_fx

import functrain as ft
from functrain.compiler import packages
from functrain.compiler.patches import COMPILING, write_order
from functrain.compiler.patches.patch import applied


class InOrderError(Exception):
    """Ends a compilation when its operations are in order, before the C++ compiler."""

    def __init__(self, nodes):
        self.nodes = nodes


def operations_in_order(patches, more, function, *examples):
    """The operations of a program as inductor puts them in order; each has a name and those that it must wait for."""

    def stop(nodes):
        raise InOrderError([node.get_nodes() for node in nodes])

    options = packages._options("default", torch.device("cpu")) | {"_post_fusion_custom_pass": stop} | more
    graph = make_fx(function, tracing_mode="fake")(*examples)
    without_warnings = packages._without_torchs_warnings()
    raises = pytest.raises(Exception, match=InOrderError.__name__)
    with torch.no_grad(), without_warnings, applied(patches) as patched, raises as caught:
        aot_compile(graph, examples, options=options | dict(patched.options))
    return caught.value.inner_exception.nodes


def two_masks(table, first, second, index):
    """Rows of a table, normalised; twice with dropout."""
    x = normalised(F.embedding(index, table))
    return (
        x.reshape(-1, 32) @ first,
        F.dropout(x, 0.1).reshape(-1, 32) @ first,
        F.dropout(x, 0.1).reshape(-1, 32) @ second,
    )


def normalised(x):
    return x * x.square().mean(-1, keepdim=True).rsqrt()


WITHOUT = [patch for patch in COMPILING if patch.name != write_order.PATCH.name]
AVOIDED = write_order.avoided(torch.device("cpu"))


@pytest.mark.parametrize(
    ("patches", "options"), [(COMPILING, {}), (WITHOUT, AVOIDED), ((), AVOIDED)], ids=["patched", "avoided", "plain"]
)
def test_no_operation_runs_before_one_that_it_must_wait_for(patches, options):
    examples = torch.randn(50, 32), torch.randn(32, 32), torch.randn(32, 32), torch.randint(50, (3, 12))
    done = set()
    for operations in operations_in_order(patches, options, two_masks, *examples):
        done |= {operation.get_name() for operation in operations}
        for operation in operations:
            assert operation.ancestors <= done, operation


def test_draws_are_in_the_models_order():
    examples = torch.randn(50, 32), torch.randn(32, 32), torch.randn(32, 32), torch.randint(50, (3, 12))
    operations = [o for some in operations_in_order(COMPILING, {}, two_masks, *examples) for o in some]
    first, second = (o for o in operations if isinstance(o.node, InplaceBernoulliFallback))
    assert first.get_name() in second.ancestors


class Adapted(nn.Module):
    """A frozen table and frozen layers; a small one is trained beside each with dropout, as LoRA does; noise."""

    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(50, 32).requires_grad_(False)
        self.frozen = nn.ModuleList(nn.Linear(32, 32, bias=False).requires_grad_(False) for _ in range(2))
        self.down = nn.ModuleList(nn.Linear(32, 4, bias=False) for _ in range(2))
        self.up = nn.ModuleList(nn.Linear(4, 32, bias=False) for _ in range(2))

    def forward(self, x):
        x = normalised(self.table(x))
        one, other = (f(x) + up(down(F.dropout(x, 0.1))) for f, down, up in zip(self.frozen, self.down, self.up))
        return (one * other.sigmoid() * torch.rand_like(one)).mean(1)


@pytest.mark.slow
def test_a_model_with_dropout_and_noise_trains_as_without_compiling(assert_close):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        eager = compiled = ft.init_state(Adapted(), ft.classification(), ft.optim.sgd(0.1), precision="fp64")
    batch = (torch.arange(36).view(3, 12), torch.arange(3))
    step = ft.compile(ft.train_step)
    for _ in range(2):
        eager, _ = ft.train_step(eager, batch)
        compiled, _ = step(compiled, batch)
    assert_close(eager, compiled)


class Memory(nn.Module):
    """Writes its buffers in place in ways in which a write and what it reads overlap."""

    def __init__(self):
        super().__init__()
        self.last = nn.Linear(6, 3)
        for name in ("shifted", "folded", "clamped", "halved"):
            self.register_buffer(name, torch.arange(24.0).view(4, 6) / 24)

    def forward(self, x):
        self.shifted[1:] = self.shifted[:-1].clone()
        self.shifted[0] = x.mean(0).detach()
        self.folded.index_put_((torch.arange(4),), self.folded * 2.0)
        self.folded.add_(self.folded.flip(0)).mul_(0.3)
        self.clamped[1:3] = x[1:3].detach()
        before = self.clamped.clone()
        self.clamped.clamp_(-0.1, 0.1)
        replaced = torch.slice_scatter(self.halved, x[1:3].detach(), 0, 1, 3)
        self.halved.mul_(0.5)
        return self.last(x * (self.shifted + self.folded + before + replaced).mean(0).tanh())


@pytest.mark.slow
def test_buffers_written_in_place_are_those_of_eager_steps(assert_close):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model, batch = Memory(), (torch.randn(4, 6), torch.arange(4) % 3)
    eager, donated = (
        ft.init_state(model, ft.classification(), ft.optim.adamw(0.1), precision="fp64") for _ in range(2)
    )
    step = ft.compile(ft.train_step, donate=True)
    for _ in range(2):
        eager, _ = ft.train_step(eager, batch)
        donated, _ = step(donated, batch)
    assert_close(eager, donated)
