"""A member of a stack trains as if it were alone: to rounding where vectorised, to the bit one after the other."""

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from member_helpers import (
    Drawing,
    largest_difference,
    member_state,
    random_batches,
    relative_difference,
    trained_alone,
)
from torch import nn

import functrain as ft

FORMS = {True: 1e-12, False: 0.0}
form = pytest.mark.parametrize(("vectorize", "tolerance"), list(FORMS.items()), ids=["vmap", "unrolled"])


def trained_stack(states, batches, vectorize, run=ft.train_step):
    stacked = ft.stack(states, vectorize=vectorize)
    for batch in batches:
        stacked, metrics = run(stacked, batch)
    return stacked, metrics


@form
@settings(max_examples=8)
@given(
    numbers=st.lists(st.integers(0, 9), min_size=1, max_size=5, unique=True),
    accumulate=st.sampled_from([1, 2]),
    size=st.integers(1, 6),
    options=st.sampled_from(
        [{}, {"clip_norm": 0.1}, {"ema_decay": 0.9}, {"metrics": ["f1"]}, {"statistics": "module"}]
    ),
)
def test_a_member_trains_as_alone(vectorize, tolerance, numbers, accumulate, size, options):
    options, batches = {**options, "accumulate": accumulate}, random_batches(4, size)
    states = [member_state(number, **options) for number in numbers]
    stacked, metrics = trained_stack(states, batches, vectorize)
    for row, (state, member) in enumerate(zip(states, ft.unstack(stacked), strict=True)):
        lone, lone_metrics = trained_alone(state, batches)
        assert largest_difference(lone, member) <= tolerance
        assert metrics.keys() == lone_metrics.keys()
        for name, value in lone_metrics.items():
            assert torch.allclose(metrics[name][row], value, rtol=0, atol=tolerance, equal_nan=True), name


@form
def test_a_member_does_not_depend_on_its_neighbours_or_its_place(vectorize, tolerance):
    batches = random_batches(3)
    alone, _ = trained_stack([member_state(3)], batches, vectorize)
    among, _ = trained_stack([member_state(number) for number in (0, 7, 3, 5)], batches, vectorize)
    assert largest_difference(ft.unstack(alone)[0], ft.unstack(among)[2]) <= tolerance


@form
def test_single_precision_is_within_two_roundings_of_the_largest_element(vectorize, tolerance):
    batches = [(x.float(), y) for x, y in random_batches(1)]
    states = [member_state(number, precision="fp32") for number in range(3)]
    for state, member in zip(states, ft.unstack(trained_stack(states, batches, vectorize)[0])):
        lone = trained_alone(state, batches)[0]
        for name, value in lone.params.items():
            allowed = 2 * torch.finfo(torch.float32).eps * value.abs().max() if tolerance else 0
            assert (member.params[name] - value).abs().max() <= allowed, name


@form
def test_each_member_has_a_batch_of_its_own(vectorize, tolerance):
    states, own = [member_state(number) for number in range(3)], [random_batches(2, seed=s) for s in range(3)]
    batches = [
        ft.PerMember(tuple(torch.stack(column) for column in zip(*(own[m][step] for m in range(3)))))
        for step in range(2)
    ]
    stacked, _ = trained_stack(states, batches, vectorize)
    for state, batches_of_one, member in zip(states, own, ft.unstack(stacked)):
        assert largest_difference(trained_alone(state, batches_of_one)[0], member) <= tolerance


TOLERANCES = {"muon": 2**-8}  # its iterations run in bfloat16

NUMBERS = {  # of each optimizer: hyperparameters in which members differ
    "sgd": {"momentum": (0.5, 0.9), "weight_decay": (0.1, 0.2)},
    "adam": {"betas": ((0.8, 0.9), (0.9, 0.99)), "eps": (1e-8, 1e-3), "weight_decay": (0.0, 0.2)},
    "adamw": {"betas": ((0.8, 0.9), (0.9, 0.99)), "weight_decay": (0.0, 0.2)},
    "nadam": {"betas": ((0.8, 0.9), (0.9, 0.99)), "weight_decay": (0.0, 0.2)},
    "radam": {"betas": ((0.8, 0.9), (0.9, 0.99)), "weight_decay": (0.0, 0.2)},
    "adamax": {"betas": ((0.8, 0.9), (0.9, 0.99))},
    "lion": {"betas": ((0.8, 0.9), (0.9, 0.99)), "weight_decay": (0.0, 0.2)},
    "rmsprop": {"alpha": (0.9, 0.99), "eps": (1e-8, 1e-3)},
    "lamb": {"betas": ((0.8, 0.9), (0.9, 0.99)), "weight_decay": (0.1, 0.2)},
}


