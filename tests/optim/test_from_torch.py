"""Torch's optimizers, and strangers', as pure transformations."""

import pytest
import torch
from optim_helpers import default_float64, gradients, make_params, one_step, run, run_torch, traced
from test_optimizer_parity import CONFIGURATIONS, assert_parity, shapes_for

from functrain import optim
from functrain.foundation import trees
from functrain.optim import schedules

STEPS = 20
STEPPED = [entry for entry in CONFIGURATIONS if entry[0] not in (torch.optim.LBFGS, torch.optim.SparseAdam)]
SPECIAL_START = {"lr": 0.1, "momentum": 0.9, "dampening": 0.5}


def as_numbers(kwargs):
    return {key: value.item() if isinstance(value, torch.Tensor) else value for key, value in kwargs.items()}


@pytest.mark.parametrize(
    ("reference", "kwargs"), [entry[:2] for entry in STEPPED], ids=[f"{e[0].__name__}-{e[2]}" for e in STEPPED]
)
def test_steps_equal_those_of_the_optimizer_itself(reference, kwargs):
    params, kwargs = make_params(shapes=shapes_for(reference)), as_numbers(kwargs)
    with default_float64():
        actual, state = run(optim.from_torch(reference, **kwargs), params, STEPS)
    assert_parity(actual, run_torch(lambda leaves: reference(leaves, **kwargs), params, STEPS))
    assert all(isinstance(leaf, torch.Tensor) for leaf in trees.leaves(state))


class Sluggish(torch.optim.Optimizer):
    """A stranger's: its own names, its own loops, an initial state that is neither zero nor one."""

    def __init__(self, params, lr=0.1, keep=0.9):
        super().__init__(params, {"lr": lr, "keep": keep})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                state = self.state[p]
                if not state:
                    state["start"] = p.clone()
                    state["speed"] = torch.full_like(p, 0.25)
                p.grad.add_(p - state["start"], alpha=0.01)
                state["speed"].mul_(group["keep"]).add_(p.grad.abs(), alpha=1 - group["keep"])
                p.add_(p.grad / state["speed"], alpha=-group["lr"])


class Prepared(Sluggish):
    """One that makes its state in its constructor, as torch's Adagrad did until 2.11."""

    def __init__(self, params, lr=0.1, keep=0.9):
        super().__init__(params, lr, keep)
        for group in self.param_groups:
            for p in group["params"]:
                self.state[p]["start"] = torch.zeros_like(p)
                self.state[p]["speed"] = torch.full_like(p, 0.5)


OPTIMIZERS = {
    "sgd": optim.from_torch(torch.optim.SGD, lr=0.05, momentum=0.9),
    "sgd, special start": optim.from_torch(torch.optim.SGD, **SPECIAL_START),
    "adamw": optim.from_torch(torch.optim.AdamW, lr=0.05),
    "adamw, scheduled": optim.from_torch(torch.optim.AdamW, lr=schedules.cosine(0.05, 100)),
    "rmsprop, scheduled": optim.from_torch(torch.optim.RMSprop, lr=schedules.cosine(0.05, 100), momentum=0.5),
    "radam": optim.from_torch(torch.optim.RAdam, lr=0.05),
    "asgd": optim.from_torch(torch.optim.ASGD, lr=0.05),
    "stranger": optim.from_torch(Sluggish),
    "prepared": optim.from_torch(Prepared),
    "partitioned": optim.partition({"m*": optim.from_torch(torch.optim.Adam), "*": optim.from_torch(Sluggish)}),
}
each = pytest.mark.parametrize("optimizer", OPTIMIZERS.values(), ids=OPTIMIZERS.keys())


@each
def test_structure_dtypes_and_shapes_are_stable_and_no_argument_changes(optimizer):
    params = make_params(torch.float32)
    state, grads = optimizer.init(params), gradients(params, 0)
    before = [leaf.clone() for leaf in trees.leaves((params, state, grads))]
    updates, new_state = optimizer.update(grads, state, params)
    assert trees.structure(new_state) == trees.structure(state)
    assert trees.structure(updates) == trees.structure(params)
    for old, new in zip(trees.leaves((state, params)), trees.leaves((new_state, updates))):
        assert isinstance(new, torch.Tensor)
        assert (old.dtype, old.shape) == (new.dtype, new.shape)
    assert all(map(torch.equal, before, trees.leaves((params, state, grads))))
    pointers = [leaf.data_ptr() for leaf in trees.leaves((params, grads, new_state, updates)) if leaf.numel()]
    assert len(set(pointers)) == len(pointers)


@each
def test_a_traced_update_computes_the_same_from_the_first_step_on(optimizer):
    params = make_params(torch.float32)
    state = optimizer.init(params)
    graph, module = traced(one_step(optimizer), params, state, gradients(params, 0))
    assert "profiler" not in module.code
    for count in range(4):
        grads = gradients(params, count)
        expected = one_step(optimizer)(params, state, grads)
        torch.testing.assert_close(
            trees.leaves(graph(params, state, grads)), trees.leaves(expected), rtol=2e-6, atol=2e-6
        )
        params, state, _ = expected


