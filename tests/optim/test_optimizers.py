"""Every optimizer against an independent reference, and the contract each keeps."""

import inspect

import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx

from functrain import optim
from functrain.foundation import trees
from functrain.optim import schedules

SHAPES = {"matrix": (5, 3), "bias": (7,), "scalar": (), "one": (1, 1, 1), "empty": (0, 4)}
STEPS = 100


def make_params(dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    return {name: torch.randn(shape, generator=generator, dtype=dtype) for name, shape in SHAPES.items()}


def gradients(params, count):
    """Noise that depends on the step, and a pull that depends on the parameters."""
    generator = torch.Generator().manual_seed(count)
    return {
        name: torch.randn(leaf.shape, generator=generator, dtype=leaf.dtype) + 0.1 * leaf
        for name, leaf in params.items()
    }


def run(optimizer, params, steps=STEPS):
    state = optimizer.init(params)
    for count in range(steps):
        updates, state = optimizer.update(gradients(params, count), state, params)
        params = optim.apply_updates(params, updates)
    return params, state


def run_torch(make, params, make_scheduler=None, steps=STEPS):
    params = {name: leaf.clone().requires_grad_() for name, leaf in params.items()}
    reference = make(list(params.values()))
    scheduler = make_scheduler(reference) if make_scheduler else None
    for count in range(steps):
        for leaf, grad in zip(params.values(), gradients(params, count).values()):
            leaf.grad = grad.detach()
        reference.step()
        if scheduler:
            scheduler.step()
    return {name: leaf.detach() for name, leaf in params.items()}


def assert_equal_in_float64(actual, expected):
    # 100 steps of about ten roundings of 1.1e-16 each, relative to parameters of order 1.
    torch.testing.assert_close(actual, expected, rtol=1e-12, atol=1e-13)


PARITY = [
    ("sgd", torch.optim.SGD, {}),
    ("sgd", torch.optim.SGD, {"lr": 0.1}),
    ("sgd", torch.optim.SGD, {"lr": 0.1, "weight_decay": 0.3}),
    ("sgd", torch.optim.SGD, {"lr": 0.1, "momentum": 0.9}),
    ("sgd", torch.optim.SGD, {"lr": 0.1, "momentum": 0.9, "dampening": 0.4, "weight_decay": 0.1}),
    ("sgd", torch.optim.SGD, {"lr": 0.1, "momentum": 0.8, "nesterov": True, "weight_decay": 0.1}),
    ("sgd", torch.optim.SGD, {"lr": 0.01, "momentum": 0.8, "dampening": 0.2, "maximize": True}),
    ("adam", torch.optim.Adam, {}),
    ("adam", torch.optim.Adam, {"lr": 0.1, "weight_decay": 0.2}),
    ("adam", torch.optim.Adam, {"lr": 0.1, "betas": (0.5, 0.7), "eps": 1e-3}),
    ("adam", torch.optim.Adam, {"lr": 0.1, "betas": (0.0, 0.0), "eps": 1e-2}),
    ("adam", torch.optim.Adam, {"lr": 0.01, "maximize": True, "weight_decay": 0.1}),
    ("adamw", torch.optim.AdamW, {}),
    ("adamw", torch.optim.AdamW, {"lr": 0.1, "weight_decay": 0.5}),
    ("adamw", torch.optim.AdamW, {"lr": 0.1, "betas": (0.8, 0.9), "eps": 1e-4, "weight_decay": 0.0}),
    ("adamw", torch.optim.AdamW, {"lr": 0.01, "maximize": True}),
]


@pytest.mark.parametrize(("name", "reference", "kwargs"), PARITY)
def test_a_hundred_steps_equal_torch_optim(name, reference, kwargs):
    params, _ = run(optim.REGISTRY[name](**kwargs), make_params())
    assert_equal_in_float64(params, run_torch(lambda leaves: reference(leaves, **kwargs), make_params()))


@pytest.mark.parametrize(
    ("name", "reference"),
    [("sgd", torch.optim.SGD), ("adam", torch.optim.Adam), ("adamw", torch.optim.AdamW)],
)
def test_names_order_and_defaults_of_arguments_are_torchs(name, reference):
    ours = inspect.signature(optim.REGISTRY[name]).parameters
    theirs = inspect.signature(reference).parameters
    shared = [parameter for parameter in ours if parameter != "weight_decay_mask"]
    assert [(p, ours[p].default) for p in shared] == [(p, theirs[p].default) for p in shared]


def test_adamw_with_a_cosine_schedule_equals_torch_with_its_scheduler():
    params, state = run(optim.adamw(schedules.cosine(0.1, STEPS, end=0.01)), make_params())
    expected = run_torch(
        lambda leaves: torch.optim.AdamW(leaves, lr=0.1),
        make_params(),
        lambda reference: torch.optim.lr_scheduler.CosineAnnealingLR(reference, T_max=STEPS, eta_min=0.01),
    )
    assert_equal_in_float64(params, expected)
    assert optim.learning_rate(state).item() == schedules.cosine(0.1, STEPS, end=0.01)(STEPS - 1)


def test_sgd_with_a_step_schedule_equals_torch_with_its_scheduler():
    params, _ = run(optim.sgd(schedules.step(0.1, 30), momentum=0.9), make_params())
    expected = run_torch(
        lambda leaves: torch.optim.SGD(leaves, lr=0.1, momentum=0.9),
        make_params(),
        lambda reference: torch.optim.lr_scheduler.StepLR(reference, step_size=30),
    )
    assert_equal_in_float64(params, expected)


@pytest.mark.parametrize("weight_decay", [0.0, 0.3])
def test_lion_equals_algorithm_2_of_its_paper(weight_decay):
    lr, beta1, beta2 = 0.01, 0.8, 0.95
    expected = make_params()
    momentum = {name: torch.zeros_like(leaf) for name, leaf in expected.items()}
    for count in range(STEPS):
        for name, grad in gradients(expected, count).items():
            step = torch.sign(beta1 * momentum[name] + (1 - beta1) * grad) + weight_decay * expected[name]
            momentum[name] = beta2 * momentum[name] + (1 - beta2) * grad
            expected[name] = expected[name] - lr * step
    params, _ = run(optim.lion(lr, betas=(beta1, beta2), weight_decay=weight_decay), make_params())
    assert_equal_in_float64(params, expected)


# The contract: a new optimizer inherits these tests by its line in REGISTRY.

VARIANTS = {
    **{name: (lambda name=name, **kw: optim.REGISTRY[name](0.05, **kw)) for name in optim.REGISTRY},
    **{
        f"{name}-scheduled-masked": (
            lambda name=name, **kw: optim.REGISTRY[name](
                schedules.cosine(0.05, 1000, warmup_steps=3),
                weight_decay=0.01,
                weight_decay_mask=optim.no_decay_1d,
                **kw,
            )
        )
        for name in optim.REGISTRY
    },
    "sgd-momentum": lambda **kw: optim.sgd(0.05, momentum=0.9, dampening=0.1, **kw),
    "clipped": lambda **kw: optim.chain(
        optim.clip_by_global_norm(1.0), optim.clip_by_value(0.5), optim.adamw(0.05, **kw)
    ),
}
contract = pytest.mark.parametrize("make", VARIANTS.values(), ids=VARIANTS.keys())


@contract
def test_converges_on_a_quadratic(make):
    optimizer = make()
    target = make_params()
    params = trees.tree_map(torch.zeros_like, target)
    state = optimizer.init(params)
    for _ in range(400):
        grads = {name: params[name] - target[name] for name in params}
        updates, state = optimizer.update(grads, state, params)
        params = optim.apply_updates(params, updates)
    for name in params:
        # The weakest goal: lion without a schedule ends in steps of lr = 0.05 about the target.
        torch.testing.assert_close(params[name], target[name], rtol=0.05, atol=0.11)


@contract
def test_maximize_climbs_where_the_default_descends(make):
    params = {"w": torch.ones(2, 2)}
    grads = {"w": torch.full((2, 2), 100.0)}  # no decay outweighs it
    for maximize, sign in [(False, -1.0), (True, 1.0)]:
        optimizer = make(maximize=maximize)
        state = optimizer.init(params)
        for _ in range(2):  # the first update of a warmup from 0 is 0
            updates, state = optimizer.update(grads, state, params)
        assert torch.equal(updates["w"].sign(), torch.full((2, 2), sign))


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
def test_state_is_tensors_only_with_int64_counts_and_a_float64_learning_rate(make):
    state = make().init(make_params(torch.float32))
    for path, leaf in trees.leaves_with_paths(state):
        assert isinstance(leaf, torch.Tensor)
        assert not leaf.requires_grad
        if path.endswith("count"):
            assert (leaf.dtype, leaf.ndim) == (torch.int64, 0)
    assert (optim.learning_rate(state).dtype, optim.learning_rate(state).ndim) == (torch.float64, 0)


@contract
def test_inputs_are_not_changed(make):
    optimizer, params = make(), make_params()
    state, grads = optimizer.init(params), gradients(params, 0)
    before = [leaf.clone() for leaf in trees.leaves((params, state, grads))]
    updates, state_after = optimizer.update(grads, state, params)
    optim.apply_updates(params, updates)
    optimizer.update(grads, state_after, params)
    assert all(map(torch.equal, before, trees.leaves((params, state, grads))))


@contract
def test_an_empty_tree_works(make):
    optimizer = make()
    updates, state = optimizer.update({}, optimizer.init({}), {})
    assert updates == {}
    assert optim.apply_updates({}, updates) == {}
    assert trees.structure(state) == trees.structure(optimizer.init({}))


def one_step(optimizer):
    def step(params, state, grads):
        updates, new_state = optimizer.update(grads, state, params)
        return optim.apply_updates(params, updates), new_state, optim.learning_rate(new_state)

    return step


@contract
def test_traces_with_fake_tensors_and_the_graph_computes_the_same(make):
    optimizer, params = make(), make_params(torch.float32)
    state, grads = optimizer.init(params), gradients(params, 0)
    graph = make_fx(one_step(optimizer), tracing_mode="fake")(params, state, grads)
    assert "item" not in graph.code.replace("getitem", "")
    for _ in range(3):
        expected = one_step(optimizer)(params, state, grads)
        actual = graph(params, state, grads)
        torch.testing.assert_close(trees.leaves(actual), trees.leaves(expected), rtol=0, atol=0)
        params, state, _ = expected


@contract
def test_compiles_to_one_graph_without_recompiling_for_later_steps(make):
    optimizer, params = make(), make_params(torch.float32)
    params = {name: params[name] for name in ("matrix", "scalar")}  # compiling takes its time for each leaf
    state, grads = optimizer.init(params), gradients(params, 0)
    torch._dynamo.reset()
    compiled = torch.compile(one_step(optimizer), fullgraph=True, backend="aot_eager")
    with torch._dynamo.config.patch(error_on_recompile=True):
        for _ in range(3):
            actual = compiled(params, state, grads)
            params, state, _ = expected = one_step(optimizer)(params, state, grads)
            # Compiled, a foreach operator becomes one operator per leaf, which may round once more or less.
            torch.testing.assert_close(
                trees.leaves(actual),
                trees.leaves(expected),
                rtol=4 * torch.finfo(torch.float32).eps,
                atol=1e-7,
            )


@contract
def test_vmap_over_stacked_states_equals_a_loop(make):
    optimizer = make()
    members = []
    for seed in range(3):
        params = trees.tree_map(lambda leaf, seed=seed: leaf + seed, make_params())
        members.append((params, optimizer.init(params), gradients(params, seed)))
    members = [(params, one_step(optimizer)(params, state, g)[1], g) for params, state, g in members]
    stacked = trees.tree_map(lambda *leaves: torch.stack(leaves), *members)
    actual = torch.vmap(one_step(optimizer))(*stacked)
    expected = [one_step(optimizer)(*member) for member in members]
    assert_equal_in_float64(
        trees.leaves(actual), trees.leaves(trees.tree_map(lambda *leaves: torch.stack(leaves), *expected))
    )


def test_a_constant_learning_rate_is_read_from_the_state_so_vmap_can_sweep_it():
    optimizer, params = optim.adamw(1.0), make_params()
    rates = [0.0, 0.1, 0.7]
    grads = gradients(params, 0)

    def step(rate):
        state = optimizer.init(params)
        state = (*state[:-1], optim.LearningRateState(count=state[-1].count, lr=rate))
        return optim.apply_updates(params, optimizer.update(grads, state, params)[0])

    swept = torch.vmap(step)(torch.tensor(rates, dtype=torch.float64))
    for index, rate in enumerate(rates):
        own = optim.adamw(rate)
        expected = optim.apply_updates(params, own.update(grads, own.init(params), params)[0])
        assert_equal_in_float64({name: leaf[index] for name, leaf in swept.items()}, expected)


@pytest.mark.parametrize("name", optim.REGISTRY)
def test_the_states_structure_does_not_depend_on_weight_decay(name):
    params = make_params()
    structures = {trees.structure(optim.REGISTRY[name](0.1, weight_decay=decay).init(params)) for decay in (0.0, 0.1)}
    assert len(structures) == 1


def test_a_weight_decay_mask_spares_the_chosen_parameters():
    params = make_params()
    zeros = trees.tree_map(torch.zeros_like, params)
    optimizer = optim.adamw(0.1, weight_decay=0.5, weight_decay_mask=optim.no_decay_1d)
    updates, _ = optimizer.update(zeros, optimizer.init(params), params)
    torch.testing.assert_close(updates["matrix"], -0.05 * params["matrix"])
    assert torch.equal(updates["bias"], zeros["bias"])
    assert torch.equal(updates["scalar"], zeros["scalar"])


REFUSED = [
    ({"lr": -0.1}, ValueError, r"lr must be a finite number >= 0, got -0.1"),
    ({"lr": float("nan")}, ValueError, "lr must be a finite number"),
    ({"lr": "fast"}, TypeError, "lr must be a number or a schedule .* got 'fast'"),
    ({"lr": torch.tensor(0.1)}, TypeError, "lr must be a number or a schedule"),
    ({"lr": True}, TypeError, "lr must be a number or a schedule"),
    ({"weight_decay": -1.0}, ValueError, "weight_decay must be a finite number >= 0"),
    ({"betas": (0.9, 1.0)}, ValueError, r"betas\[1\] must be in \[0, 1\), got 1.0"),
    ({"betas": 0.9}, ValueError, r"betas must be a pair of numbers in \[0, 1\), got 0.9"),
    ({"betas": ("a", 0.9)}, TypeError, r"betas\[0\] must be a number, got 'a'"),
    ({"eps": -1e-8}, ValueError, "eps must be a finite number >= 0"),
    ({"momentum": -0.5}, ValueError, "momentum must be a finite number >= 0"),
    ({"dampening": -0.5}, ValueError, "dampening must be a finite number >= 0"),
    (
        {"nesterov": True},
        ValueError,
        "nesterov=True needs momentum > 0 and dampening = 0, got momentum=0.0",
    ),
]


@pytest.mark.parametrize(
    ("name", "kwargs", "error", "message"),
    [
        (name, *refused)
        for name in optim.REGISTRY
        for refused in REFUSED
        if set(refused[0]) <= set(inspect.signature(optim.REGISTRY[name]).parameters)
    ],
)
def test_bad_arguments_are_refused_by_name(name, kwargs, error, message):
    with pytest.raises(error, match=message):
        optim.REGISTRY[name](**kwargs)


@pytest.mark.parametrize("name", ["adam", "adamw", "lion"])
@pytest.mark.parametrize("dtype", [torch.int64, torch.complex64])
def test_parameters_that_are_not_real_floats_are_refused_with_their_path(name, dtype):
    with pytest.raises(TypeError, match=f"parameter 'a/0' is {dtype}"):
        optim.REGISTRY[name]().init({"a": (torch.zeros(2, dtype=dtype),)})


def test_any_pytree_of_parameters_is_trained():
    params = ({"a": torch.ones(2)}, [torch.ones(()), None])
    optimizer = optim.adamw(0.1, weight_decay=0.0)
    updates, _ = optimizer.update(params, optimizer.init(params), params)
    torch.testing.assert_close(updates, ({"a": torch.full((2,), -0.1)}, [torch.tensor(-0.1), None]))
