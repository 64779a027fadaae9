"""Every optimizer and schedule that optax has too against optax, in float64.

Where the definitions differ, the arguments are chosen so that they do not, and the row says how; `docs/optim.md` has
the same list. Three have no common arguments: optax's AMSGrad takes the largest of the *corrected* second moments,
torch's and ours corrects the largest; optax runs Muon's iterations in the gradients' dtype, torch and we in bfloat16;
optax's Rprop applies each step an update late.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
import pytest
import torch
from optim_helpers import SHAPES, gradients, make_params, run

from functrain import optim
from functrain.optim import schedules

try:
    from jax import enable_x64
except ImportError:  # JAX 0.6
    from jax.experimental import enable_x64

STEPS = 50
LR = 0.05
BETAS = {"b1": 0.8, "b2": 0.95}
# torch's (and our) weight of the momentum in NAdam warms up; with so fast a warm-up it is beta1 at once, optax's.
AT_ONCE = 1e9


def in_float64(schedule):
    """JAX divides the int32 counts of optax's states in float32."""
    return lambda count: schedule(count.astype(jnp.int64))


def optax_rms_factored():
    """optax.adafactor's parts: its own alias computes the decay in float32."""
    return optax.chain(
        optax.scale_by_factored_rms(
            min_dim_size_to_factor=1,  # optax leaves small matrices whole
            epsilon=0.0,  # added to squares, where torch bounds their means from below
            decay_rate_fn=lambda step, rate: 1.0 - jnp.asarray(step + 1, jnp.float64) ** (-rate),
        ),
        optax.clip_by_block_rms(1.0),
        optax.scale_by_learning_rate(LR, flip_sign=False),  # no bound by 1 / sqrt(t): 0.05 stays below it for 400 steps
        optax.scale_by_param_block_rms(),
        optax.add_decayed_weights(LR * 0.1),  # not times the learning rate
        optax.scale(-1.0),
    )


