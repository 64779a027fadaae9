"""The contract that every optimizer of the registry keeps: one is covered by its registration alone."""

import inspect

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from optim_helpers import accepts, gradients, make_params, one_step, traced

from functrain import optim
from functrain.foundation import trees
from functrain.optim import schedules


def scheduled(name):
    """Whether the learning rate may be a schedule."""
    return "Callable" in str(inspect.signature(optim.REGISTRY[name]).parameters["lr"].annotation)


def variant(name, **wanted):
    """A factory with those of the arguments that the optimizer has; Adadelta's natural rate is 1."""
    options = {key: value for key, value in wanted.items() if accepts(name, key)}
    lr = max(0.05, inspect.signature(optim.REGISTRY[name]).parameters["lr"].default)
    return lambda **more: optim.REGISTRY[name](**{"lr": lr, **options, **more})


VARIANTS = {
    **{name: variant(name) for name in optim.REGISTRY},
    **{
        f"{name}-everything": variant(
            name,
            **({"lr": schedules.cosine(0.3, 1000, warmup_steps=3)} if scheduled(name) else {}),
            weight_decay=0.01,
            weight_decay_mask=optim.no_decay_1d,
            amsgrad=True,
            centered=True,
            decoupled_weight_decay=True,
            lr_decay=0.001,
        )
        for name in optim.REGISTRY
    },
    "sgd-momentum": lambda **kw: optim.sgd(0.05, momentum=0.9, dampening=0.1, **kw),
    "rmsprop-momentum": lambda **kw: optim.rmsprop(0.005, momentum=0.9, **kw),
    "clipped": lambda **kw: optim.chain(
        optim.clip_by_global_norm(1.0), optim.clip_by_value(0.5), optim.adamw(0.05, **kw)
    ),
    "partitioned": lambda **kw: optim.partition({"matrix": optim.sgd(0.05, **kw), "*": optim.adamw(0.05, **kw)}),
    "lookahead": lambda **kw: optim.lookahead(optim.adamw(0.05, **kw)),
    "sam": lambda **kw: optim.sam(optim.adamw(0.05, **kw)),
    "scheduled-hyperparameters": lambda **kw: optim.adamw(
        0.05, (lambda step: 0.9 - 0.1 / (step + 1), schedules.constant(0.99)), weight_decay=lambda step: 0.01, **kw
    ),
    "scheduled-momentum": lambda **kw: optim.sgd(0.05, schedules.linear(0.5, 50, end=0.9), nesterov=True, **kw),
}
contract = pytest.mark.parametrize("make", VARIANTS.values(), ids=VARIANTS.keys())


def rounding(state, dtype=torch.float64):
    """Of the arithmetic: a Newton-Schulz iteration runs in bfloat16, where others stay in the parameters' dtype."""
    is_muon = any("MuonState" in str(kind) for kind in [trees.structure(state)])
    return torch.finfo(torch.bfloat16 if is_muon else dtype).eps


def assert_equal_to_rounding(actual, expected, eps):
    # Some ten roundings, of values of order 1.
    torch.testing.assert_close(trees.leaves(actual), trees.leaves(expected), rtol=20 * eps, atol=20 * eps)


def after_two_updates(optimizer, params):
    """A state in which averages and counts have begun."""
    state = optimizer.init(params)
    for count in range(2):
        params, state, _ = one_step(optimizer)(params, state, gradients(params, count))
    return params, state


@contract
def test_converges_on_a_quadratic(make):
    optimizer = make()
    target = make_params()
    params = trees.tree_map(lambda leaf: torch.full_like(leaf, 0.5), target)
    state = optimizer.init(params)
    start = sum(((params[name] - target[name]) ** 2).sum().item() for name in params)
    for _ in range(400):
        grads = {name: params[name] - target[name] for name in params}
        updates, state = optimizer.update(grads, state, params)
        params = optim.apply_updates(params, updates)
    params = optim.evaluation_params(state, params)
    # The slowest is Adadelta, whose first steps are tiny.
    assert sum(((params[name] - target[name]) ** 2).sum().item() for name in params) < 0.5 * start


@contract
@settings(max_examples=3)
@given(seed=st.integers(0, 1000))
def test_maximizing_is_minimizing_the_negative(make, seed):
    params = make_params(seed=seed)
    down, up = make(), make(maximize=True)
    down_state, up_state = down.init(params), up.init(params)
    for count in range(3):
        grads = gradients(params, seed + count)
        negative = trees.tree_map(torch.neg, grads)
        expected, down_state = down.update(negative, down_state, params)
        actual, up_state = up.update(grads, up_state, params)
        assert all(map(torch.equal, trees.leaves(actual), trees.leaves(expected)))
        params = optim.apply_updates(params, actual)


