"""Sharpness-aware minimisation as a training step: two gradients to an update."""

import pytest
import torch
from torch import nn

import functrain as ft

REFERENCES = {
    "sgd": (ft.optim.sgd(0.1, momentum=0.9), lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9)),
    "adamw": (ft.optim.adamw(0.01), lambda p: torch.optim.AdamW(p, lr=0.01)),
}
RHO = 0.2


def network():
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return nn.Sequential(nn.Linear(4, 6, bias=False), nn.BatchNorm1d(6), nn.Tanh(), nn.Linear(6, 3))


def batch(seed, size=8):
    generator = torch.Generator().manual_seed(seed)
    weight = torch.rand(size, generator=generator, dtype=torch.float64) + 0.5
    inputs = torch.randn(size, 4, generator=generator, dtype=torch.float64)
    return inputs, torch.randint(3, (size,), generator=generator), weight


def plain_loss(model, inputs, targets, weight):
    return (nn.functional.cross_entropy(model(inputs), targets, reduction="none") * weight).sum() / weight.sum()


def plain_step(model, optimizer, data, *, adaptive, clip_norm=None):
    """Algorithm 1 of the paper, over a torch module: climb, take the gradient there, come back, step."""
    first = [b.clone() for b in model.buffers()]
    loss = plain_loss(model, *data)
    grads = torch.autograd.grad(loss, list(model.parameters()))
    after_first = [b.clone() for b in model.buffers()]
    here = [p.detach().clone() for p in model.parameters()]
    with torch.no_grad():
        scaled = [p * g for p, g in zip(here, grads)] if adaptive else grads
        norm = sum((s * s).sum() for s in scaled).sqrt()
        for p, old, g in zip(model.parameters(), here, grads):
            p += RHO * (old**2 * g if adaptive else g) / norm
        for b, old in zip(model.buffers(), first):
            b.copy_(old)
    optimizer.zero_grad()
    plain_loss(model, *data).backward()
    with torch.no_grad():
        for p, old in zip(model.parameters(), here):
            p.copy_(old)
        for b, kept in zip(model.buffers(), after_first):
            b.copy_(kept)  # statistics of the pass at p
    if clip_norm is not None:
        nn.utils.clip_grad_norm_(model.parameters(), clip_norm)
    optimizer.step()
    return loss.item()


def initial(optimizer, **options):
    return ft.init_state(network(), ft.classification(), optimizer, precision="fp64", **options)


@pytest.mark.parametrize("base", REFERENCES)
@pytest.mark.parametrize("adaptive", [False, True])
def test_twenty_steps_equal_a_loop_over_a_torch_module(base, adaptive):
    ours, make = REFERENCES[base]
    state = initial(ft.optim.sam(ours, RHO, adaptive=adaptive), clip_norm=0.3)
    model = network().double()
    reference = make(model.parameters())
    for seed in range(20):
        state, metrics = ft.train_step(state, batch(seed))
        loss = plain_step(model, reference, batch(seed), adaptive=adaptive, clip_norm=0.3)
        assert metrics["loss"].item() == pytest.approx(loss, rel=1e-10)
    torch.testing.assert_close(state.params, dict(model.named_parameters()), rtol=1e-10, atol=1e-13)
    torch.testing.assert_close(state.buffers, dict(model.named_buffers()), rtol=1e-10, atol=1e-13)


def test_compiled_it_equals_eager_and_donates(difference):
    fast = ft.compile(ft.train_step, backend="aot_eager", donate=True)
    compiled, eager = (initial(ft.optim.sam(REFERENCES["sgd"][0], RHO), ema_decay=0.9) for _ in range(2))
    for seed in range(3):
        compiled, compiled_metrics = fast(compiled, batch(seed))
        eager, metrics = ft.train_step(eager, batch(seed))
        torch.testing.assert_close(compiled_metrics, metrics, rtol=1e-12, atol=1e-12)
    assert difference(compiled.params, eager.params) < 1e-12
    assert difference(compiled.ema, eager.ema) < 1e-12
    assert compiled.step == eager.step == 3


def test_an_update_whose_ascent_is_not_finite_is_refused_though_the_second_gradient_is(bits):
    def hiding(model, data):
        """Its gradient is infinite at 0; where the parameter is not a number, the loss does not depend on it."""
        total = model.weight.sqrt()
        return ft.Loss(torch.where(total.isnan(), torch.zeros_like(total), total).sum(), 1)

    model = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(model.weight)
    state = ft.init_state(model, hiding, ft.optim.sam(ft.optim.sgd(0.1)))
    new, metrics = ft.train_step(state, torch.zeros(1, 1))
    assert metrics["skipped"].item() == 1
    assert bits(new.params) == bits(state.params)


def test_a_weight_of_zero_is_refused_and_zero_weight_examples_change_no_bit(bits):
    inputs, targets, weight = batch(0)
    state = ft.init_state(nn.Linear(4, 3), ft.classification(), ft.optim.sam(ft.optim.sgd(0.1)), precision="fp64")
    weight[:3] = 0
    others = inputs.clone()
    others[:3] = 7.0
    left, _ = ft.train_step(state, (inputs, targets, weight))
    right, _ = ft.train_step(state, (others, targets, weight))
    assert bits(left) == bits(right)
    _, metrics = ft.train_step(state, (inputs, targets, torch.zeros_like(weight)))
    assert metrics["skipped"].item() == 1


def test_a_power_of_two_as_loss_scale_changes_no_bit(bits):
    def trained(**options):
        optimizer = ft.optim.sam(ft.optim.sgd(0.1, momentum=0.9), RHO)
        state = ft.init_state(network(), ft.classification(), optimizer, **options)
        for seed in range(3):
            state, _ = ft.train_step(state, batch(seed))
        return bits((state.params, state.opt_state, state.buffers))

    assert trained(loss_scale=2.0**12) == trained()


def test_accumulation_is_refused_with_the_reason():
    with pytest.raises(ValueError, match=r"optim\.sam needs the batch of an update whole, got accumulate=4: it climbs"):
        initial(ft.optim.chain(ft.optim.sam(ft.optim.sgd(0.1))), accumulate=4)


def test_a_batch_in_parts_is_refused_too():
    state = initial(ft.optim.sam(ft.optim.sgd(0.1)))
    with pytest.raises(ValueError, match="got micro_batch=2"):
        ft.fit(state, [batch(0)], epochs=1, micro_batch=2, compile=False)


def test_training_with_fit_resumes_bit_for_bit(tmp_path, bits):
    inputs, targets = torch.randn(24, 4), torch.randint(3, (24,))
    dataset = torch.utils.data.TensorDataset(inputs, targets)

    def run(folder, **options):
        state = ft.init_state(network(), ft.classification(), ft.optim.sam(ft.optim.adamw(0.01)), seed=3)
        loader = torch.utils.data.DataLoader(dataset, batch_size=8, shuffle=True)
        return ft.fit(state, loader, run_dir=tmp_path / folder, compile=False, **options).state

    whole = run("whole", steps=6)
    run("halves", steps=3)
    assert bits(run("halves", steps=6).params) == bits(whole.params)