@pytest.mark.parametrize("name", sorted(ft.optim.REGISTRY))
def test_each_optimizer_has_each_members_numbers(name):
    """Or it says that it cannot; never does one member train with the numbers of another."""
    make = ft.optim.REGISTRY[name]
    cases = [{}, {"lr": (0.01, 0.02)}, *({key: values} for key, values in NUMBERS.get(name, {}).items())]
    batches = random_batches(3)
    for case in cases:
        given_numbers = [{key: values[m] for key, values in case.items()} for m in range(2)]
        states = [member_state(m, optimizer=make(**given_numbers[m])) for m in range(2)]
        stacked, _ = trained_stack(states, batches, True)
        for state, member in zip(states, ft.unstack(stacked)):
            assert relative_difference(trained_alone(state, batches)[0], member) < TOLERANCES.get(name, 1e-9), case


@pytest.mark.parametrize("name", sorted(ft.optim.REGISTRY))
def test_every_number_of_an_optimizer_is_each_members_or_is_refused(name):
    """Over all float arguments of all optimizers: what is silently the first member's would show."""
    import inspect

    make, batches = ft.optim.REGISTRY[name], random_batches(2)
    for key, parameter in inspect.signature(make).parameters.items():
        default = parameter.default
        if not isinstance(default, float) or default == 0.0:
            continue
        try:
            optimizers = [make(**{key: default}), make(**{key: default * 0.5})]
        except ValueError:
            continue
        states = [member_state(m, optimizer=optimizers[m]) for m in range(2)]
        try:
            stacked, _ = trained_stack(states, batches, True)
        except (TypeError, ValueError):
            continue
        for state, member in zip(states, ft.unstack(stacked)):
            assert relative_difference(trained_alone(state, batches)[0], member) < TOLERANCES.get(name, 1e-9), key


def test_members_have_schedules_of_their_own():
    schedules = [
        ft.optim.schedules.cosine(0.1, 5),
        ft.optim.schedules.linear(0.2, 3),
        ft.optim.schedules.cosine(0.1, 9),
    ]
    states, batches = [member_state(m, optimizer=ft.optim.sgd(s)) for m, s in enumerate(schedules)], random_batches(4)
    stacked, metrics = trained_stack(states, batches, True)
    for row, (state, member) in enumerate(zip(states, ft.unstack(stacked))):
        lone, lone_metrics = trained_alone(state, batches)
        assert largest_difference(lone, member) <= 1e-12
        assert metrics["lr"][row] == lone_metrics["lr"]


def test_unrolled_members_may_differ_in_anything_but_their_form():
    def network(p):
        return lambda: nn.Sequential(nn.Linear(6, 8), nn.Dropout(p), nn.Linear(8, 3))

    states = [member_state(m, make=network(p)) for m, p in enumerate((0.1, 0.6))]
    states[1] = dataclasses.replace(
        states[1], recipe=dataclasses.replace(states[1].recipe, objective=ft.classification("focal"))
    )
    batches = random_batches(3)
    stacked, _ = trained_stack(states, batches, None)
    assert stacked.recipe.stacked.form == "unroll"
    for state, member in zip(states, ft.unstack(stacked)):
        assert largest_difference(trained_alone(state, batches)[0], member) == 0


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("smoothings", [(0.0, 0.1, 0.3), (0.2, 0.4, 0.05)])
@pytest.mark.parametrize("weights", [None, (0.5, 1.0, 2.0)])
def test_label_smoothing_is_each_members_own(smoothings, weights, compiled):
    states = [
        member_state(m, objective=ft.classification(label_smoothing=rate, class_weights=weights))
        for m, rate in enumerate(smoothings)
    ]
    check_members(states, compiled)


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_dropout_rates_are_each_members_own(accumulate, compiled):
    def network(p):
        return lambda: nn.Sequential(
            nn.Dropout(p), nn.Linear(6, 8), nn.Dropout(p / 2, inplace=True), nn.Dropout(0.3), nn.Linear(8, 3)
        )

    states = [member_state(m, make=network(p), accumulate=accumulate) for m, p in enumerate((0.1, 0.6, 0.9))]
    check_members(states, compiled)
    batch = random_batches(1)[0]
    means = ft.eval_step(ft.stack(states), batch).means()["loss"]
    assert torch.allclose(
        means, torch.stack([ft.eval_step(s, batch).means()["loss"] for s in states]), rtol=0, atol=1e-12
    )


