"""The parts of optimizers on their own."""

import torch

from functrain import optim

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