PAIRS = {
    "sgd": (optim.sgd(LR), optax.sgd(LR)),
    "sgd momentum": (optim.sgd(LR, 0.8), optax.sgd(LR, 0.8)),
    "sgd nesterov": (optim.sgd(LR, 0.8, nesterov=True), optax.sgd(LR, 0.8, nesterov=True)),
    "sgd weight decay": (
        optim.sgd(LR, 0.8, weight_decay=0.1),
        optax.chain(optax.add_decayed_weights(0.1), optax.sgd(LR, 0.8)),
    ),
    "adam": (optim.adam(LR, (0.8, 0.95), 1e-3), optax.adam(LR, **BETAS, eps=1e-3)),
    "adam l2": (
        optim.adam(LR, (0.8, 0.95), weight_decay=0.1),
        optax.chain(optax.add_decayed_weights(0.1), optax.adam(LR, **BETAS)),
    ),
    "adamw": (optim.adamw(LR, (0.8, 0.95), weight_decay=0.1), optax.adamw(LR, **BETAS, weight_decay=0.1)),
    "adamw masked": (
        optim.adamw(LR, weight_decay=0.1, weight_decay_mask=optim.no_decay_1d),
        optax.adamw(LR, weight_decay=0.1, mask=lambda params: jax.tree.map(lambda leaf: leaf.ndim >= 2, params)),
    ),
    "adamw scheduled": (
        optim.adamw(schedules.cosine(LR, STEPS, warmup_steps=10), weight_decay=0.1),
        optax.adamw(in_float64(optax.warmup_cosine_decay_schedule(0.0, LR, 10, STEPS)), weight_decay=0.1),
    ),
    "nadam": (optim.nadam(LR, (0.8, 0.95), momentum_decay=AT_ONCE), optax.nadam(LR, **BETAS)),
    "nadamw": (
        optim.nadam(LR, (0.8, 0.95), weight_decay=0.1, momentum_decay=AT_ONCE, decoupled_weight_decay=True),
        optax.nadamw(LR, **BETAS, weight_decay=0.1),
    ),
    # optax adds eps to the root of the corrected moment, torch to that of the raw one.
    "radam": (optim.radam(LR, (0.8, 0.95), eps=0.0), optax.radam(LR, **BETAS, eps=0.0)),
    "adamax": (optim.adamax(LR, (0.8, 0.95), 1e-3), optax.adamax(LR, **BETAS, eps=1e-3)),
    # optax adds eps inside the root, torch outside.
    "adagrad": (
        optim.adagrad(LR, initial_accumulator_value=0.1, eps=0.0),
        optax.adagrad(LR, initial_accumulator_value=0.1, eps=0.0),
    ),
    "adadelta": (
        optim.adadelta(1.0, 0.8, 1e-4, weight_decay=0.1),
        optax.adadelta(1.0, 0.8, 1e-4, weight_decay=0.1),
    ),
    "rmsprop": (optim.rmsprop(LR, 0.8, 1e-4), optax.rmsprop(LR, 0.8, 1e-4, eps_in_sqrt=False)),
    "rmsprop centered": (
        optim.rmsprop(LR, 0.8, 1e-4, momentum=0.5, centered=True),
        optax.rmsprop(LR, 0.8, 1e-4, eps_in_sqrt=False, centered=True, momentum=0.5),
    ),
    "lion": (optim.lion(LR, (0.8, 0.95), 0.1), optax.lion(LR, **BETAS, weight_decay=0.1)),
    "lamb": (optim.lamb(LR, (0.8, 0.95), 1e-4, 0.1), optax.lamb(LR, **BETAS, eps=1e-4, weight_decay=0.1)),
    "adafactor": (optim.adafactor(LR, eps=(1e-30, 1e-3), weight_decay=0.1), optax_rms_factored()),
    "schedule_free_sgd": (
        optim.schedule_free_sgd(LR, 0.8, 0.1, weight_lr_power=1.5),
        optax.contrib.schedule_free_sgd(LR, b1=0.8, weight_decay=0.1, weight_lr_power=1.5),
    ),
    "schedule_free_adamw": (
        optim.schedule_free_adamw(LR, (0.8, 0.95), 1e-4, 0.1),
        optax.contrib.schedule_free_adamw(LR, **BETAS, eps=1e-4, weight_decay=0.1),
    ),
    "parts": (
        optim.chain(optim.clip_by_global_norm(1e9), optim.centralize(), optim.sgd(LR)),
        optax.chain(optax.centralize(), optax.sgd(LR)),
    ),
}
WITHOUT_PARITY = {"muon", "rprop"}  # see the tests below
# One leaf of each kind: XLA compiles for each of them.
LEAVES = {name: SHAPES[name] for name in ("matrix", "bias", "scalar")}


def as_jax(tree):
    return {name: jnp.asarray(leaf.numpy()) for name, leaf in tree.items()}


def run_optax(optimizer, params, steps):
    """The same gradients: noise of each step, and a pull that depends on the parameters."""
    zeros = {name: torch.zeros_like(leaf) for name, leaf in params.items()}

    @jax.jit
    def step(params, state, noise):
        grads = jax.tree.map(lambda leaf, part: part + 0.1 * leaf, params, noise)
        updates, state = optimizer.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    with enable_x64(True):
        current = as_jax(params)
        state = optimizer.init(current)
        for count in range(steps):
            current, state = step(current, state, as_jax(gradients(zeros, count)))
        assert all(leaf.dtype == jnp.float64 for leaf in current.values())
        return {name: torch.from_numpy(np.array(leaf)) for name, leaf in current.items()}, state