@contract
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_dtypes_shapes_and_structure_are_stable(make, dtype):
    optimizer, params = make(), make_params(dtype)
    state = optimizer.init(params)
    updates, new_state = optimizer.update(gradients(params, 0), state, params)
    new_params = optim.apply_updates(params, updates)
    for before, after in [(state, new_state), (params, updates), (params, new_params)]:
        assert trees.structure(before) == trees.structure(after)
        for old, new in zip(trees.leaves(before), trees.leaves(after)):
            assert (old.dtype, old.shape, old.device) == (new.dtype, new.shape, new.device)


@contract
def test_state_is_tensors_only_with_unique_names_and_int64_counts(make):
    state = make().init(make_params(torch.float32))
    for path, leaf in trees.leaves_with_paths(state):
        assert isinstance(leaf, torch.Tensor)
        assert not leaf.requires_grad
        if path.endswith("count"):
            assert (leaf.dtype, leaf.ndim) == (torch.int64, 0)
    for rate in optim.learning_rates(state):
        assert (rate.dtype, rate.ndim) == (torch.float64, 0)


@contract
def test_the_whole_state_lives_on_the_parameters_device(make):
    state = make().init({"matrix": torch.empty(2, 3, device="meta"), "bias": torch.empty(2, device="meta")})
    assert {leaf.device.type for leaf in trees.leaves(state)} == {"meta"}


@contract
def test_the_first_state_shares_no_memory_with_the_parameters(make):
    params = make_params()
    state = make().init(params)
    pointers = [leaf.data_ptr() for leaf in trees.leaves((params, state)) if leaf.numel()]
    assert len(set(pointers)) == len(pointers)


@contract
def test_inputs_are_not_changed(make):
    optimizer, params = make(), make_params()
    state, grads = optimizer.init(params), gradients(params, 0)
    before = [leaf.clone() for leaf in trees.leaves((params, state, grads))]
    updates, state_after = optimizer.update(grads, state, params)
    kept = [leaf.clone() for leaf in trees.leaves((updates, state_after))]
    new_params = optim.apply_updates(params, updates)
    optimizer.update(grads, state_after, new_params)
    assert all(map(torch.equal, before, trees.leaves((params, state, grads))))
    assert all(map(torch.equal, kept, trees.leaves((updates, state_after))))


@contract
def test_a_step_is_the_update_applied_and_changes_no_input(make, bits):
    optimizer = make()
    params, state = after_two_updates(optimizer, make_params(torch.float32))
    grads = gradients(params, 7)
    before = bits((params, state, grads))
    updates, expected_state = optimizer.update(grads, state, params)
    expected = optim.apply_updates(params, updates)
    assert bits(optim.step(optimizer, grads, state, params)) == bits((expected, expected_state))
    assert bits((params, state, grads)) == before


@contract
def test_an_update_from_one_state_gives_equal_bits_each_time(make):
    optimizer = make()
    params, state = after_two_updates(optimizer, make_params(torch.float32))
    grads = gradients(params, 7)
    once, again = (one_step(optimizer)(params, state, grads) for _ in range(2))
    assert all(map(torch.equal, trees.leaves(once), trees.leaves(again)))


@contract
def test_a_frozen_leaf_is_untouched_and_the_others_move_as_without_it(make):
    def is_free(path):
        return not path.startswith("wide")

    params = make_params()
    whole = optim.partition({"wide": optim.freeze(), "*": make()})
    free = {name: leaf for name, leaf in params.items() if is_free(name)}
    alone, state, alone_state = make(), whole.init(params), make().init(free)
    for count in range(3):
        grads = gradients(params, count)
        updates, state = whole.update(grads, state, params)
        expected, alone_state = alone.update({name: grads[name] for name in free}, alone_state, free)
        assert not updates["wide"].any()
        assert all(torch.equal(updates[name], expected[name]) for name in free)
        params, free = optim.apply_updates(params, updates), optim.apply_updates(free, expected)
    assert torch.equal(params["wide"], make_params()["wide"])


