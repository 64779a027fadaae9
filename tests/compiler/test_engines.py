"""The engine of torch's public functions alone, and when it takes the place of functrain's own."""

import sys
import warnings

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import functrain as ft
from functrain.compiler import sizes
from functrain.compiler.engines import EngineWarning
from functrain.foundation.errors import TracingError


class Model(nn.Module):
    """BatchNorm, dropout twice, and a block that runs again in the backward pass."""

    def __init__(self, dropout=0.0):
        super().__init__()
        self.first = nn.Linear(4, 8, bias=False)
        self.norm = nn.BatchNorm1d(8)
        self.block = nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Dropout(dropout))
        self.last = nn.Linear(8, 3)
        self.dropout = dropout

    def forward(self, x):
        x = self.block(self.norm(self.first(x)).relu())
        return self.last(F.dropout(x, self.dropout, self.training))


def make(dropout=0.0, model=None, **options):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Model(dropout) if model is None else model()
    settings = {"optimizer": ft.optim.adamw(1e-2), "precision": "fp64"} | options
    return ft.init_state(model, ft.classification(), settings.pop("optimizer"), **settings)


def batches(count, size=6):
    generator = torch.Generator().manual_seed(1)
    return [
        (torch.randn(size, 4, generator=generator), torch.randint(3, (size,), generator=generator))
        for _ in range(count)
    ]


def trained(step, state, count=3):
    for batch in batches(count):
        state, metrics = step(state, batch)
    return state, metrics


SETTINGS = {
    "plain": {},
    "dropout": {"dropout": 0.5},
    "accumulated": {"accumulate": 2, "ema_decay": 0.9, "clip_norm": 0.1, "dropout": 0.2},
    "checkpointed": {"activation_checkpointing": "block", "dropout": 0.5},
    "scheduled": {"optimizer": ft.optim.sgd(ft.schedules.cosine(0.1, total_steps=10), momentum=0.9)},
    "two gradients": {"optimizer": ft.optim.sam(ft.optim.sgd(0.1))},
}


@pytest.mark.parametrize("donate", [False, True])
@pytest.mark.parametrize("options", SETTINGS.values(), ids=SETTINGS.keys())
def test_its_steps_are_eager_steps(options, donate, assert_close):
    step = ft.compile(ft.train_step, engine="torch", backend="aot_eager", donate=donate)
    (state, metrics), (expected, expected_metrics) = (
        trained(step, make(**options)),
        trained(ft.train_step, make(**options)),
    )
    assert_close((state, metrics), (expected, expected_metrics))
    assert (state.step, state.samples_seen) == (expected.step, expected.samples_seen)


def test_evaluation_and_backend_eager(assert_close):
    state, (batch,) = make(dropout=0.5), batches(1)
    totals = ft.compile(ft.eval_step, engine="torch", backend="aot_eager")(state, batch)
    assert_close(totals.sums, ft.eval_step(state, batch).sums)
    assert_close(
        *(trained(step, state) for step in (ft.compile(ft.train_step, engine="torch", backend="eager"), ft.train_step))
    )


@pytest.mark.slow
def test_by_inductor_its_steps_are_eager_steps(assert_close):
    options = {"dropout": 0.5, "optimizer": ft.optim.sgd(0.1, momentum=0.9)}
    step = ft.compile(ft.train_step, engine="torch", donate=True)
    assert_close(trained(step, make(**options), 2), trained(ft.train_step, make(**options), 2))


def test_draws_are_a_function_of_the_state_and_the_callers_generator_stays():
    step = ft.compile(ft.train_step, engine="torch", backend="aot_eager")
    state, (batch,) = make(dropout=0.5), batches(1)
    before = torch.get_rng_state()
    first, again, other = (step(s, batch)[0] for s in (state, state, state.replace(key=1)))
    assert ft.diff_states(first, again) == []
    assert ft.diff_states(first, other) != []
    assert torch.equal(before, torch.get_rng_state())


def test_more_shapes_than_dynamo_keeps_for_one_function():
    step = ft.compile(ft.train_step, engine="torch", backend="aot_eager")
    state = make(model=lambda: nn.Linear(4, 3))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ft.errors.ShapeWarning)
        for size in range(2, 14):
            state, _ = step(state, batches(1, size)[0])
    assert dict(step.runner.compilations) == {"update": 12}


class ReadsValues(nn.Linear):
    def forward(self, x):
        return super().forward(x) * x.sum().item()


def test_what_depends_on_a_value_is_refused_with_its_line():
    step = ft.compile(ft.train_step, engine="torch", backend="aot_eager")
    state = make(model=lambda: ReadsValues(4, 3))
    with pytest.raises(
        TracingError, match=r"test_engines.py, line \d+.*x.sum\(\).item\(\).*needs the value of a tensor"
    ):
        step(state, batches(1)[0])


def test_engines_and_modes_that_there_are_not_are_refused():
    with pytest.raises(ValueError, match="engine must be one of package, torch; got 'dynamo'"):
        ft.compile(ft.train_step, engine="dynamo")
    with pytest.raises(ValueError, match="mode='max-autotune' is a mode of engine='package'; got engine='torch'"):
        ft.compile(ft.train_step, engine="torch", mode="max-autotune")


def moved_module(monkeypatch):
    monkeypatch.setitem(sys.modules, "functrain.compiler.package_engine", None)


def moved_argument(monkeypatch):
    monkeypatch.setattr(sizes, "FakeTensorMode", lambda: None)


@pytest.mark.parametrize("moved", [moved_module, moved_argument])
def test_where_internals_have_moved_it_takes_the_place_of_functrains_own(moved, monkeypatch, assert_close):
    moved(monkeypatch)
    step = ft.compile(ft.train_step, backend="aot_eager")
    told = []
    step.runner.on_program = lambda form, how: told.append(how)
    with pytest.warns(EngineWarning, match=r"lacks what functrain's own compilation uses \(\w+Error: .*engine='torch'"):
        state, _ = step(make(), batches(1)[0])
    assert told[-1] == "torch.compile"
    assert_close(state, ft.train_step(make(), batches(1)[0])[0])


class Wrong(nn.Linear):
    def forward(self, x):
        return self.no_such_layer(x)


class Mistyped(nn.Linear):
    def forward(self, x):
        return F.linear(x, "weight")


@pytest.mark.parametrize(("model", "error"), [(Wrong, AttributeError), (Mistyped, TypeError)])
def test_errors_of_the_model_are_raised_as_they_are(model, error):
    step = ft.compile(ft.train_step, backend="aot_eager")
    state, (batch,) = make(model=lambda: model(4, 3)), batches(1)
    with warnings.catch_warnings():
        warnings.simplefilter("error", EngineWarning)
        with pytest.raises(error):
            step(state, batch)
