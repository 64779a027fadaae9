"""The moving average within the step: the rule's, kept by refused updates, evaluated with its own buffers."""

import pytest
import torch
from torch import nn

import functrain as ft

RULES = [ft.optim.ema(0.5), ft.optim.ema(0.9, warmup=True, every=2), ft.optim.ema(0.5, average_buffers=True)]


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("accumulate", [1, 2])
def test_the_states_average_is_the_rules_over_the_updates(
    rule, accumulate, everything_state, image_batch, bits, difference
):
    state = everything_state(ema=rule, accumulate=accumulate, precision="fp64")
    compiled, step = state, ft.compile(ft.train_step, backend="aot_eager")
    trainable = state.recipe.network.trainable
    expected = rule.init({name: state.params[name] for name in trainable}, state.buffers)
    for seed in range(4 * accumulate):
        state, _ = ft.train_step(state, image_batch(seed))
        compiled, _ = step(compiled, image_batch(seed))
        if state.micro_step == 0:
            expected = rule.update(expected, {name: state.params[name] for name in trainable}, state.buffers)
        assert bits(state.ema) == bits(expected)
    assert compiled.ema.count.item() == state.ema.count.item() == 4
    assert difference(compiled.ema, state.ema) < 1e-12
    assert difference(state.ema.params, {name: state.params[name] for name in trainable}) > 1e-6


@pytest.mark.parametrize("average_buffers", [False, True])
def test_an_averaged_evaluation_uses_averaged_buffers_where_there_are(average_buffers, everything_state, image_batch):
    state = everything_state(ema=ft.optim.ema(0.9, average_buffers=average_buffers))
    for seed in range(3):
        state, _ = ft.train_step(state, image_batch(seed))
    module = ft.to_module(state, ema=True).eval()
    used = state.ema.buffers if average_buffers else state.buffers
    assert torch.equal(module.norm.running_mean, used["norm.running_mean"])
    x, y = image_batch(7)
    expected = nn.functional.cross_entropy(module(x), y).item()
    loss = ft.eval_step(state, (x, y), ema=True).means()["loss"].item()
    assert loss == pytest.approx(expected, rel=1e-6)
    plain = ft.to_module(state).eval()
    assert torch.equal(plain.norm.running_mean, state.buffers["norm.running_mean"])


def test_ema_is_a_rule_and_is_given_once(everything_state):
    with pytest.raises(ValueError, match="give ema_decay or ema, not both"):
        everything_state(ema_decay=0.5, ema=ft.optim.ema(0.5))
    with pytest.raises(TypeError, match=r"ema must be a rule made by optim\.ema"):
        everything_state(ema=0.5)
