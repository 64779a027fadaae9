"""What every loss of the registry keeps: a new one is covered by being entered there.

Cases come from the tables: what a loss of a table takes is the table's contract.
"""

import inspect

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from loss_helpers import GROUPS, arguments, every_loss, seeded, sums
from torch.fx.experimental.proxy_tensor import make_fx

from functrain.objectives import losses, supervised
from functrain.objectives.losses import BINARY, CLASSES, PAIRS, REGISTRY, TEACHERS, VALUES


@every_loss
def test_it_is_in_one_table_under_its_own_name_documented_and_annotated(name):
    loss_fn = REGISTRY[name]
    assert loss_fn.__name__ == name
    assert sum(name in table for table in GROUPS.values()) == 1
    assert getattr(losses, name) is loss_fn
    assert ">>>" in loss_fn.__doc__
    assert inspect.signature(loss_fn).return_annotation is losses.PerExample


@every_loss
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_values_and_weights_have_one_shape_and_the_dtype_of_the_predictions_float32_for_half(name, dtype):
    predictions, targets = arguments(name, 3, seeded(0), dtype)
    values, weights = REGISTRY[name](predictions, targets)
    assert values.shape == weights.shape
    assert len(values) == 3
    assert values.dtype == weights.dtype == torch.promote_types(dtype, torch.float32)
    loss_sum, weight_sum = losses.PerExample(values, weights).sums()
    assert loss_sum.dtype == weight_sum.dtype == torch.promote_types(dtype, torch.float32)
    assert loss_sum.isfinite()


@every_loss
def test_under_autocast_it_is_the_loss_in_float32_of_what_the_model_gave(name):
    predictions, targets = arguments(name, 3, seeded(0), torch.bfloat16)
    if name in {**VALUES, **PAIRS, **TEACHERS}:
        targets = targets.float() + 1e-3  # not rounded with the predictions
    with torch.autocast("cpu", torch.bfloat16):
        found = REGISTRY[name](predictions, targets)
    expected = REGISTRY[name](predictions.float(), targets)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-7)


@every_loss
@given(st.lists(st.integers(1, 4), min_size=1, max_size=4), st.integers(0, 2**31))
@settings(max_examples=25, deadline=None)
def test_the_sum_over_parts_is_the_sum_over_the_whole(name, sizes, seed):
    generator = seeded(seed)
    predictions, targets = arguments(name, sum(sizes), generator)
    weight = torch.randint(4, (sum(sizes),), generator=generator).double() / 2
    groups = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))  # parts keep groups whole
    whole = sums(name, predictions, targets, weight, groups)
    parts = [
        sums(name, *part)
        for part in zip(
            predictions.split(sizes), targets.split(sizes), weight.split(sizes), groups.split(sizes), strict=True
        )
    ]
    added = (sum(p[0] for p in parts), sum(p[1] for p in parts), torch.cat([p[2] for p in parts]))
    torch.testing.assert_close(added, whole, rtol=1e-12, atol=1e-12)


@every_loss
@given(st.lists(st.sampled_from([0.0, 0.5, 1.0]), min_size=2, max_size=6), st.integers(0, 2**31))
@settings(max_examples=25, deadline=None)
def test_the_content_of_an_example_of_weight_zero_changes_no_bit(name, weights, seed):
    generator = seeded(seed)
    weight = torch.tensor(weights, dtype=torch.float64)
    first, second = arguments(name, len(weights), generator), arguments(name, len(weights), generator)
    counted = weight != 0
    mixed = [torch.where(counted.view(-1, *[1] * (a.ndim - 1)), a, b) for a, b in zip(first, second)]
    for left, right in zip(sums(name, *first, weight), sums(name, *mixed, weight)):
        assert torch.equal(left, right)


