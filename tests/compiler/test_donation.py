"""donate=True: the new state lives where the old one did, and the old one says so."""

import copy
import dataclasses

import pytest
import torch

import functrain as ft
from functrain.compiler import runner
from functrain.foundation import trees
from functrain.foundation.errors import DonatedStateError, TracingError

BACKEND = "aot_eager"


def pointers(state):
    return [leaf.data_ptr() for leaf in trees.tensors(state)]


def copied(state):
    """The same state in storage of its own."""
    return trees.tree_map(lambda leaf: leaf.clone() if isinstance(leaf, torch.Tensor) else leaf, state)


@pytest.fixture(scope="module")
def original(perceptron_state):
    return perceptron_state(dropout=0.4, accumulate=2, ema_decay=0.5, optimizer=ft.optim.adamw(0.01))


@pytest.fixture(scope="module")
def donating():
    return ft.compile(ft.train_step, donate=True, backend=BACKEND)


@pytest.fixture(scope="module")
def keeping():
    return ft.compile(ft.train_step, backend=BACKEND)


def test_a_donated_run_has_the_bits_of_one_that_is_not(original, donating, keeping, vectors, bits):
    donated, kept = copied(original), copied(original)
    for seed in range(5):
        donated, donated_metrics = donating(donated, vectors(seed))
        kept, kept_metrics = keeping(kept, vectors(seed))
        assert bits((donated, donated_metrics)) == bits((kept, kept_metrics))
    assert donating.runner.compilations == keeping.runner.compilations == {"accumulate": 1, "update": 1}


def test_the_new_state_lives_in_the_storage_of_the_old_one(original, donating, keeping, vectors):
    state = copied(original)
    for seed in range(4):
        before = pointers(state)
        state, _ = donating(state, vectors(seed))
        assert pointers(state) == before
    kept, _ = keeping(state, vectors())
    kept, _ = keeping(kept, vectors())
    assert set(pointers(kept)).isdisjoint(before)


USES = {
    "an attribute": lambda state, step, batch: state.params,
    "a counter": lambda state, step, batch: state.step,
    "a property": lambda state, step, batch: state.micro_step,
    "train_step": lambda state, step, batch: ft.train_step(state, batch),
    "eval_step": lambda state, step, batch: ft.eval_step(state, batch),
    "to_module": lambda state, step, batch: ft.to_module(state),
    "replace": lambda state, step, batch: state.replace(step=0),
    "the compiled step": lambda state, step, batch: step(state, batch),
    "a copy": lambda state, step, batch: copy.copy(state).params,
}


@pytest.mark.parametrize("use", USES.values(), ids=USES)
def test_every_use_of_a_donated_state_is_an_error(use, original, donating, vectors):
    state = copied(original)
    donating(state, vectors())
    with pytest.raises(DonatedStateError, match=r"this state was donated.*Use the state that the step returned"):
        use(state, donating, vectors())


def test_metrics_of_a_donated_step_stay_what_they_were(original, donating, vectors, bits):
    state, kept = copied(original), []
    for seed in range(6):
        state, metrics = donating(state, vectors(seed))
        kept.append((metrics, bits(metrics)))
    assert all(bits(metrics) == before for metrics, before in kept)
    assert len({metrics["loss"].item() for metrics, _ in kept}) == 6


def test_loss_scale_and_learning_rate_metrics_share_no_storage_with_the_state(perceptron_state, vectors):
    state = perceptron_state(precision="fp16")
    for donate in (False, True):
        step = ft.compile(ft.train_step, donate=donate, backend="eager")
        new, metrics = step(copied(state), vectors())
        assert {"lr", "loss_scale"} <= metrics.keys()
        assert set(pointers(metrics)).isdisjoint(pointers(new))


def test_the_batch_is_never_donated(original, donating, vectors, bits):
    batch = vectors()
    before = bits(batch)
    donating(copied(original), batch)
    assert bits(batch) == before


