"""A user's model keeps its meaning in a compiled step, or is refused by name with the way out."""

import random
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

import functrain as ft
from functrain.foundation.errors import TracingError

BATCH = (torch.randn(8, 4, generator=torch.Generator().manual_seed(2)), torch.arange(8) % 3)


def layers(*middle: nn.Module, width: int = 4) -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, width), *middle, nn.Linear(width, 3))


def with_flags() -> nn.Module:
    return layers(nn.BatchNorm1d(4), nn.Dropout(0.3), nn.RReLU(), Functional())


class Functional(nn.Module):
    """Does something else in training than in evaluation."""

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.dropout(x, 0.2, self.training) if self.training else x * 5


def frozen_statistics() -> nn.Module:
    model = layers(nn.BatchNorm1d(4), nn.Dropout(0.3))
    model[1].eval()
    return model


def forward_hooks() -> nn.Module:
    model = layers(nn.Tanh())
    model[0].register_forward_pre_hook(lambda module, args: (args[0] * 2,))
    model[1].register_forward_hook(lambda module, args, output: output + 0.1)
    model[2].register_forward_hook(lambda module, args, kwargs, output: output * 0.5, with_kwargs=True)
    return model


def backward_hooks() -> nn.Module:
    model = layers(nn.Tanh())
    model[1].register_full_backward_hook(lambda module, grad_input, grad_output: (grad_input[0] * 0.5,))
    model[2].register_full_backward_pre_hook(lambda module, grad_output: (grad_output[0] * 3,))
    return model


