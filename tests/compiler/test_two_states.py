"""A step of the user's own over two states, such as a GAN's: the state of each is data of the other's update."""

import pytest
import torch
from torch import nn
from torch.func import functional_call

import functrain as ft
from functrain.step.execution import eager

torch.manual_seed(0)
NETWORKS = {
    "generator": nn.Linear(3, 4),
    "discriminator": nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.2), nn.Linear(8, 1)),
}


def tell_apart(discriminator, batch):
    real, params = batch
    drawn = functional_call(NETWORKS["generator"], params, torch.randn(len(real), 3))
    return ft.Loss((discriminator(drawn) - discriminator(real)).sigmoid().sum(), len(real))


def deceive(generator, batch):
    real, params = batch
    judged = functional_call(NETWORKS["discriminator"], params, generator(torch.randn(len(real), 3)))
    return ft.Loss(judged.sigmoid().neg().sum(), len(real))


def gan_step(states, batch, *, run=eager):
    discriminator, of_discriminator = ft.train_step(
        states["discriminator"], (batch, states["generator"].params), run=run
    )
    generator, of_generator = ft.train_step(states["generator"], (batch, discriminator.params), run=run)
    return {"generator": generator, "discriminator": discriminator}, (of_generator["loss"], of_discriminator["loss"])


def fresh():
    adam = ft.optim.adam(1e-2)
    return {
        "generator": ft.init_state(NETWORKS["generator"], deceive, adam, seed=0, ema_decay=0.9),
        "discriminator": ft.init_state(NETWORKS["discriminator"], tell_apart, adam, seed=1),
    }


def trained(step, count=4):
    states, losses = fresh(), []
    for number in range(count):
        batch = torch.randn(6, 4, generator=torch.Generator().manual_seed(number))
        states, found = step(states, batch)
        losses += found
    return states, losses


@pytest.mark.parametrize("donate", [False, True])
def test_it_is_compiled_once_for_each_state_and_computes_as_it_does_eagerly(donate):
    step = ft.compile(gan_step, backend="aot_eager", donate=donate)
    (compiled, losses), (eagerly, expected) = trained(step), trained(gan_step)
    assert step.runner.compilations == {"update": 2}
    assert [(state.step, state.samples_seen) for state in compiled.values()] == [(4, 24), (4, 24)]
    torch.testing.assert_close(losses, expected, rtol=1e-5, atol=1e-6)
    for name, state in compiled.items():
        torch.testing.assert_close(state.params, eagerly[name].params, rtol=1e-4, atol=1e-5)
        assert state.recipe.ema is None or not torch.equal(state.ema.params["weight"], state.params["weight"])


def test_donation_changes_no_bit_and_consumes_both_states(bits):
    kept, donated = (ft.compile(gan_step, backend="aot_eager", donate=donate) for donate in (False, True))
    assert bits(trained(donated)[0]) == bits(trained(kept)[0])
    states = fresh()
    donated(states, torch.zeros(6, 4))
    for state in states.values():
        with pytest.raises(ft.errors.DonatedStateError):
            state.params  # noqa: B018


def test_both_states_go_on_from_one_checkpoint_with_the_same_bits(tmp_path, bits):
    step = ft.compile(gan_step, backend="aot_eager")
    batches = [torch.randn(6, 4, generator=torch.Generator().manual_seed(number)) for number in range(4)]
    states = fresh()
    with ft.Checkpointer(tmp_path) as checkpoints:
        for batch in batches[:2]:
            states, _ = step(states, batch)
        checkpoints.save(states, step=2)
        again = checkpoints.restore(like=fresh()).tree
    for batch in batches[2:]:
        (states, _), (again, _) = step(states, batch), step(again, batch)
    assert bits(again) == bits(states)
