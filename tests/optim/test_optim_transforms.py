"""The parts of optimizers on their own."""

import dataclasses

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from optim_helpers import gradients, make_params, run

from functrain import optim
from functrain.foundation import trees

PARAMS = {"w": torch.tensor([1.0, -2.0])}


def test_learning_rate_is_that_of_the_last_update_and_at_first_of_the_first():
    descend = optim.scale_by_learning_rate(optim.schedules.linear(1.0, 4))
    state, seen = descend.init(PARAMS), []
    assert optim.learning_rate(state).item() == 1.0
    for _ in range(6):
        updates, state = descend.update(PARAMS, state, PARAMS)
        rate = optim.learning_rate(state).item()
        assert updates["w"].tolist() == [-rate, 2 * rate]
        seen.append(rate)
    assert seen == [1.0, 0.75, 0.5, 0.25, 0.0, 0.0]
    assert state.count.item() == 6


def test_a_schedule_is_called_with_the_0d_int64_count():
    seen = []

    def schedule(step):
        seen.append((step.dtype, step.shape, step.item()))
        return 0.5

    descend = optim.scale_by_learning_rate(schedule)
    state = descend.init(PARAMS)
    for _ in range(2):
        _, state = descend.update(PARAMS, state, PARAMS)
    assert seen == [(torch.int64, (), 0), (torch.int64, (), 0), (torch.int64, (), 1)]
    assert (state.lr.dtype, state.lr.shape) == (torch.float64, ())


def test_learning_rate_is_found_in_nested_and_masked_states():
    optimizer = optim.chain(
        optim.identity(), optim.masked(optim.chain(optim.trace(0.9), optim.sgd(0.3)), optim.no_decay_1d)
    )
    assert optim.learning_rate({"main": optimizer.init(PARAMS)}).item() == 0.3
    assert optim.learning_rate(optim.scale_by_adam().init(PARAMS)) is None


def test_float32_parameters_keep_the_learning_rate_in_float64():
    state = optim.sgd(0.1).init(PARAMS)
    assert optim.learning_rate(state).item() == 0.1


def test_adams_first_direction_is_the_sign_of_the_gradient_at_any_scale():
    for size in (1e-6, 1.0, 1e6):
        adam = optim.scale_by_adam(eps=0.0)
        updates, _ = adam.update({"w": size * PARAMS["w"]}, adam.init(PARAMS), PARAMS)
        # Three roundings each of moments and corrections, in float32.
        torch.testing.assert_close(updates["w"], torch.tensor([1.0, -1.0]), rtol=1e-6, atol=0)


def test_updates_can_be_differentiated_through():
    optimizer = optim.sgd(0.1, momentum=0.9)
    params = {"w": torch.tensor(3.0)}

    def after_one_step(start):
        updates, _ = optimizer.update({"w": start**2}, optimizer.init(params), {"w": start})
        return optim.apply_updates({"w": start}, updates)["w"]

    # d/dw (w - 0.1 w²)
    torch.testing.assert_close(torch.func.grad(after_one_step)(params["w"]), torch.tensor(1 - 0.1 * 2 * 3.0))


def test_a_constant_learning_rate_is_read_from_the_state_so_vmap_can_sweep_it():
    optimizer, params = optim.adamw(1.0), make_params()
    rates = [0.0, 0.1, 0.7]
    grads = gradients(params, 0)

    def step(rate):
        state = optimizer.init(params)
        state = (*state[:-1], dataclasses.replace(state[-1], lr=rate))
        return optim.apply_updates(params, optimizer.update(grads, state, params)[0])

    swept = torch.vmap(step)(torch.tensor(rates, dtype=torch.float64))
    for index, rate in enumerate(rates):
        own = optim.adamw(rate)
        expected = optim.apply_updates(params, own.update(grads, own.init(params), params)[0])
        torch.testing.assert_close({name: leaf[index] for name, leaf in swept.items()}, expected, rtol=1e-14, atol=0)


@pytest.mark.parametrize("lr", [0.5, optim.schedules.exponential(0.5, 0.9)])
def test_a_reduced_learning_rate_stays_reduced_scheduled_or_not(lr):
    optimizer = optim.sgd(lr)
    _, state = run(optimizer, PARAMS, 3)
    _, expected = optimizer.update(PARAMS, state, PARAMS)
    _, reduced = optimizer.update(PARAMS, optim.reduce_learning_rate(state, 0.1), PARAMS)
    assert optim.learning_rate(reduced).item() == pytest.approx(0.1 * optim.learning_rate(expected).item(), rel=1e-15)


@given(lr=st.floats(1e-6, 1), factor=st.floats(0.01, 0.99), min_lr=st.floats(0, 1), eps=st.floats(0, 1e-3))
def test_a_reduction_is_that_of_ReduceLROnPlateau(lr, factor, min_lr, eps):
    reference = torch.optim.SGD([torch.nn.Parameter(torch.zeros(()))], lr=lr)
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(
        reference, factor=factor, min_lr=min_lr, eps=eps, patience=0, threshold=0.0
    )
    scheduler.step(1.0)
    scheduler.step(2.0)
    state = optim.reduce_learning_rate(optim.sgd(lr).init(PARAMS), factor, min_lr=min_lr, eps=eps)
    assert optim.learning_rate(state).item() == pytest.approx(reference.param_groups[0]["lr"], rel=1e-12)