@contract
def test_an_empty_tree_works(make):
    if make is VARIANTS["partitioned"]:
        with pytest.raises(ValueError, match="matches no parameter"):
            make().init({})
        return
    optimizer = make()
    updates, state = optimizer.update({}, optimizer.init({}), {})
    assert updates == {}
    assert optim.apply_updates({}, updates) == {}
    assert trees.structure(state) == trees.structure(optimizer.init({}))


@contract
def test_traces_with_fake_tensors_and_the_graph_computes_the_same(make):
    optimizer = make()
    params, state = after_two_updates(optimizer, make_params(torch.float32))
    graph, _ = traced(one_step(optimizer), params, state, gradients(params, 0))
    for count in range(2, 5):
        grads = gradients(params, count)
        expected = one_step(optimizer)(params, state, grads)
        assert_equal_to_rounding(graph(params, state, grads), expected, rounding(state, torch.float32))
        params, state, _ = expected


@contract
def test_vmap_over_stacked_states_equals_a_loop(make):
    optimizer = make()
    members = []
    for seed in range(3):
        params, state = after_two_updates(optimizer, make_params(seed=seed))
        members.append((params, state, gradients(params, seed)))
    # By lists of leaves: to torch.vmap a None is a leaf, and no tensor.
    _, spec = trees.flatten(members[0])
    stacked = [torch.stack(column) for column in zip(*map(trees.leaves, members))]
    actual = torch.vmap(lambda *leaves: trees.leaves(one_step(optimizer)(*trees.unflatten(spec, leaves))))(*stacked)
    expected = [trees.leaves(one_step(optimizer)(*member)) for member in members]
    expected = [torch.stack(column) for column in zip(*expected)]
    assert_equal_to_rounding(actual, expected, rounding(members[0][1]))


@contract
def test_gradients_of_another_structure_are_refused(make):
    optimizer, params = make(), {"matrix": torch.ones(2, 2), "bias": torch.ones(1)}
    with pytest.raises(ValueError, match="must have the tree structure of"):
        one_step(optimizer)(params, optimizer.init(params), {"matrix": torch.ones(2, 2), "v": torch.ones(1)})


@pytest.mark.parametrize("name", ["sgd", "adamw", "muon"])
def test_compiles_to_one_graph_without_recompiling_for_later_steps(name):
    optimizer = VARIANTS[name]()
    params = {name: leaf for name, leaf in make_params(torch.float32).items() if name in ("matrix", "scalar")}
    state, grads = optimizer.init(params), gradients(params, 0)
    torch._dynamo.reset()
    compiled = torch.compile(one_step(optimizer), fullgraph=True, backend="aot_eager")
    with torch._dynamo.config.patch(error_on_recompile=True):
        for _ in range(3):
            actual = compiled(params, state, grads)
            params, state, _ = expected = one_step(optimizer)(params, state, grads)
            # Compiled, a foreach operator becomes one operator per leaf, which may round once more or less.
            assert_equal_to_rounding(actual, expected, rounding(state, torch.float32))


@pytest.mark.parametrize("name", [name for name in optim.REGISTRY if accepts(name, "weight_decay")])
def test_the_states_structure_does_not_depend_on_the_value_of_weight_decay(name):
    params = make_params()
    structures = {trees.structure(optim.REGISTRY[name](0.1, weight_decay=decay).init(params)) for decay in (0.2, 0.1)}
    assert len(structures) == 1


@pytest.mark.parametrize("name", [name for name in optim.REGISTRY if accepts(name, "weight_decay_mask")])
def test_a_weight_decay_mask_spares_the_chosen_parameters(name):
    params = make_params()
    zeros = trees.tree_map(torch.zeros_like, params)
    optimizer = optim.REGISTRY[name](0.1, weight_decay=0.5, weight_decay_mask=optim.no_decay_1d)
    updates, _ = optimizer.update(zeros, optimizer.init(params), params)
    assert (updates["matrix"] * params["matrix"] < 0).all()
    assert not updates["bias"].any()
    assert not updates["scalar"].any()


@pytest.mark.parametrize("name", optim.REGISTRY)
@pytest.mark.parametrize("dtype", [torch.int64, torch.complex64])
def test_parameters_that_are_not_real_floats_are_refused_with_their_path(name, dtype):
    if name == "sgd":
        return  # without momentum it has no state; the rest of functrain refuses such parameters before
    with pytest.raises(TypeError, match=f"parameter 'a/0' is {dtype}"):
        optim.REGISTRY[name]().init({"a": (torch.zeros(2, dtype=dtype),)})
