"""init_state refuses what cannot be trained, and takes copies of what can; to_module gives it back."""

import dataclasses
import functools

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import functrain as ft
from functrain.foundation import trees

GOOD = {"model": nn.Linear(2, 1), "objective": ft.regression(), "optimizer": ft.optim.sgd(0.1)}


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"model": lambda x: x}, TypeError, "model must be a torch.nn.Module, got function"),
        ({"objective": nn.MSELoss()}, TypeError, r"got MSELoss; .*functrain.supervised\(loss\)"),
        ({"objective": "mse"}, TypeError, r"objective must be a function \(model, batch\) -> Loss, got str"),
        (
            {"optimizer": torch.optim.SGD([torch.zeros(1)], 0.1)},
            TypeError,
            r"torch's SGD, .* optim.from_torch\(torch.optim.SGD, lr",
        ),
        ({"precision": "half"}, ValueError, "one of fp32, fp64, bf16, fp16; got 'half'"),
        ({"accumulate": 0}, ValueError, "accumulate must be a whole number.*1 or more; got 0"),
        ({"accumulate": 2.0}, ValueError, "got 2.0"),
        ({"accumulate": True}, ValueError, "got True"),
        ({"clip_norm": 0.0}, ValueError, "clip_norm must be greater than 0, or None.*got 0.0"),
        ({"clip_value": -1.0}, ValueError, "clip_value must be greater than 0"),
        ({"clip_norm": float("nan")}, ValueError, "clip_norm must be greater than 0.*got nan"),
        ({"ema_decay": 1.0}, ValueError, "ema_decay must be at least 0 and less than 1; got 1.0"),
        ({"ema_decay": -0.1}, ValueError, "got -0.1"),
        ({"seed": 1.5}, TypeError, "seed must be an int, got 1.5"),
        ({"model": nn.Linear(2, 1).requires_grad_(False)}, ValueError, "Linear.*has no trainable parameter"),
        ({"model": nn.ReLU()}, ValueError, "ReLU.*has no trainable parameter"),
        ({"model": nn.LazyLinear(2)}, ValueError, "parameter 'weight' has no shape yet.*run one batch"),
        ({"model": nn.LazyBatchNorm1d(affine=False)}, ValueError, "no trainable parameter"),
        (
            {"model": nn.Sequential(nn.Linear(2, 1), nn.LazyBatchNorm1d(affine=False))},
            ValueError,
            "buffer '1.running_mean' has no shape yet",
        ),
    ],
)
@pytest.mark.filterwarnings("ignore:Lazy modules are a new feature")
def test_what_cannot_be_trained_is_refused(change, error, message):
    with pytest.raises(error, match=message):
        ft.init_state(**(GOOD | change))


def test_a_model_that_cannot_be_copied_is_told_why():
    model = nn.Linear(2, 1)
    model.cached = model.weight * 2
    with pytest.raises(ValueError, match=r"model \(Linear\) cannot be copied.*register_buffer"):
        ft.init_state(**(GOOD | {"model": model}))


def test_the_state_shares_no_storage_with_the_model_nor_within_itself(everything):
    model = everything()
    state = ft.init_state(model, ft.classification(), ft.optim.adamw(0.1), accumulate=2, ema_decay=0.5)
    addresses = [leaf.untyped_storage().data_ptr() for leaf in trees.tensors(state)]
    assert len(set(addresses)) == len(addresses)
    assert set(addresses).isdisjoint(t.untyped_storage().data_ptr() for t in model.state_dict().values())


def test_a_state_is_immutable_and_replace_makes_another(everything_state):
    state = everything_state()
    with pytest.raises(dataclasses.FrozenInstanceError):
        state.step = 5
    assert state.replace(step=5).step == 5
    assert state.step == 0
    assert state.replace(step=5).params is state.params


def test_the_seed_is_the_runs_and_not_the_parameters(everything_state, bits):
    zero, one = everything_state(seed=0), everything_state(seed=1)
    assert zero.key != one.key
    assert bits(zero.params) == bits(one.params)


def test_parameters_and_buffers_are_cast_to_the_precision_and_integers_are_not(everything):
    for given, precision, dtype in [
        (torch.float64, "fp32", torch.float32),
        (torch.bfloat16, "bf16", torch.float32),
        (torch.float32, "fp64", torch.float64),
    ]:
        state = ft.init_state(everything().to(given), ft.classification(), ft.optim.sgd(0.1), precision=precision)
        assert {p.dtype for p in state.params.values()} == {dtype}
        assert state.buffers["norm.running_var"].dtype == dtype
        assert state.buffers["norm.num_batches_tracked"].dtype == torch.int64


def test_states_of_one_recipe_have_one_structure_and_others_do_not(everything_state):
    state = everything_state()
    assert trees.structure(state) == trees.structure(state.replace(step=3))
    assert trees.structure(state) != trees.structure(everything_state(clip_norm=1.0))