def test_a_reduction_needs_a_learning_rate():
    with pytest.raises(ValueError, match="holds no learning rate"):
        optim.reduce_learning_rate(optim.rprop().init(PARAMS), 0.1)


def test_any_pytree_of_parameters_is_trained():
    params = ({"a": torch.ones(2)}, [torch.ones(()), None])
    optimizer = optim.adamw(0.1, weight_decay=0.0)
    updates, _ = optimizer.update(params, optimizer.init(params), params)
    torch.testing.assert_close(updates, ({"a": torch.full((2,), -0.1)}, [torch.tensor(-0.1), None]))


def test_centralized_gradients_have_mean_zero_over_all_but_the_first_dimension():
    grads = make_params(shapes={"kernel": (4, 3, 2, 2), "matrix": (5, 3), "bias": (7,)})
    centred, _ = optim.centralize().update(grads, (), grads)
    for name in ("kernel", "matrix"):
        assert centred[name].flatten(1).mean(dim=1).abs().max() < 1e-15
    assert centred["bias"] is grads["bias"]


def test_lookahead_equals_algorithm_1_of_its_paper():
    k, alpha = 3, 0.4
    fast = make_params()
    slow, inner = dict(fast), optim.adamw(0.05)
    state = inner.init(fast)
    for count in range(10):
        updates, state = inner.update(gradients(fast, count), state, fast)
        fast = optim.apply_updates(fast, updates)
        if (count + 1) % k == 0:
            slow = {name: slow[name] + alpha * (fast[name] - slow[name]) for name in slow}
            fast = dict(slow)
    params, _ = run(optim.lookahead(optim.adamw(0.05), k=k, alpha=alpha), make_params(), 10)
    torch.testing.assert_close(params, fast, rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize(("rows", "columns"), [(4, 4), (7, 3), (3, 9)])
def test_an_orthogonalized_matrix_has_singular_values_about_1(rows, columns):
    matrix = torch.randn(rows, columns, generator=torch.Generator().manual_seed(0))
    values = torch.linalg.svdvals(optim.orthogonalize(matrix).float())
    # The band that the quintic maps into, and bfloat16's 2^-8.
    assert values.max() < 1.25
    assert values.median() > 0.6


@pytest.mark.parametrize("shape", [(8, 2), (2, 8)])
def test_the_learning_rate_adjustments_of_muon_are_the_factors_of_their_papers(shape):
    generator = torch.Generator().manual_seed(0)
    params, grads = ({"w": torch.randn(shape, generator=generator, dtype=torch.float64)} for _ in range(2))
    rows, columns = shape
    steps = {}
    for name in ("original", "match_rms_adamw", "spectral_unclamped"):
        transform = optim.scale_by_muon(adjust_lr_fn=name)
        steps[name] = transform.update(grads, transform.init(params), params)[0]["w"]
    direction = steps["original"] / max(1.0, rows / columns) ** 0.5
    torch.testing.assert_close(steps["match_rms_adamw"], direction * 0.2 * max(shape) ** 0.5)
    torch.testing.assert_close(steps["spectral_unclamped"], direction * (rows / columns) ** 0.5)


def test_muon_without_matrices_is_adamw():
    params = make_params(shapes={"bias": (7,), "scalar": ()})
    actual, _ = run(optim.muon(0.1, weight_decay=0.2), params, 5)
    expected, _ = run(optim.adamw(0.1, weight_decay=0.2), params, 5)
    assert all(torch.equal(actual[name], expected[name]) for name in params)


def test_a_scheduled_weight_decay_is_that_of_each_step():
    params, zeros = {"w": torch.ones(1)}, {"w": torch.zeros(1)}
    optimizer = optim.adamw(1.0, weight_decay=lambda step: 0.1 * step)
    state, seen = optimizer.init(params), []
    for _ in range(3):
        updates, state = optimizer.update(zeros, state, params)
        seen.append(round(updates["w"].item(), 6))
    assert seen == [0.0, -0.1, -0.2]


def test_evaluation_params_of_a_partition_change_its_schedule_free_part_only():
    params = {"head": torch.ones(2), "body": torch.ones(2)}
    optimizer = optim.partition({"head": optim.schedule_free_sgd(0.1), "*": optim.sgd(0.1)})
    params, state = run(optimizer, params, 5)
    averaged = optim.evaluation_params(state, params)
    assert averaged["body"] is params["body"]
    assert not torch.equal(averaged["head"], params["head"])
    assert trees.structure(averaged) == trees.structure(params)
    with pytest.raises(ValueError, match=r"not there: \['head'\]"):
        optim.evaluation_params(state, {"body": params["body"]})