class TensorHook(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        if x.requires_grad:
            x.register_hook(lambda grad: grad * 0.25)
        return x * 2


def tied() -> nn.Module:
    model = layers(nn.Tanh(), nn.Linear(4, 4))
    model[2].weight = model[0].weight
    return model


def in_place() -> nn.Module:
    first = nn.ReLU(inplace=True), nn.Linear(4, 4), nn.Dropout(0.2, inplace=True)
    return layers(*first, nn.Linear(4, 4), nn.LeakyReLU(0.1, inplace=True))


def lazy() -> nn.Module:
    model = nn.Sequential(nn.LazyLinear(5), nn.LazyBatchNorm1d(), nn.LazyLinear(3))
    model(torch.zeros(2, 4))
    return model


class Reassigned(nn.Module):
    """A buffer that forward replaces, instead of writing to it."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.calls = self.calls + 1
        return x * self.calls


class Looks(nn.Module):
    """Keeps what it saw, counts, and fills a cache: none of it shows in what it computes."""

    def __init__(self) -> None:
        super().__init__()
        self.calls, self.seen, self.table = 0, [], None

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        self.seen.append(tuple(x.shape))
        self.last = x
        if self.table is None:
            self.table = torch.arange(x.shape[1])
        return x * self.table.to(x.dtype)


class CheckpointedByTorch(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Tanh()

    def forward(self, x: Tensor) -> Tensor:
        from torch.utils.checkpoint import checkpoint

        return checkpoint(self.inner, x, use_reentrant=False)


class KeptTwice(nn.Module):
    """Registered modules and parameters, used through lists and a dict."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)
        self.modules_in_order = [self.first, self.second]
        self.weights, self.named = [self.first.weight], {"bias": self.second.bias}

    def forward(self, x: Tensor) -> Tensor:
        for module in self.modules_in_order:
            x = module(x)
        return x @ self.weights[0] + self.named["bias"]


def in_a_compiler() -> nn.Module:
    inner = torch.compile(nn.Linear(4, 4), backend="eager")
    return torch.compile(layers(nn.Sequential(inner, nn.Tanh())), backend="eager")


def compiled_in_place() -> nn.Module:
    model = layers(nn.Linear(4, 4), nn.Tanh())
    model[1].compile(backend="eager")
    return model


class Converts(nn.Module):
    """Calls `.to()` in forward, as models of mixed precision do; the second one computes in another precision."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = (
            nn.Linear(4, 4),
            nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4, track_running_stats=False)),
        )

    def forward(self, x: Tensor) -> Tensor:
        self.one = self.one.to(x.dtype)
        return self.one(x) + self.two.float()(x.float()).to(x.dtype)


class MakesItsTable(nn.Module):
    """Fills a buffer, and registers another, at its first call."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("table", None)

    def forward(self, x: Tensor) -> Tensor:
        if self.table is None:
            self.table = torch.arange(4.0)
            self.register_buffer("other", torch.ones(4), persistent=False)
        return x * self.table + self.other


MODELS: dict[str, Any] = {
    "training flags": with_flags,
    "a BatchNorm in evaluation mode": frozen_statistics,
    "forward hooks": forward_hooks,
    "backward hooks": backward_hooks,
    "hooks on tensors": lambda: layers(TensorHook()),
    "weight_norm": lambda: layers(parametrizations.weight_norm(nn.Linear(4, 4))),
    "spectral_norm": lambda: layers(parametrizations.spectral_norm(nn.Linear(4, 4))),
    "orthogonal": lambda: layers(parametrizations.orthogonal(nn.Linear(4, 4))),
    "spectral_norm of old": lambda: layers(nn.utils.spectral_norm(nn.Linear(4, 4))),
    "tied weights": tied,
    "in-place activations": in_place,
    "lazy modules that have seen a batch": lazy,
    "a buffer that is replaced": lambda: layers(Reassigned()),
    "Python attributes that change nothing": lambda: layers(Looks()),
    "registered modules and parameters in lists": lambda: layers(KeptTwice()),
    "modules within torch.compile": in_a_compiler,
    "modules compiled in place": compiled_in_place,
    ".to() in forward": lambda: layers(Converts()),
    "tables made at the first call": lambda: layers(MakesItsTable()),
    "torch's checkpoint": lambda: layers(CheckpointedByTorch()),
}


@pytest.mark.parametrize("name", MODELS)
def test_compiled_training_and_evaluation_are_those_of_eager_steps(name: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's, about its own old parts
        model = MODELS[name]()
    options: dict[str, Any] = {"precision": "fp64", "ema_decay": 0.9}
    eager, compiled = (ft.init_state(model, ft.classification(), ft.optim.adamw(1e-2), **options) for _ in range(2))
    step = ft.compile(ft.train_step, backend="eager", donate=True)
    for _ in range(3):
        eager, _ = ft.train_step(eager, BATCH)
        compiled, _ = step(compiled, BATCH)
    for difference in ft.diff_states(eager.replace(recipe=None), compiled.replace(recipe=None)):
        assert difference.largest is not None
        assert difference.largest < (1e-12 if name != ".to() in forward" else 1e-5), difference
    evaluate = ft.compile(ft.eval_step, backend="eager")
    torch.testing.assert_close(evaluate(compiled, BATCH).sums, ft.eval_step(eager, BATCH).sums, rtol=1e-12, atol=1e-12)


class Counts(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return x * self.calls


class Lucky(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * random.random()


class OwnGenerator(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.generator = torch.Generator().manual_seed(1)

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.rand(4, generator=self.generator)


class Branches(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        if x.sum() > 0:
            return x
        return -x


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (Counts(), r"module '1' \(Counts\) changes its attribute 'calls'.*register_buffer.*compile=False"),
        (Lucky(), r"No module has changed.*Python's.*Draw with torch"),
        (OwnGenerator(), r"torch.Generator of its own.*without generator="),
        (Branches(), r"if x.sum\(\) > 0.*torch.where.*compile=False"),
    ],
    ids=["counts", "random", "generator", "branches"],
)
def test_what_a_graph_cannot_hold_is_refused_by_name(module: nn.Module, message: str) -> None:
    state = ft.init_state(layers(module), ft.classification(), ft.optim.sgd(0.1))
    with pytest.raises(TracingError, match=message):
        ft.compile(ft.train_step)(state, BATCH)


def test_an_objective_that_counts_is_refused_too() -> None:
    calls = []

    def objective(model: Any, batch: Any) -> ft.Loss:
        calls.append(1)
        return ft.Loss(model(batch[0]).square().sum() * len(calls), 8.0)

    state = ft.init_state(nn.Linear(4, 3), objective, ft.optim.sgd(0.1))
    with pytest.raises(TracingError, match="computes something else each time"):
        ft.compile(ft.train_step)(state, BATCH)


def test_what_a_state_cannot_hold_is_refused_by_name() -> None:
    hooked = nn.Linear(4, 3)
    hooked.weight.register_hook(lambda grad: grad * 0)
    with pytest.raises(ValueError, match=r"'weight' has a hook on its gradient.*register_full_backward_hook"):
        ft.init_state(hooked, ft.classification(), ft.optim.sgd(0.1))
    with pytest.raises(ValueError, match="lazy module"):
        ft.init_state(nn.LazyLinear(3), ft.classification(), ft.optim.sgd(0.1))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        old = nn.utils.weight_norm(nn.Linear(4, 3))
    with pytest.raises(ValueError, match=r"parametrizations\.weight_norm"):
        ft.init_state(old, ft.classification(), ft.optim.sgd(0.1))


def test_a_branch_with_cond_beside_dropout_is_compiled_with_eagers_draws() -> None:
    def objective(model: Any, batch: Any) -> ft.Loss:
        outputs = model(batch[0])
        total = torch.cond(outputs.sum() > 0, lambda x: x.square().sum(), lambda x: x.abs().sum(), (outputs,))
        return ft.Loss(total, 8.0)

    warnings.simplefilter("ignore")  # torch's, of its own making; pytest puts the filters back
    model = nn.Sequential(nn.Linear(4, 3), nn.Dropout(0.5))
    state = ft.init_state(model, objective, ft.optim.sgd(0.1), precision="fp64")
    step = ft.compile(ft.train_step, backend="aot_eager")
    for sign in (1, -1):
        batch = (sign * torch.ones(8, 4),)
        torch.testing.assert_close(
            step(state, batch)[0].params, ft.train_step(state, batch)[0].params, rtol=1e-12, atol=1e-12
        )


def test_a_branch_with_cond_is_compiled(monkeypatch: Any) -> None:
    from functrain.compiler import backends
    from functrain.compiler.packages import Loaded

    def objective(model: Any, batch: Any) -> ft.Loss:
        outputs = model(batch[0])
        total = torch.cond(outputs.sum() > 0, lambda x: x.square().sum(), lambda x: x.abs().sum(), (outputs,))
        return ft.Loss(total, 8.0)

    warnings.simplefilter("ignore")  # torch's, of its own making; pytest puts the filters back
    monkeypatch.setattr(backends, "kept", lambda key, device: None)
    monkeypatch.setattr(backends, "build", lambda graph, inputs, **_: Loaded(lambda tensors: list(graph(*tensors)), ""))
    state = ft.init_state(nn.Linear(4, 3), objective, ft.optim.sgd(0.1), precision="fp64")
    step = ft.compile(ft.train_step)
    for sign in (1, -1):
        batch = (sign * torch.ones(8, 4),)
        new, _ = step(state, batch)
        expected = ft.train_step(state, batch)[0]
        torch.testing.assert_close(new.params, expected.params, rtol=1e-12, atol=1e-12)