def check_members(states, compiled):
    """Vectorised members are within 1e-12 of the same members alone."""
    batches = random_batches(4)
    step = ft.compile(ft.train_step, backend="aot_eager") if compiled else ft.train_step
    stacked, _ = trained_stack(states, batches, True, step)
    for state, member in zip(states, ft.unstack(stacked)):
        assert largest_difference(trained_alone(state, batches)[0], member) <= 1e-12


def test_a_dropout_that_drops_nothing_is_unrolled_beside_others():
    states = [
        member_state(m, make=lambda p=p: nn.Sequential(nn.Linear(6, 3), nn.Dropout(p)))
        for m, p in enumerate((0.0, 0.2))
    ]
    assert ft.stack(states).recipe.stacked.form == "unroll"


@form
def test_an_overflow_of_one_member_refuses_its_update_alone(vectorize, tolerance):
    states = [member_state(m, make=lambda: nn.Linear(6, 3), loss_scale=2.0) for m in range(3)]
    states[1] = states[1].replace(
        params={**states[1].params, "bias": torch.full((3,), float("inf"), dtype=torch.float64)}
    )
    batches = random_batches(2)
    stacked, metrics = trained_stack(states, batches, vectorize)
    assert metrics["skipped"].tolist() == [0, 1, 0]
    assert stacked.counts.applied.tolist() == [2, 0, 2]
    for number in (0, 2):
        assert largest_difference(trained_alone(states[number], batches)[0], ft.unstack(stacked)[number]) <= tolerance


@form
def test_evaluation_gives_each_members_totals(vectorize, tolerance):
    states, batch = [member_state(m, ema_decay=0.5, metrics=["f1"]) for m in range(3)], random_batches(1)[0]
    states = [trained_alone(state, [batch])[0] for state in states]
    for ema in (False, True):
        means = ft.eval_step(ft.stack(states, vectorize=vectorize), batch, ema=ema).means()
        for row, state in enumerate(states):
            for name, value in ft.eval_step(state, batch, ema=ema).means().items():
                assert abs(means[name][row] - value) <= tolerance


@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_compiled_members_are_eager_ones(backend):
    states, batches = [member_state(m) for m in range(3)], random_batches(2)
    step = ft.compile(ft.train_step, backend=backend, donate=True)
    compiled, _ = trained_stack(states, batches, True, step)
    assert step.runner.compilations == {"update": 1}
    eager, _ = trained_stack(states, batches, True)
    assert largest_difference(eager, compiled) <= 1e-12


def test_unrolled_compiled_members_are_lone_compiled_ones():
    states, batches = [member_state(m) for m in range(2)], random_batches(2)
    compiled, _ = trained_stack(states, batches, False, ft.compile(ft.train_step))
    lone = ft.compile(ft.train_step)
    for state, member in zip(states, ft.unstack(compiled)):
        for batch in batches:
            state, _ = lone(state, batch)
        assert largest_difference(state, member) == 0


def test_unstacking_gives_the_states_that_were_stacked():
    states = [member_state(m) for m in range(3)]
    for state, member in zip(states, ft.unstack(ft.stack(states)), strict=True):
        assert ft.digest(state) == ft.digest(member)
        assert member.recipe is state.recipe


def test_a_stack_is_refused_where_one_model_is_expected():
    stacked = ft.stack([member_state(0), member_state(1)])
    with pytest.raises(ValueError, match="takes a state of one model, and this is a stack of 2"):
        ft.to_module(stacked)
    with pytest.raises(ValueError, match="stack takes a state of one model"):
        ft.stack([stacked])
    with pytest.raises(ValueError, match=r"unstack takes a state from functrain\.stack"):
        ft.unstack(member_state(0))


@pytest.mark.parametrize(
    ("states", "message"),
    [
        (list, "one state at least"),
        (lambda: [member_state(0), member_state(1, make=lambda: nn.Linear(6, 3))], "states of one form"),
        (
            lambda: [member_state(0), trained_alone(member_state(1), random_batches(1))[0]],
            "step is 0 of the first, and 1",
        ),
        (lambda: [member_state(0), member_state(1, precision="fp32")], "one precision"),
    ],
    ids=["none", "another model", "another step", "another precision"],
)
def test_states_that_do_not_fit_together_are_refused(states, message):
    with pytest.raises(ValueError, match=message):
        ft.stack(states())


