"""Laws of an update that hold for every optimizer of the registry, and of the loss scale, in float64 and float32."""

import functools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import functrain as ft
from functrain.step.scaling import LossScale

NAMES = sorted(ft.optim.REGISTRY)
# Lion and Rprop take a gradient's sign: a rounding could turn it where the gradient is 0 to 1e-16, which that of random
# data is not.
UPDATES = 3


@functools.cache
def initial(name, accumulate, precision="fp64", **options):
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))
    options = {"clip_norm": 0.5, "ema_decay": 0.5, **options}
    return ft.init_state(
        model, ft.classification(), ft.optim.REGISTRY[name](), precision=precision, accumulate=accumulate, **options
    )


@st.composite
def windows(draw):
    """As many windows as updates, each of micro-batches (inputs, labels, weights) of random sizes."""
    sizes = draw(st.lists(st.integers(1, 4), min_size=2, max_size=3))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    return [
        [
            (
                torch.randn(n, 4, generator=generator, dtype=torch.float64),
                torch.randint(3, (n,), generator=generator),
                torch.rand(n, generator=generator, dtype=torch.float64) + 0.5,
            )
            for n in sizes
        ]
        for _ in range(UPDATES)
    ]


def trained(state, micro_batches):
    for batch in micro_batches:
        state, metrics = ft.train_step(state, batch)
    assert metrics["skipped"].item() == 0
    return state


def assert_close(left, right, difference):
    for field in ("params", "ema", "epoch_totals"):
        assert difference(getattr(left, field), getattr(right, field)) < 1e-9, field
    assert (left.step, left.samples_seen) == (right.step, right.samples_seen)


@pytest.mark.parametrize("name", NAMES)
@given(data=windows())
@settings(max_examples=4, deadline=None)
def test_the_update_of_micro_batches_is_that_of_their_concatenation_with_any_optimizer(name, data, difference):
    window = trained(initial(name, len(data[0])), [batch for micro_batches in data for batch in micro_batches])
    whole = [tuple(torch.cat(parts) for parts in zip(*micro_batches, strict=True)) for micro_batches in data]
    assert_close(window, trained(initial(name, 1), whole), difference)


@pytest.mark.parametrize("name", NAMES)
@given(data=windows())
@settings(max_examples=3, deadline=None)
def test_the_order_of_micro_batches_matters_to_no_optimizer_beyond_rounding(name, data, difference):
    state = initial(name, len(data[0]))
    forwards = trained(state, [batch for micro_batches in data for batch in micro_batches])
    backwards = trained(state, [batch for micro_batches in data for batch in reversed(micro_batches)])
    assert_close(forwards, backwards, difference)


@pytest.mark.parametrize("name", NAMES)
def test_training_twice_from_one_state_gives_equal_bits(name, bits):
    state = initial(name, 2, "fp32")
    generator = torch.Generator().manual_seed(0)
    batches = [(torch.randn(4, 4, generator=generator), torch.tensor([0, 1, 2, 0])) for _ in range(6)]
    before = bits(state)
    assert bits(trained(state, batches)) == bits(trained(state, batches))
    assert bits(state) == before  # nothing wrote to it


@given(exponent=st.integers(-20, 40), seed=st.integers(0, 2**31), name=st.sampled_from(NAMES))
@settings(max_examples=20, deadline=None)
def test_a_power_of_two_as_loss_scale_changes_no_bit_of_an_fp32_update(exponent, seed, name, bits):
    generator = torch.Generator().manual_seed(seed)
    batches = [(torch.randn(4, 4, generator=generator), torch.tensor([0, 1, 2, 0])) for _ in range(2)]
    scaled = trained(initial(name, 1, "fp32", loss_scale=2.0**exponent), batches)
    plain = trained(initial(name, 1, "fp32"), batches)
    for field in ("params", "opt_state", "ema", "epoch_totals", "counts"):
        assert bits(getattr(scaled, field)) == bits(getattr(plain, field)), field
    assert scaled.loss_scale.scale.item() == 2.0**exponent  # a constant one stays


@given(
    weights=st.lists(st.sampled_from([0.0, 1.0, 2.5]), min_size=2, max_size=6),
    seed=st.integers(0, 2**31),
    name=st.sampled_from(NAMES),
)
@settings(max_examples=15, deadline=None)
def test_the_content_of_an_example_of_weight_zero_changes_no_bit_of_an_update(weights, seed, name, bits):
    generator = torch.Generator().manual_seed(seed)
    weight = torch.tensor([1.0, *weights], dtype=torch.float64)
    counts = weight.ne(0)
    inputs = torch.randn(len(weight), 4, generator=generator)
    targets = torch.randint(3, (len(weight),), generator=generator)
    others = torch.where(counts[:, None], inputs, -7.0 * inputs), torch.where(counts, targets, (targets + 1) % 3)
    left = trained(initial(name, 1), [(inputs, targets, weight)])
    right = trained(initial(name, 1), [(*others, weight)])
    assert bits(left) == bits(right)


@pytest.mark.parametrize("name", NAMES)
def test_an_overflow_is_the_identity_on_all_but_scale_and_counters(name, bits):
    batch = (torch.ones(2, 4), torch.tensor([0, 1]))
    state = trained(initial(name, 1, "fp16"), [batch])
    state = state.replace(loss_scale=LossScale(torch.tensor(2.0**120), torch.tensor(3, dtype=torch.int32)))
    new, metrics = ft.train_step(state, batch)
    assert metrics["skipped"].item() == 1
    changed = {difference.path for difference in ft.diff_states(state, new)}
    assert changed == {
        "loss_scale/scale",
        "loss_scale/good_steps",
        "counts/skipped_in_a_row",
        "step",
        "batch_idx",
        "samples_seen",
    }
