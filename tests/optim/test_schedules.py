"""Schedules against torch.optim.lr_scheduler, and the two ways to call them against each other."""

import warnings

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.fx.experimental.proxy_tensor import make_fx
from torch.optim import lr_scheduler

from functrain.optim import schedules

EXAMPLES = {
    "constant": schedules.constant(0.3),
    "linear": schedules.linear(0.3, 20, end=0.1, warmup_steps=4),
    "cosine": schedules.cosine(0.3, 20, end=0.1, warmup_steps=4),
    "step": schedules.step(0.3, 7, gamma=0.5),
    "exponential": schedules.exponential(0.3, 0.95),
    "warmup": schedules.warmup(schedules.cosine(0.3, 20), 5, start=0.2),
    "join": schedules.join([schedules.constant(0.1), schedules.linear(0.3, 10), schedules.step(0.2, 2)], [3, 9]),
    "user function": schedules.warmup(lambda step: 0.3 / (step + 1), 5),
    "user constant": schedules.join([lambda step: 0.1, lambda step: 0.3], [5]),
}


def torch_rates(make_scheduler, lr, steps):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(()))], lr=lr)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a step of the scheduler without one of the optimizer
        scheduler = make_scheduler(optimizer)
        rates = []
        for _ in range(steps):
            rates.append(scheduler.get_last_lr()[0])
            scheduler.step()
    return rates


def assert_rates(schedule, rates, lr):
    # torch's recursive forms gather a rounding or two per step, of values up to lr.
    tolerance = 1e-15 * lr * len(rates)
    assert [schedule(step) for step in range(len(rates))] == pytest.approx(rates, rel=1e-12, abs=tolerance)


RATES = st.floats(1e-5, 10)
LENGTHS = st.integers(1, 60)


@given(lr=RATES, length=LENGTHS, fraction=st.floats(0, 1))
def test_linear_equals_LinearLR_past_its_end_too(lr, length, fraction):
    expected = torch_rates(lambda o: lr_scheduler.LinearLR(o, 1.0, fraction, total_iters=length), lr, length + 5)
    assert_rates(schedules.linear(lr, length, end=lr * fraction), expected, lr)


@given(lr=RATES, length=LENGTHS, fraction=st.floats(0, 1))
def test_cosine_equals_CosineAnnealingLR_up_to_its_end_and_stays_there(lr, length, fraction):
    end = lr * fraction
    expected = torch_rates(lambda o: lr_scheduler.CosineAnnealingLR(o, T_max=length, eta_min=end), lr, length + 1)
    assert_rates(schedules.cosine(lr, length, end=end), [*expected, end, end], lr)


@given(lr=RATES, size=LENGTHS, gamma=st.floats(0.1, 1))
def test_step_equals_StepLR(lr, size, gamma):
    expected = torch_rates(lambda o: lr_scheduler.StepLR(o, size, gamma=gamma), lr, 70)
    assert_rates(schedules.step(lr, size, gamma=gamma), expected, lr)


@given(lr=RATES, gamma=st.floats(0.5, 1))
def test_exponential_equals_ExponentialLR(lr, gamma):
    expected = torch_rates(lambda o: lr_scheduler.ExponentialLR(o, gamma), lr, 70)
    assert_rates(schedules.exponential(lr, gamma), expected, lr)


@given(lr=RATES)
def test_constant_equals_ConstantLR_of_factor_1(lr):
    assert_rates(schedules.constant(lr), torch_rates(lambda o: lr_scheduler.ConstantLR(o, factor=1.0), lr, 10), lr)


@given(lr=RATES, ramp=LENGTHS, length=LENGTHS, factor=st.floats(0.01, 1))
def test_warmup_equals_SequentialLR_of_LinearLR_and_the_rest(lr, ramp, length, factor):
    def make(optimizer):
        parts = [
            lr_scheduler.LinearLR(optimizer, start_factor=factor, total_iters=ramp),
            lr_scheduler.CosineAnnealingLR(optimizer, T_max=length),
        ]
        return lr_scheduler.SequentialLR(optimizer, parts, milestones=[ramp])

    expected = torch_rates(make, lr, ramp + length + 1)
    assert_rates(schedules.warmup(schedules.cosine(lr, length), ramp, start=lr * factor), expected, lr)


@given(first=st.integers(1, 20), between=st.integers(1, 20))
def test_join_equals_SequentialLR(first, between):
    def make(optimizer):
        parts = [
            lr_scheduler.ExponentialLR(optimizer, 0.9),
            lr_scheduler.StepLR(optimizer, 3),
            lr_scheduler.LinearLR(optimizer, 1.0, 0.5, total_iters=8),
        ]
        return lr_scheduler.SequentialLR(optimizer, parts, milestones=[first, first + between])

    parts = [schedules.exponential(0.2, 0.9), schedules.step(0.2, 3), schedules.linear(0.2, 8, end=0.1)]
    expected = torch_rates(make, 0.2, first + between + 12)
    assert_rates(schedules.join(parts, [first, first + between]), expected, 0.2)


