"""Schedules against torch.optim.lr_scheduler, and the two ways to call them against each other."""

import math
import warnings

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from optim_helpers import traced
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
    "polynomial": schedules.polynomial(0.3, 20, power=1.7, end=0.1, warmup_steps=4),
    "cosine_restarts": schedules.cosine_restarts(0.3, 7, end=0.1),
    "cosine_restarts, growing": schedules.cosine_restarts(0.3, 3, multiplier=2),
    "multi_step": schedules.multi_step(0.3, [9, 4, 9], gamma=0.5),
    "inverse_sqrt": schedules.inverse_sqrt(0.3, 6),
    "one_cycle": schedules.one_cycle(0.3, 30),
    "one_cycle, three phases": schedules.one_cycle(0.3, 30, anneal_strategy="linear", three_phase=True),
    "one_cycle_momentum": schedules.one_cycle_momentum(0.85, 0.95, 30),
    "warmup_stable_decay": schedules.warmup_stable_decay(0.3, 20, warmup_steps=3, decay_steps=8, decay="sqrt"),
    "warmup_decay": schedules.warmup_decay(0.3, 20, warmup_steps=5, start=0.01, ramp="log", decay="cosine", end=0.1),
    "per_epoch": schedules.per_epoch(schedules.cosine(0.3, 5), 4),
    "ema_decay": schedules.ema_decay(0.99, warmup=True, every=3),
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


@given(lr=RATES, length=LENGTHS, power=st.floats(0.5, 3))
def test_polynomial_equals_PolynomialLR_past_its_end_too(lr, length, power):
    expected = torch_rates(lambda o: lr_scheduler.PolynomialLR(o, length, power), lr, length + 5)
    # torch multiplies by ratios of powers: near the end a ratio amplifies the roundings of all before.
    actual = [schedules.polynomial(lr, length, power)(step) for step in range(length + 5)]
    assert actual == pytest.approx(expected, rel=1e-11, abs=1e-15 * lr * length)


@given(lr=RATES, first=st.integers(1, 12), multiplier=st.integers(1, 4), fraction=st.floats(0, 1))
def test_cosine_restarts_equal_CosineAnnealingWarmRestarts(lr, first, multiplier, fraction):
    end = lr * fraction
    expected = torch_rates(
        lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, first, multiplier, eta_min=end), lr, 100
    )
    assert_rates(schedules.cosine_restarts(lr, first, multiplier, end=end), expected, lr)


@given(first=st.integers(1, 50), multiplier=st.integers(2, 10), wave=st.integers(0, 9))
def test_cosine_restarts_begin_exactly_where_the_waves_add_up(first, multiplier, wave):
    begin = first * (multiplier**wave - 1) // (multiplier - 1)
    schedule = schedules.cosine_restarts(1.0, first, multiplier)
    assert schedule(begin) == 1.0
    if begin > 0:
        last = first * multiplier ** (wave - 1)
        # An absolute rounding of the cosine near -1.
        assert schedule(begin - 1) == pytest.approx((1 - math.cos(math.pi / last)) / 2, rel=1e-6, abs=1e-15)


@given(lr=RATES, milestones=st.lists(st.integers(1, 60), max_size=5), gamma=st.floats(0.1, 2))
def test_multi_step_equals_MultiStepLR(lr, milestones, gamma):
    expected = torch_rates(lambda o: lr_scheduler.MultiStepLR(o, milestones, gamma), lr, 70)
    assert_rates(schedules.multi_step(lr, milestones, gamma=gamma), expected, lr * max(1.0, gamma**5))


@given(
    lr=RATES,
    total=st.integers(3, 60),
    pct_start=st.floats(0.05, 0.45),
    anneal=st.sampled_from(["cos", "linear"]),
    div=st.floats(1, 100),
    final_div=st.floats(1, 1e5),
    three_phase=st.booleans(),
)
def test_one_cycle_equals_OneCycleLR_of_rate_and_momentum(lr, total, pct_start, anneal, div, final_div, three_phase):
    assume(pct_start * total - 1 != 0.0)  # there torch divides by zero
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(()))], lr=lr, momentum=0.9)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scheduler = lr_scheduler.OneCycleLR(
            optimizer,
            lr,
            total_steps=total,
            pct_start=pct_start,
            anneal_strategy=anneal,
            div_factor=div,
            final_div_factor=final_div,
            three_phase=three_phase,
        )
        rates, momenta = [], []
        for step in range(total):
            rates.append(optimizer.param_groups[0]["lr"])
            momenta.append(optimizer.param_groups[0]["momentum"])
            if step + 1 < total:
                scheduler.step()
    assert_rates(schedules.one_cycle(lr, total, pct_start, anneal, div, final_div, three_phase), rates, lr)
    momentum = schedules.one_cycle_momentum(0.85, 0.95, total, pct_start, anneal, three_phase)
    assert_rates(momentum, momenta, 1.0)


@given(lr=RATES, warmup_steps=st.integers(1, 50), step=st.integers(0, 10_000))
def test_inverse_sqrt_is_the_formula_of_its_paper(lr, warmup_steps, step):
    scale = lr * warmup_steps**0.5
    expected = scale * min(max(step, 1e-300) ** -0.5, step * warmup_steps**-1.5)
    assert schedules.inverse_sqrt(lr, warmup_steps)(step) == pytest.approx(expected, rel=1e-12, abs=0)


