"""A state's repr is a few lines whatever it holds; it can be copied, and an attempt to pickle it names the way."""

import copy
import io
import pickle

import pytest
import torch
from torch import nn
from torch.fx.experimental.proxy_tensor import make_fx

import functrain as ft
from functrain.foundation import trees
from functrain.foundation.errors import DonatedStateError

BATCH = (torch.full((4, 2), 12345.0), torch.zeros(4, 1))


def make_state(**options):
    return ft.init_state(nn.Linear(2, 1), ft.regression(), ft.optim.adam(0.1), **options)


def test_a_repr_says_what_the_state_is_and_prints_no_tensor():
    state = make_state(accumulate=2, ema_decay=0.9, precision="bf16")
    for _ in range(3):
        state, _ = ft.train_step(state, BATCH)
    assert repr(state).splitlines() == [
        "TrainState",
        "  step        1, accumulate 2",
        "  epochs      0, and 3 batches",
        "  samples     12",
        "  model       Linear",
        "  parameters  3",
        "  optimizer   Adam",
        "  precision   bf16, with a moving average",
        "  device      cpu",
    ]
    page = state._repr_html_()
    assert page.startswith("<table><caption>TrainState</caption><tr><th>step</th><td>1, accumulate 2</td></tr>")
    assert "tensor" not in repr(state) + page


def test_frozen_parameters_and_other_optimizers_are_said():
    model = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
    model[0].requires_grad_(False)
    state = ft.init_state(model, ft.regression(), ft.optim.chain(ft.optim.sam(ft.optim.sgd(0.1)), ft.optim.adam(0.1)))
    assert "parameters  13, 9 of them frozen" in repr(state)
    assert "optimizer   SAM, Adam" in repr(state) or "optimizer   Sam, Adam" in repr(state)
    plain = ft.init_state(nn.Linear(2, 1), ft.regression(), ft.optim.sgd(0.1))
    assert "optimizer   gradient descent" in repr(plain)


def test_a_repr_never_fails():
    state, texts = make_state(), []

    def step(params):
        inner = state.replace(params=params)
        texts.append(repr(inner))
        return ft.train_step(inner, BATCH)[0].params

    make_fx(step, tracing_mode="fake", _allow_non_fake_inputs=True)(state.params)
    torch.func.vmap(step)({name: torch.stack([p, p]) for name, p in state.params.items()})
    for other in (
        trees.tree_map(lambda leaf: None, state),
        trees.tree_map(lambda leaf: "shape", state),
        trees.tree_map(lambda leaf: leaf.to("meta") if isinstance(leaf, torch.Tensor) else leaf, state),
    ):
        texts.append(repr(other) + other._repr_html_())
    assert all(text.startswith("TrainState\n") for text in texts)
    assert len(texts) == 5


def test_a_donated_state_says_that_it_is_gone():
    state = make_state()
    kept = ft.FitResult(state, [], "steps")
    ft.compile(ft.train_step, backend="eager", donate=True)(state, BATCH)
    assert repr(state).startswith("TrainState, donated")
    assert state._repr_html_() is None
    assert "donated" in repr(kept)
    with pytest.raises(DonatedStateError):
        copy.deepcopy(state)


def test_copies_train_on_with_the_same_bits_and_a_deep_one_shares_no_tensor():
    state, _ = ft.train_step(make_state(), BATCH)
    deep, shallow = copy.deepcopy(state), copy.copy(state)
    assert not ft.diff_states(deep, state)
    assert not ft.diff_states(ft.train_step(deep, BATCH)[0], ft.train_step(state, BATCH)[0])
    assert trees.structure(deep) == trees.structure(state) == trees.structure(shallow)
    storages = {tensor.data_ptr() for tensor in trees.tensors(state)}
    assert not storages & {tensor.data_ptr() for tensor in trees.tensors(deep)}
    assert storages == {tensor.data_ptr() for tensor in trees.tensors(shallow)}
    assert copy.deepcopy({"best": state, "again": state})["best"].step == 1


def test_pickling_names_the_checkpointer():
    state = make_state()
    for value in (state, ft.FitResult(state, [], "steps"), [state]):
        for save in (pickle.dumps, lambda value: torch.save(value, io.BytesIO())):
            with pytest.raises(TypeError, match=r"functrain\.Checkpointer\(folder\)\.save\(state"):
                save(value)


def test_what_the_message_advises_works(tmp_path):
    state, _ = ft.train_step(make_state(), BATCH)
    checkpointer = ft.Checkpointer(tmp_path / "state")
    checkpointer.save(state, step=state.step)
    checkpointer.wait()
    assert not ft.diff_states(checkpointer.restore(make_state(), "last").tree, state)
    torch.save(ft.to_module(state).state_dict(), tmp_path / "model.pt")
    assert torch.equal(torch.load(tmp_path / "model.pt")["weight"], state.params["weight"])


def test_a_result_shows_its_last_metrics():
    result = ft.fit(make_state(), [BATCH], eval_loader=[BATCH], epochs=2, compile=False, progress=False)
    last = result.history[-1]
    lines = repr(result).splitlines()
    assert lines[:2] == ["FitResult", "  stopped by  epochs"]
    (shown,) = (line.split()[-1] for line in lines if line.startswith("  eval loss"))
    assert float(shown) == pytest.approx(last["eval_loss"], rel=1e-3)
    assert len(lines) < 20
    assert "<th>train mae</th>" in result._repr_html_()


def test_a_module_keeps_the_modes_of_the_model_and_says_so():
    model = nn.Sequential(nn.Linear(2, 1), nn.Dropout())
    for training in (True, False):
        state = ft.init_state(model.train(training), ft.regression(), ft.optim.sgd(0.1))
        assert ft.to_module(state).training is training
    assert "call `.eval()`" in ft.to_module.__doc__.splitlines()[0]