@given(lr=RATES, ramp=st.integers(1, 20), rest=st.integers(1, 20))
def test_total_steps_include_the_warmup(lr, ramp, rest):
    for make in (schedules.linear, schedules.cosine):
        schedule, bare = make(lr, ramp + rest, warmup_steps=ramp), make(lr, rest)
        assert schedule(0) == 0.0
        for step in range(rest + 2):
            assert schedule(ramp + step) == bare(step)


@pytest.mark.parametrize("name", EXAMPLES)
def test_ints_give_floats_tensors_give_float64_0d_tensors_and_they_agree(name):
    schedule = EXAMPLES[name]
    for step in (0, 1, 4, 5, 10, 20, 10**6, 2**40):
        rate, tensor = schedule(step), schedule(torch.tensor(step))
        assert type(rate) is float
        assert (tensor.dtype, tensor.shape) == (torch.float64, ())
        assert tensor.item() == rate


@pytest.mark.parametrize("name", EXAMPLES)
def test_one_traced_graph_serves_all_steps(name):
    schedule = EXAMPLES[name]
    graph = make_fx(schedule, tracing_mode="fake")(torch.tensor(0))
    torch._dynamo.reset()
    compiled = torch.compile(schedule, fullgraph=True, backend="aot_eager")
    for step in (0, 3, 6, 12, 50):
        assert graph(torch.tensor(step)).item() == schedule(step)
        assert compiled(torch.tensor(step)).item() == schedule(step)


@pytest.mark.parametrize("name", EXAMPLES)
def test_vmap_over_steps_equals_a_loop(name):
    schedule = EXAMPLES[name]
    steps = torch.arange(30)
    torch.testing.assert_close(
        torch.vmap(schedule)(steps), torch.stack([schedule(step) for step in steps]), rtol=1e-15, atol=1e-17
    )


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_result_is_on_the_counts_device(name):
    assert EXAMPLES[name](torch.tensor(0, device="meta")).device.type == "meta"


def test_every_schedule_is_hashable():
    assert len({hash(schedule) for schedule in EXAMPLES.values()}) > 1


def test_the_registry_holds_what_is_built_from_numbers_alone():
    assert set(schedules.REGISTRY) == {"constant", "linear", "cosine", "step", "exponential"}
    assert all(schedules.REGISTRY[name] is getattr(schedules, name) for name in schedules.REGISTRY)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: schedules.constant(-1), ValueError, "lr must be a finite number >= 0, got -1"),
        (lambda: schedules.cosine("1e-3", 10), TypeError, "lr must be a number, got '1e-3'"),
        (lambda: schedules.cosine(0.1, 0), ValueError, "total_steps must be >= 1, got 0"),
        (lambda: schedules.cosine(0.1, 10.0), TypeError, "total_steps must be an int"),
        (lambda: schedules.cosine(0.1, 10, end=-1.0), ValueError, "end must be a finite number >= 0"),
        (lambda: schedules.cosine(0.1, 10, warmup_steps=10), ValueError, "warmup_steps must be smaller than"),
        (lambda: schedules.linear(0.1, 10, warmup_steps=-1), ValueError, "warmup_steps must be >= 0, got -1"),
        (lambda: schedules.step(0.1, 0), ValueError, "step_size must be >= 1"),
        (lambda: schedules.step(0.1, 5, gamma=0.0), ValueError, "gamma must be a finite number > 0"),
        (lambda: schedules.exponential(0.1, -0.5), ValueError, "gamma must be a finite number > 0"),
        (lambda: schedules.warmup(schedules.constant(1), 3, start=-1), ValueError, "start must be a finite"),
        (lambda: schedules.join([schedules.constant(1)], [3]), ValueError, "1 schedules and 1 boundaries"),
        (lambda: schedules.join([], []), ValueError, "0 schedules and 0 boundaries"),
        (
            lambda: schedules.join([schedules.constant(1)] * 3, [3, 3]),
            ValueError,
            r"must increase, got \[3, 3\]",
        ),
        (lambda: schedules.constant(1)(-1), ValueError, "step must be >= 0, got -1"),
        (lambda: schedules.constant(1)(0.5), TypeError, "step must be an int"),
    ],
)
def test_bad_arguments_are_refused_by_name(make, error, message):
    with pytest.raises(error, match=message):
        make()