def test_the_leaves_of_a_state_have_readable_names(everything_state):
    names = trees.paths(everything_state(accumulate=2, ema_decay=0.5, precision="fp16"))
    for name in (
        "params/conv.weight",
        "buffers/norm.running_mean",
        "loss_scale/scale",
        "accumulator/grads/head.bias",
        "accumulator/count",
        "accumulator/used",
        "ema/params/head.weight",
        "epoch_totals",
        "key",
        "step",
    ):
        assert name in names
    assert not any(name.startswith("recipe") for name in names)


def test_to_module_gives_the_users_module_with_the_states_tensors_and_its_own_flags(
    everything, everything_state, image_batch, bits
):
    model = everything()
    state, _ = ft.train_step(everything_state(), image_batch())
    module = ft.to_module(state)
    assert type(module) is type(model)
    assert bits(dict(module.named_parameters())) == bits(state.params)
    assert bits(dict(module.named_buffers())) == bits(state.buffers)
    assert list(module.state_dict()) == list(model.state_dict())
    assert {n: p.requires_grad for n, p in module.named_parameters()} == {
        n: p.requires_grad for n, p in model.named_parameters()
    }
    assert module.training
    assert all(isinstance(p, nn.Parameter) and p.device.type == "cpu" for p in module.parameters())


def test_to_module_is_independent_of_the_state_and_of_other_modules(everything_state, image_batch, bits):
    state, _ = ft.train_step(everything_state(ema_decay=0.5), image_batch())
    before = bits(state)
    first, second = ft.to_module(state), ft.to_module(state)
    x, y = image_batch()
    F.cross_entropy(first(x), y).backward()
    torch.optim.SGD([p for p in first.parameters() if p.requires_grad], 0.1).step()
    assert bits(state) == before
    assert bits(dict(second.named_parameters())) == bits(state.params)
    assert bits(dict(first.named_parameters())) != bits(state.params)
    averaged = ft.to_module(state, ema=True)
    assert bits({n: p for n, p in averaged.named_parameters() if n != "scale"}) == bits(state.ema.params)


def test_to_module_of_an_average_that_is_not_kept_is_refused(everything_state):
    with pytest.raises(ValueError, match="keeps no moving average"):
        ft.to_module(everything_state(), ema=True)


def test_a_state_goes_where_it_is_sent(everything):
    state = ft.init_state(everything(), ft.classification(), ft.optim.adamw(0.1), device="meta")
    assert {leaf.device.type for leaf in trees.tensors(state)} == {"meta"}


def test_objectives_made_of_a_partial_are_taken():
    def objective(model, batch, *, factor):
        return ft.Loss((model(batch) ** 2).sum() * factor, len(batch))

    state = ft.init_state(**(GOOD | {"objective": functools.partial(objective, factor=2.0)}))
    assert ft.train_step(state, torch.ones(2, 2))[0].step == 1


def test_frozen_by_a_pattern_is_frozen_by_requires_grad_and_the_model_is_as_before(bits):
    def model():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))

    by_pattern, by_flag = model(), model()
    by_flag[0].requires_grad_(False)
    options = {"objective": ft.regression(), "optimizer": ft.optim.adamw(0.1)}
    states = [ft.init_state(by_pattern, freeze="0.*", **options), ft.init_state(by_flag, **options)]
    assert all(parameter.requires_grad for parameter in by_pattern.parameters())
    assert states[0].recipe.network.frozen == ("0.weight", "0.bias")
    batch = (torch.ones(4, 2), torch.ones(4, 1))
    stepped = [ft.train_step(state, batch)[0] for state in states]
    assert bits(stepped[0]) == bits(stepped[1])
    assert torch.equal(stepped[0].params["0.weight"], by_pattern[0].weight)
    assert not torch.equal(stepped[0].params["1.weight"], by_pattern[1].weight)
    assert ft.init_state(model(), freeze=["0.weight", "1.*"], **options).recipe.network.trainable == ("0.bias",)


@pytest.mark.parametrize(
    ("freeze", "error", "message"),
    [
        ("wieght", ValueError, "freeze: the pattern 'wieght' fits no parameter; did you mean 'weight'"),
        (["*"], ValueError, "has no trainable parameter"),
        ([nn.Linear(1, 1)], TypeError, "freeze takes names of parameters or patterns of names, such as 'encoder.*'"),
    ],
)
def test_patterns_that_freeze_nothing_or_everything_are_refused(freeze, error, message):
    with pytest.raises(error, match=message):
        ft.init_state(**GOOD, freeze=freeze)


def test_a_model_of_the_wrong_kind_is_told_before_its_patterns():
    with pytest.raises(TypeError, match=r"model must be a torch.nn.Module"):
        ft.init_state(**(GOOD | {"model": "linear"}), freeze="body.*")