@pytest.mark.parametrize("name", PAIRS)
def test_fifty_steps_equal_optax(name):
    ours, theirs = PAIRS[name]
    params = make_params(shapes=LEAVES)
    actual, _ = run(ours, params, STEPS)
    expected, _ = run_optax(theirs, params, STEPS)
    torch.testing.assert_close(actual, expected, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("base", ["sgd momentum", "adamw"])
def test_fifty_steps_of_sam_equal_optax(base):
    ours, theirs = PAIRS[base]
    ours = optim.sam(ours, 0.1)
    theirs = optax.contrib.sam(theirs, optax.chain(optax.contrib.normalize(), optax.sgd(0.1)), opaque_mode=True)
    params = make_params(shapes=LEAVES)
    current, state = params, ours.init(params)

    def slopes(params, noise):  # of the sum of p^4 / 4 + noise p, at any point
        return {name: leaf**3 + noise[name] for name, leaf in params.items()}

    @jax.jit
    def step(params, state, noise):
        grads = slopes(params, noise)
        updates, state = theirs.update(grads, state, params, grad_fn=lambda point, _: slopes(point, noise))
        return optax.apply_updates(params, updates), state

    with enable_x64(True):
        expected = as_jax(params)
        optax_state = theirs.init(expected)
        for count in range(STEPS):
            noise = gradients({name: torch.zeros_like(leaf) for name, leaf in params.items()}, count)
            uphill = optim.ascended_params(state, current, slopes(current, noise))
            updates, state = ours.update(slopes(uphill, noise), state, current)
            current = optim.apply_updates(current, updates)
            expected, optax_state = step(expected, optax_state, as_jax(noise))
        expected = {name: torch.from_numpy(np.array(leaf)) for name, leaf in expected.items()}
    torch.testing.assert_close(current, expected, rtol=1e-10, atol=1e-13)


def test_every_optimizer_that_optax_has_is_compared():
    compared = {name.split()[0] for name in PAIRS}
    assert {name for name in optim.REGISTRY if hasattr(optax, name) or hasattr(optax.contrib, name)} == (
        compared & optim.REGISTRY.keys() | WITHOUT_PARITY
    )


@pytest.mark.parametrize("kind", ["sgd", "adamw"])
def test_schedule_free_evaluation_parameters_equal_optax(kind):
    ours, theirs = PAIRS[f"schedule_free_{kind}"]
    params, state = run(ours, make_params(shapes=LEAVES), STEPS)
    expected, optax_state = run_optax(theirs, make_params(shapes=LEAVES), STEPS)
    with enable_x64(True):
        averages = optax.contrib.schedule_free_eval_params(optax_state, as_jax(expected))
    expected = {name: torch.from_numpy(np.array(leaf)) for name, leaf in averages.items()}
    torch.testing.assert_close(optim.evaluation_params(state, params), expected, rtol=1e-10, atol=1e-13)


def test_rprop_finds_the_steps_of_optax_which_applies_each_an_update_late():
    # optax 0.2.8 returns the step that its state holds from the update before, the first being 0.
    params = make_params(shapes=LEAVES)
    ours = optim.rprop(LR, (0.4, 1.3), (1e-3, 0.2))
    theirs = optax.rprop(LR, eta_minus=0.4, eta_plus=1.3, min_step_size=1e-3, max_step_size=0.2)
    state = ours.init(params)
    with enable_x64(True):
        optax_state = theirs.init(as_jax(params))
        update = jax.jit(theirs.update)
        for count in range(STEPS):
            grads = gradients(params, count)
            updates, state = ours.update(grads, state, params)
            _, optax_state = update(as_jax(grads), optax_state)
            for name, step in optax_state[0].prev_updates.items():
                torch.testing.assert_close(-updates[name], torch.from_numpy(np.array(step)), rtol=1e-10, atol=0)


def test_muon_turns_matrices_as_optax_does_to_the_rounding_of_bfloat16():
    # optax corrects the momentum's bias, which its direction does not depend on (without Nesterov's look ahead), and
    # has its matrices [in, out]. Five iterations with slopes up to 3.4 at the smallest singular values.
    params = make_params(shapes={"tall": (6, 4), "wide": (4, 6)})
    grads = gradients(params, 0)
    ours = optim.muon(LR, weight_decay=0.0, nesterov=False)
    updates, _ = ours.update(grads, ours.init(params), params)
    with enable_x64(True):
        theirs = optax.contrib.muon(LR, nesterov=False)
        transposed = as_jax({name: leaf.T.contiguous() for name, leaf in params.items()})
        slopes = as_jax({name: leaf.T.contiguous() for name, leaf in grads.items()})
        expected, _ = theirs.update(slopes, theirs.init(transposed), transposed)
    for name, update in updates.items():
        other = torch.from_numpy(np.array(expected[name])).T
        assert (update - other).norm() / other.norm() < 5 * torch.finfo(torch.bfloat16).eps


SCHEDULES = {
    "constant": (schedules.constant(0.3), optax.constant_schedule(0.3)),
    "linear": (schedules.linear(0.3, 20, end=0.1), optax.linear_schedule(0.3, 0.1, 20)),
    "polynomial": (schedules.polynomial(0.3, 20, 1.7, end=0.1), optax.polynomial_schedule(0.3, 0.1, 1.7, 20)),
    "cosine": (schedules.cosine(0.3, 20, end=0.1), optax.cosine_decay_schedule(0.3, 20, alpha=1 / 3)),
    "warm-up, cosine": (
        schedules.cosine(0.3, 20, warmup_steps=5, end=0.1),
        optax.warmup_cosine_decay_schedule(0.0, 0.3, 5, 20, end_value=0.1),
    ),
    "warm-up, constant": (
        schedules.warmup(schedules.constant(0.3), 5, start=0.1),
        optax.warmup_constant_schedule(0.1, 0.3, 5),
    ),
    "warm-up, exponential": (
        schedules.warmup(schedules.exponential(0.3, 0.9), 5),
        optax.warmup_exponential_decay_schedule(0.0, 0.3, 5, 1, 0.9),
    ),
    "exponential": (schedules.exponential(0.3, 0.9), optax.exponential_decay(0.3, 1, 0.9)),
    "step": (schedules.step(0.3, 7, 0.5), optax.exponential_decay(0.3, 7, 0.5, staircase=True)),
    "multi_step": (schedules.multi_step(0.3, [4, 9], 0.5), optax.piecewise_constant_schedule(0.3, {4: 0.5, 9: 0.5})),
    "cosine_restarts": (
        schedules.cosine_restarts(0.3, 5, 2, end=0.1),
        optax.join_schedules(
            [optax.cosine_decay_schedule(0.3, length, alpha=1 / 3) for length in (5, 10, 20)], [5, 15]
        ),
    ),
    # optax turns at step int(pct_start * steps) and ends at `steps`; torch, and we, one before each.
    "one_cycle": (
        schedules.one_cycle(0.3, 31, pct_start=10 / 31),
        optax.cosine_onecycle_schedule(30, 0.3, pct_start=0.3),
    ),
    "one_cycle, linear": (
        schedules.one_cycle(0.3, 31, pct_start=10 / 31, anneal_strategy="linear"),
        # Its straight line has a third phase, to peak / (div_factor * final_div_factor); away with it.
        optax.join_schedules([optax.linear_schedule(0.012, 0.3, 9), optax.linear_schedule(0.3, 1.2e-6, 21)], [9]),
    ),
    "join": (
        schedules.join([schedules.constant(0.1), schedules.linear(0.3, 10)], [3]),
        optax.join_schedules([optax.constant_schedule(0.1), optax.linear_schedule(0.3, 0.0, 10)], [3]),
    ),
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedules_equal_optax(name):
    ours, theirs = SCHEDULES[name]
    with enable_x64(True):
        expected = [float(rate) for rate in jax.vmap(lambda n: jnp.asarray(theirs(n), jnp.float64))(jnp.arange(34))]
    assert [ours(step) for step in range(34)] == pytest.approx(expected, rel=1e-10, abs=1e-13)