def test_leaves_that_share_storage_are_separated_before_they_are_written(original, donating, vectors, bits):
    """A hand-made state: an average that *is* the parameters, and a window whose sums are one expanded zero."""

    def aliased():
        state = copied(original)
        window = state.accumulator
        grads = {name: torch.zeros((), dtype=g.dtype).expand(g.shape) for name, g in window.grads.items()}
        return state.replace(
            ema=dataclasses.replace(state.ema, params=dict(state.params)),
            epoch_totals=window.sums,
            accumulator=type(window)(grads, window.sums, dict(state.buffers), window.count, window.used),
        )

    separate, shared = copied(aliased()), aliased()
    for seed in range(4):
        separate, expected = donating(separate, vectors(seed))
        shared, metrics = donating(shared, vectors(seed))
        assert bits((shared, metrics)) == bits((separate, expected))
    addresses = [leaf.untyped_storage().data_ptr() for leaf in trees.tensors(shared)]
    assert len(set(addresses)) == len(addresses)


def test_a_replaced_state_is_looked_at_again(original, donating, vectors):
    """`replace` after a donated step may bring aliases back."""
    state, _ = donating(copied(original), vectors())
    state = state.replace(ema=dataclasses.replace(state.ema, params=dict(state.params)))
    state, _ = donating(state, vectors())
    assert not any(torch.equal(state.ema.params[name], state.params[name]) for name in state.ema.params)


def test_a_run_that_is_broken_off_leaves_no_half_written_state(original, donating, vectors, monkeypatch):
    state, _ = donating(copied(original), vectors())

    def interrupted(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(runner._Program, "__call__", interrupted)
    with pytest.raises(KeyboardInterrupt):
        donating(state, vectors())
    with pytest.raises(DonatedStateError):
        _ = state.params


def test_a_compilation_that_fails_leaves_the_state_as_it_was(vectors, bits):
    def objective(model, batch):
        return ft.Loss(model(batch[0]).sum() * batch[0].sum().item(), 1.0)

    state = ft.init_state(torch.nn.Linear(4, 1), objective, ft.optim.sgd(0.1))
    before = bits(state)
    with pytest.raises(TracingError):
        ft.compile(ft.train_step, donate=True, backend=BACKEND)(state, vectors())
    assert bits(state) == before


def test_frozen_parameters_stay_where_they_are(vectors):
    model = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Linear(3, 3))
    model[0].requires_grad_(False)
    state = ft.init_state(model, ft.classification(), ft.optim.sgd(0.1))
    frozen = state.params["0.weight"]
    before = frozen.clone()
    step = ft.compile(ft.train_step, donate=True, backend=BACKEND)
    for seed in range(2):
        state, _ = step(state, vectors(seed))
    assert state.params["0.weight"] is frozen
    assert torch.equal(frozen, before)


def _remembering(sgd):
    """An optimizer that also keeps the parameters of the last two updates, and rotates two counters."""

    def init(params):
        return {
            "rest": sgd.init(params),
            "last": params,
            "before": params,
            "turns": [torch.tensor(0.0), torch.tensor(1.0)],
        }

    def update(updates, state, params):
        updates, rest = sgd.update(updates, state["rest"], params)
        turns = [state["turns"][1], state["turns"][0]]
        return updates, {"rest": rest, "last": params, "before": state["last"], "turns": turns}

    return ft.optim.Optimizer(init, update)


def test_a_leaf_that_becomes_another_is_read_before_it_is_overwritten(
    perceptron_state, donating, keeping, vectors, bits
):
    original = perceptron_state(optimizer=_remembering(ft.optim.sgd(0.1)))
    donated, kept = copied(original), copied(original)
    for seed in range(3):
        donated, _ = donating(donated, vectors(seed))
        kept, _ = keeping(kept, vectors(seed))
        assert bits(donated) == bits(kept)