@given(ramp=st.integers(0, 10), level=st.integers(0, 10), fall=st.integers(1, 10))
def test_warmup_stable_decay_is_a_join_of_its_three_parts(ramp, level, fall):
    total = ramp + level + fall
    schedule = schedules.warmup_stable_decay(0.3, total, warmup_steps=ramp, decay_steps=fall, end=0.1)
    parts = schedules.linear(0.3, fall, end=0.1)
    if level:
        parts = schedules.join([schedules.constant(0.3), parts], [level])
    expected = schedules.warmup(parts, ramp)
    assert [schedule(n) for n in range(total + 3)] == pytest.approx([expected(n) for n in range(total + 3)], rel=1e-14)


def deepspeed_gamma(step, ramp, shape, total, decay, floor):
    """The factors of DeepSpeed's WarmupLR, WarmupDecayLR and WarmupCosineLR, as its documentation gives them."""
    if step < ramp:
        return math.log(step + 1) / math.log(max(ramp, 2)) if shape == "log" else step / ramp
    past = min(max((step - ramp) / max(total - ramp, 1), 0), 1)
    return {"none": 1.0, "linear": 1 - past, "cosine": floor + (1 - floor) * (1 + math.cos(math.pi * past)) / 2}[decay]


@given(
    lr=RATES,
    ramp=st.integers(0, 9),
    fall=st.integers(1, 9),
    start=st.floats(0, 1),
    shape=st.sampled_from(["linear", "log"]),
    decay=st.sampled_from(["none", "linear", "cosine"]),
)
def test_warmup_decay_has_deepspeeds_rates(lr, ramp, fall, start, shape, decay):
    total, floor = ramp + fall, 0.0 if decay == "linear" else 0.25
    schedule = schedules.warmup_decay(
        lr, total, warmup_steps=ramp, start=start * lr, ramp=shape, decay=decay, end=floor * lr
    )
    for step in range(total + 3):
        gamma = deepspeed_gamma(step, ramp, shape, total, decay, floor)
        expected = lr * (start + (1 - start) * gamma) if step < ramp else lr * gamma
        assert schedule(step) == pytest.approx(expected, rel=1e-12, abs=1e-15 * lr), step


@given(lr=RATES, steps_per_epoch=st.integers(1, 9), gamma=st.floats(0.5, 1))
def test_per_epoch_equals_a_torch_scheduler_stepped_at_the_ends_of_epochs(lr, steps_per_epoch, gamma):
    by_epoch = torch_rates(lambda o: lr_scheduler.ExponentialLR(o, gamma), lr, 6)
    expected = [rate for rate in by_epoch for _ in range(steps_per_epoch)]
    assert_rates(schedules.per_epoch(schedules.exponential(lr, gamma), steps_per_epoch), expected, lr)


@given(lr=RATES, steps_per_epoch=st.integers(1, 9), ramp=st.integers(1, 30))
def test_a_warmup_of_epochs_is_a_straight_line_that_shifts_no_epoch(lr, steps_per_epoch, ramp):
    plain = schedules.per_epoch(schedules.exponential(lr, 0.5), steps_per_epoch)
    warmed = schedules.per_epoch(schedules.exponential(lr, 0.5), steps_per_epoch, warmup_steps=ramp)
    for step in range(40):
        assert warmed(step) == pytest.approx(plain(step) * min(1.0, step / ramp), rel=1e-15)


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
    graph, _ = traced(schedule, torch.tensor(0))
    for step in (0, 3, 6, 12, 50):
        assert graph(torch.tensor(step)).item() == schedule(step)


def test_all_schedules_compile_to_one_graph():
    def every(step):
        return [schedule(step) for schedule in EXAMPLES.values()]

    torch._dynamo.reset()
    compiled = torch.compile(every, fullgraph=True, backend="aot_eager")
    for step in (0, 3, 50):
        assert [rate.item() for rate in compiled(torch.tensor(step))] == every(step)


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


def test_the_registry_names_the_schedules_of_the_module():
    assert all(schedules.REGISTRY[name] is getattr(schedules, name) for name in schedules.REGISTRY)
    assert set(schedules.REGISTRY) <= set(EXAMPLES)


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
        (lambda: schedules.polynomial(0.1, 10, power=0.0), ValueError, "power must be a finite number > 0"),
        (lambda: schedules.multi_step(0.1, [3, 0]), ValueError, "each milestone must be >= 1, got 0"),
        (lambda: schedules.cosine_restarts(0.1, 10, multiplier=0), ValueError, "multiplier must be >= 1"),
        (lambda: schedules.inverse_sqrt(0.1, 0), ValueError, "warmup_steps must be >= 1"),
        (lambda: schedules.one_cycle(0.1, 10, pct_start=1.0), ValueError, r"pct_start must be in \[0, 1\)"),
        (lambda: schedules.one_cycle(0.1, 10, anneal_strategy="up"), ValueError, "must be one of 'cos', 'linear'; got"),
        (lambda: schedules.one_cycle(0.1, 10, pct_start=0.8, three_phase=True), ValueError, "needs pct_start < 0.5"),
        (lambda: schedules.warmup_stable_decay(0.1, 9, decay_steps=9, warmup_steps=1), ValueError, "at most total_st"),
        (lambda: schedules.warmup_stable_decay(0.1, 9, decay_steps=9, decay="up"), ValueError, "decay must be one of"),
        (lambda: schedules.warmup_decay(0.1, 9, warmup_steps=9), ValueError, "warmup_steps must be smaller than total"),
        (lambda: schedules.warmup_decay(0.1, 9, ramp="up"), ValueError, "ramp must be one of"),
        (lambda: schedules.warmup_decay(0.1, 9, decay="up"), ValueError, "decay must be one of"),
        (lambda: schedules.per_epoch(schedules.constant(1), 0), ValueError, "steps_per_epoch must be >= 1"),
        (lambda: schedules.ema_decay(1.0), ValueError, r"decay must be in \[0, 1\)"),
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