def test_what_cannot_be_vectorised_is_named():
    states = [
        member_state(m, make=lambda p=p: nn.Sequential(nn.Linear(6, 3), nn.LeakyReLU(p)))
        for m, p in enumerate((0.1, 0.2))
    ]
    with pytest.raises(ValueError, match="they differ in 'negative_slope' of the module '1'"):
        ft.stack(states, vectorize=True)
    torch_made = [member_state(m, optimizer=ft.optim.from_torch(torch.optim.SGD, lr=0.1 * (m + 1))) for m in range(2)]
    with pytest.raises(ValueError, match="they differ in optimizer"):
        ft.stack(torch_made, vectorize=True)


class Chooses(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(6, 3)

    def forward(self, x):
        return self.linear(x) * torch.bernoulli(torch.sigmoid(x[:, :3]))


def test_draws_with_computed_probabilities_are_refused():
    stacked = ft.stack([member_state(m, make=Chooses) for m in range(2)])
    with pytest.raises(ft.errors.FunctrainError, match="whose probabilities are computed"):
        ft.train_step(stacked, random_batches(1)[0])


def test_batches_of_each_member_have_a_row_for_each():
    stacked = ft.stack([member_state(m) for m in range(2)])
    with pytest.raises(ValueError, match="a row for each of the 2 members"):
        ft.train_step(stacked, ft.PerMember((torch.zeros(3, 5, 6), torch.zeros(3, 5))))


def test_the_callers_generators_stay_as_they_are():
    stacked, before = ft.stack([member_state(m, make=Drawing) for m in range(2)]), torch.get_rng_state()
    ft.train_step(stacked, random_batches(1)[0])
    assert torch.equal(before, torch.get_rng_state())


class DrawsAtTimes(nn.Module):
    """Draws in every second call only, by a counter of Python's."""

    calls = 0

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(6, 3)

    def forward(self, x):
        DrawsAtTimes.calls += 1
        return self.linear(x) + (torch.rand(3, dtype=x.dtype) if DrawsAtTimes.calls % 2 else 0)


def test_a_network_that_draws_otherwise_than_at_first_is_refused():
    stacked = ft.stack([member_state(m, make=DrawsAtTimes) for m in range(2)], vectorize=True)
    batch = random_batches(1)[0]

    def twice():
        return ft.train_step(ft.train_step(stacked, batch)[0], batch)

    with pytest.raises(ft.errors.FunctrainError, match="draws otherwise than in its first step"):
        twice()


class Attends(nn.Module):
    """Attention without dropout, beside a mask: an operation of torch's that may draw, and does not."""

    def __init__(self):
        super().__init__()
        self.inner, self.drop, self.outer = nn.Linear(2, 6), nn.Dropout(0.3), nn.Linear(2, 3)

    def forward(self, x):
        q, k, v = self.inner(x.view(-1, 3, 2)).chunk(3, -1)
        return self.outer(self.drop(nn.functional.scaled_dot_product_attention(q, k, v)).mean(1))


@form
def test_attention_without_dropout_draws_nothing(vectorize, tolerance):
    batches, states = random_batches(3), [member_state(m, make=Attends) for m in range(3)]
    stacked, _ = trained_stack(states, batches, vectorize)
    for state, member in zip(states, ft.unstack(stacked)):
        assert largest_difference(trained_alone(state, batches)[0], member) <= tolerance


@pytest.mark.parametrize(
    "use",
    [
        lambda state, data: ft.evaluate(state, data),
        lambda state, data: ft.predict(state, data),
        lambda state, data: ft.find_lr(state, data),
        lambda state, data: ft.find_batch_size(state, data),
        lambda state, data: ft.find_nonfinite(state, data),
        lambda state, data: ft.replay(state, data, "runs/none"),
        lambda state, _: ft.shard(state),
    ],
    ids=["evaluate", "predict", "find_lr", "find_batch_size", "find_nonfinite", "replay", "shard"],
)
def test_what_takes_one_model_says_what_to_give_it(use):
    stacked = ft.stack([member_state(m) for m in range(2)])
    with pytest.raises(ValueError, match=r"this is a stack of 2: give it functrain\.unstack\(state\)\[number\]"):
        use(stacked, random_batches(1))


def test_a_stack_is_made_of_a_list():
    with pytest.raises(TypeError, match="stack takes a list of states, got TrainState"):
        ft.stack(member_state(0))


def test_label_smoothing_of_soft_targets_is_each_members_own():
    states = [member_state(m, objective=ft.classification(label_smoothing=rate)) for m, rate in enumerate((0.0, 0.3))]
    batches = [(x, torch.softmax(x[:, :3], 1)) for x, _ in random_batches(3)]
    stacked, _ = trained_stack(states, batches, True)
    for state, member in zip(states, ft.unstack(stacked)):
        assert largest_difference(trained_alone(state, batches)[0], member) <= 1e-12