@pytest.mark.parametrize(
    "reference", sorted({e[0] for e in STEPPED} - {torch.optim.Adafactor}, key=lambda c: c.__name__)
)
def test_all_of_torchs_are_traced_but_adafactor(reference):
    optimizer, params = optim.from_torch(reference), make_params(shapes=shapes_for(reference))
    with default_float64():
        state = optimizer.init(params)
    grads = gradients(params, 0)
    graph, _ = traced(one_step(optimizer), params, state, grads)
    expected = one_step(optimizer)(params, state, grads)
    torch.testing.assert_close(trees.leaves(graph(params, state, grads)), trees.leaves(expected), rtol=1e-9, atol=1e-12)


def test_a_traced_update_compiles():
    optimizer, params = OPTIMIZERS["sgd, special start"], make_params(torch.float32)
    args = (params, optimizer.init(params), gradients(params, 0))
    _, module = traced(one_step(optimizer), *args)
    torch._dynamo.reset()
    compiled = torch.compile(module, backend="aot_eager", fullgraph=True)
    expected = trees.leaves(one_step(optimizer)(*args))
    torch.testing.assert_close(compiled(*trees.leaves(args)), expected, rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize("stranger", [Sluggish, Prepared])
def test_a_stranger_equals_itself(stranger):
    actual, _ = run(optim.from_torch(stranger, lr=0.05), make_params(), STEPS)
    assert_parity(actual, run_torch(lambda leaves: stranger(leaves, lr=0.05), make_params(), STEPS))


def test_only_an_optimizer_with_a_special_start_is_computed_both_ways():
    starts = {name: OPTIMIZERS[name].init(make_params()) for name in ("sgd", "adamw", "sgd, special start", "stranger")}
    assert {name: state.special_start for name, state in starts.items()} == {
        "sgd": False,
        "adamw": False,
        "sgd, special start": True,
        "stranger": False,
    }


def test_a_schedule_equals_torchs_scheduler_and_can_be_reduced():
    optimizer = optim.from_torch(torch.optim.Adam, lr=schedules.step(0.1, 5))
    params, state = run(optimizer, make_params(), STEPS)
    expected = run_torch(
        torch.optim.Adam, make_params(), STEPS, lambda o: torch.optim.lr_scheduler.StepLR(o, 5)
    )  # from Adam's default of 1e-3
    scaled, _ = run(optim.from_torch(torch.optim.Adam, lr=schedules.step(1e-3, 5)), make_params(), STEPS)
    assert_parity(scaled, expected)
    _, state = optimizer.update(params, optim.reduce_learning_rate(state, 0.5), params)
    assert optim.learning_rate(state).item() == pytest.approx(0.5 * 0.1 * 0.1**4, rel=1e-12)


def test_a_constant_rate_is_not_in_the_state_and_cannot_be_reduced():
    state = OPTIMIZERS["adamw"].init(make_params())
    assert optim.learning_rate(state) is None
    with pytest.raises(ValueError, match="holds no learning rate"):
        optim.reduce_learning_rate(state, 0.1)


def test_an_empty_tree_works():
    optimizer = optim.from_torch(torch.optim.Adam)
    assert optimizer.update({}, optimizer.init({}), {})[0] == {}


class InGroups(Sluggish):
    def step(self, closure=None):
        super().step()
        self.param_groups[0]["seen"] = object()


class InNumbers(Sluggish):
    def step(self, closure=None):
        super().step()
        for leaf in self.param_groups[0]["params"]:
            self.state[leaf]["age"] = 3


class InCommon(Sluggish):
    def step(self, closure=None):
        super().step()
        self.state["all"] = {"age": torch.tensor(3)}


class Growing(Sluggish):
    def step(self, closure=None):
        again = bool(self.state[self.param_groups[0]["params"][0]])
        super().step()
        for leaf in self.param_groups[0]["params"]:
            self.state[leaf]["history"] = torch.zeros(2 if again else 1)


@pytest.mark.parametrize(
    ("optimizer_class", "message"),
    [
        (InGroups, "InGroups changes 'seen' of its param_groups"),
        (InNumbers, "InNumbers keeps 'age' of its state as int"),
        (InCommon, "InCommon keeps a state that belongs to no parameter"),
        (Growing, "Growing changes the form of its state for 'bias'"),
        (torch.optim.Adam([torch.zeros(1)]), "takes a subclass of torch.optim.Optimizer, not an instance"),
        (torch.nn.Linear, "takes a subclass of torch.optim.Optimizer"),
        (torch.optim.LBFGS, "the step of LBFGS needs a closure"),
    ],
)
def test_what_cannot_be_carried_on_is_refused(optimizer_class, message):
    with pytest.raises(TypeError, match=message):
        run(optim.from_torch(optimizer_class), make_params(), 3)