@every_loss
@given(st.integers(0, 2**31), st.sampled_from([0.0, 1e-30, 1.0, 30.0, 200.0]))
@settings(max_examples=25, deadline=None)
def test_gradients_are_finite_however_large_the_predictions(name, seed, scale):
    predictions, targets = arguments(name, 3, seeded(seed), torch.float32)
    loss_sum, _, grad = sums(name, predictions * scale, targets)
    assert loss_sum.isfinite()
    assert grad.isfinite().all()


@every_loss
def test_the_gradient_is_the_derivative(name):
    predictions, targets = arguments(name, 3, seeded(8))
    predictions.requires_grad_()
    assert torch.autograd.gradcheck(lambda p: REGISTRY[name](p, targets).sums()[0], predictions)


@every_loss
def test_a_traced_graph_gives_the_bits_of_the_eager_loss(name):
    predictions, targets = arguments(name, 4, seeded(1))
    weight = torch.tensor([1.0, 0.0, 2.0, 0.5], dtype=torch.float64)

    def run(*args):
        return sums(name, *args)

    graph = make_fx(run, tracing_mode="fake", _allow_non_fake_inputs=True)(predictions, targets, weight)
    other_predictions, other_targets = arguments(name, 4, seeded(2))
    for args in ((predictions, targets, weight), (other_predictions, other_targets, weight.flip(0))):
        for traced, eager in zip(graph(*args), run(*args)):
            assert torch.equal(traced, eager)


@every_loss
def test_nothing_mutates_its_arguments_and_equal_arguments_give_equal_bits(name):
    predictions, targets = arguments(name, 3, seeded(3))
    kept = predictions.clone(), targets.clone()
    first, second = sums(name, predictions, targets), sums(name, predictions, targets)
    assert all(torch.equal(a, b) for a, b in zip(first, second))
    assert torch.equal(predictions, kept[0])
    assert torch.equal(targets, kept[1])


@pytest.mark.parametrize("name", [*CLASSES, *BINARY])
def test_an_ignored_label_counts_for_nothing(name):
    predictions, targets = arguments(name, 3, seeded(4))
    ignored = targets == -100
    assert ignored.any()
    over = ignored.unsqueeze(1) if name in CLASSES else ignored
    left = sums(name, predictions, targets)
    right = sums(name, torch.where(over, predictions + 1, predictions), torch.where(ignored, -100, targets))
    assert all(torch.equal(a, b) for a, b in zip(left[:2], right[:2]))
    assert torch.where(over, left[2], 0.0).eq(0).all()
    everything = REGISTRY[name](predictions, torch.full_like(targets, -100))
    assert everything.weights.eq(0).all()
    assert everything.values.isfinite().all()


@pytest.mark.parametrize("name", [*CLASSES, *BINARY])
@pytest.mark.parametrize("bad", [-1, 7])
def test_a_label_out_of_range_makes_its_example_nan_and_no_other(name, bad):
    predictions, targets = arguments(name, 3, seeded(5))
    targets[1, 2, 1] = bad
    values, weights = losses.per_example(REGISTRY[name](predictions, targets))
    assert values.isnan().tolist() == [False, True, False]
    assert weights.tolist() == [1.0, 1.0, 1.0]


@every_loss
def test_it_makes_an_objective_by_its_name(name):
    predictions, targets = arguments(name, 3, seeded(6))
    objective = supervised(name)
    loss = objective(torch.nn.Identity(), (predictions, targets, torch.tensor([1.0, 0.0, 2.0], dtype=torch.float64)))
    expected = sums(name, predictions, targets, torch.tensor([1.0, 0.0, 2.0], dtype=torch.float64))
    assert torch.equal(loss.total, expected[0])
    assert torch.equal(loss.weight, expected[1])
    assert objective.takes_weight
    assert objective == supervised(name)
    assert hash(objective) == hash(supervised(name))


@every_loss
def test_shapes_that_do_not_fit_are_refused_with_both_shapes(name):
    predictions, targets = arguments(name, 3, seeded(7))
    with pytest.raises(ValueError, match=r"got .*\[3, .* and .*\[2, |predictions \[3, .* and targets \[2, "):
        REGISTRY[name](predictions, targets[:2])
