"""Every optimizer against torch.optim, over the configurations that torch tests its own optimizers with."""

import inspect
import re
import sys
import types
import unittest
import warnings
from pathlib import Path

import pytest
import torch
from optim_helpers import SHAPES, gradients, make_params, run, run_torch

from functrain import optim
from functrain.foundation import trees
from functrain.optim import schedules

STEPS = 50


def torch_configurations(device="cpu"):
    """(class, kwargs, description) of torch's own test suite."""
    if "expecttest" not in sys.modules:  # of which the import of the table needs no more than this name
        sys.modules["expecttest"] = types.SimpleNamespace(TestCase=unittest.TestCase)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from torch.testing._internal.common_optimizers import optim_db
    # That import forbids this whole process to set a flag such as torch.backends.cudnn.deterministic.
    torch.backends.flags_frozen.__globals__["__allow_nonbracketed_mutation_flag"] = True
    return [
        (info.optim_cls, config.kwargs, config.desc)
        for info in optim_db
        for config in info.optim_inputs_func(device=device)
    ]


CONFIGURATIONS = torch_configurations()
OURS = {name.replace("_", ""): make for name, make in optim.REGISTRY.items()}
# No counterpart: LBFGS evaluates the loss many times an update, SparseAdam takes sparse gradients.
WITHOUT = {torch.optim.LBFGS, torch.optim.SparseAdam}
OF_IMPLEMENTATION = {"foreach", "fused", "capturable", "differentiable"}
MATCHED = [entry for entry in CONFIGURATIONS if entry[0] not in WITHOUT]


def as_numbers(kwargs):
    """A tensor for a learning rate is a number to us: ours is a tensor in the state anyway."""
    return {key: value.item() if isinstance(value, torch.Tensor) else value for key, value in kwargs.items()}


def shapes_for(reference):
    matrices = {name: shape for name, shape in SHAPES.items() if len(shape) == 2 and 0 not in shape}
    # torch.optim.Muon takes matrices only, torch.optim.Adafactor divides by the size of a leaf.
    special = {torch.optim.Muon: matrices, torch.optim.Adafactor: {n: s for n, s in SHAPES.items() if 0 not in s}}
    return special.get(reference, SHAPES)


def assert_parity(actual, expected):
    # Of steps of order lr: a parameter that comes near 0 keeps the roundings of those that led to it.
    torch.testing.assert_close(actual, expected, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize(
    ("reference", "kwargs"), [entry[:2] for entry in MATCHED], ids=[f"{e[0].__name__}-{e[2]}" for e in MATCHED]
)
def test_fifty_steps_equal_torch_optim(reference, kwargs):
    params = make_params(shapes=shapes_for(reference))
    # In float32, the dtype of torch's table, torch.optim.Muon would round 1 - lr * weight_decay to it.
    kwargs = {key: value.double() if isinstance(value, torch.Tensor) else value for key, value in kwargs.items()}
    actual, _ = run(OURS[reference.__name__.lower()](**as_numbers(kwargs)), params, STEPS)
    assert_parity(actual, run_torch(lambda leaves: reference(leaves, **kwargs), params, STEPS))


def table():
    """What docs/optim.md says of each class: its configurations, how many are matched, and why the others are not."""
    found = {}
    for cls in dict.fromkeys(entry[0] for entry in CONFIGURATIONS):
        own = [entry for entry in CONFIGURATIONS if entry[0] is cls]
        found[cls.__name__] = (len(own), 0 if cls in WITHOUT else len(own))
    return found


def test_the_documents_table_of_torchs_configurations_is_that_of_torch_itself():
    text = (Path(__file__).parents[2] / "docs" / "optim.md").read_text()
    documented = re.search(r"`torch\.testing\._internal\.common_optimizers\.optim_db` of torch\s+(\d+\.\d+)", text)
    if not torch.__version__.startswith(documented[1] + "."):
        pytest.skip(f"the table is of torch {documented[1]}")
    rows = re.findall(r"^\| (\w+) \| (\d+) \| (\d+) \| (.*) \|$", text, re.MULTILINE)
    assert {name: (int(own), int(matched)) for name, own, matched, _ in rows} == table()
    assert {name for name, _, _, why in rows if why.strip()} == {cls.__name__ for cls in WITHOUT}


def test_every_configuration_is_matched_but_for_two_optimizers():
    assert {entry[0] for entry in CONFIGURATIONS} >= WITHOUT
    assert all(entry[0].__name__.lower() in OURS for entry in MATCHED)
    assert len(MATCHED) > 80


def test_configurations_that_torch_adds_for_an_accelerator_have_no_argument_of_their_own():
    accepted = {name: inspect.signature(make).parameters for name, make in OURS.items()}
    for reference, kwargs, _ in torch_configurations("cuda"):
        if reference not in WITHOUT:
            assert kwargs.keys() - OF_IMPLEMENTATION <= accepted[reference.__name__.lower()].keys()


MORE = [
    (torch.optim.SGD, {"lr": 0.1, "momentum": 0.9, "dampening": 0.4, "weight_decay": 0.1}),
    (torch.optim.SGD, {"lr": 0.01, "momentum": 0.8, "dampening": 0.2, "maximize": True}),
    (torch.optim.Adam, {"lr": 0.1, "betas": (0.5, 0.7), "eps": 1e-3}),
    (torch.optim.Adam, {"lr": 0.1, "betas": (0.0, 0.0), "eps": 1e-2}),
    (torch.optim.Adam, {"lr": 0.1, "weight_decay": 0.2, "decoupled_weight_decay": True}),
    (torch.optim.AdamW, {"lr": 0.1, "weight_decay": 0.5, "amsgrad": True, "maximize": True}),
    (torch.optim.AdamW, {"lr": 0.1, "betas": (0.8, 0.9), "eps": 1e-4, "weight_decay": 0.0}),
    (torch.optim.RAdam, {"lr": 0.1, "betas": (0.9, 0.8)}),
    (torch.optim.RAdam, {"lr": 0.1, "betas": (0.9, 0.5)}),
    (torch.optim.Adafactor, {"lr": 0.5, "weight_decay": 0.3, "eps": (1e-6, 0.1)}),
    (torch.optim.Muon, {"lr": 0.1, "nesterov": False, "adjust_lr_fn": "match_rms_adamw"}),
    (torch.optim.ASGD, {"lr": 0.1, "lambd": 0.3, "alpha": 0.5, "t0": 20, "weight_decay": 0.1, "maximize": True}),
    (torch.optim.Rprop, {"lr": 0.1, "etas": (0.3, 1.7), "step_sizes": (1e-3, 0.2)}),
]


@pytest.mark.parametrize(("reference", "kwargs"), MORE)
def test_more_configurations_equal_torch_optim(reference, kwargs):
    test_fifty_steps_equal_torch_optim(reference, kwargs)


@pytest.mark.parametrize("reference", sorted({entry[0] for entry in MATCHED}, key=lambda cls: cls.__name__))
def test_names_order_and_defaults_of_arguments_are_torchs(reference):
    ours = inspect.signature(OURS[reference.__name__.lower()]).parameters
    theirs = inspect.signature(reference).parameters
    shared = [name for name in ours if name in theirs]
    assert shared == [name for name in theirs if name not in {"params"} | OF_IMPLEMENTATION]
    assert [ours[name].default for name in shared] == [theirs[name].default for name in shared]


def test_adamw_with_a_cosine_schedule_equals_torch_with_its_scheduler():
    params, state = run(optim.adamw(schedules.cosine(0.1, STEPS, end=0.01)), make_params(), STEPS)
    expected = run_torch(
        lambda leaves: torch.optim.AdamW(leaves, lr=0.1),
        make_params(),
        STEPS,
        lambda reference: torch.optim.lr_scheduler.CosineAnnealingLR(reference, T_max=STEPS, eta_min=0.01),
    )
    assert_parity(params, expected)
    assert optim.learning_rate(state).item() == schedules.cosine(0.1, STEPS, end=0.01)(STEPS - 1)


@pytest.mark.parametrize("name", ["sgd", "adam"])
def test_one_cycle_of_rate_and_momentum_equals_torch_with_its_scheduler(name):
    rate = schedules.one_cycle(0.1, STEPS + 1)
    momentum = schedules.one_cycle_momentum(0.85, 0.95, STEPS + 1)
    if name == "sgd":
        ours, make = optim.sgd(rate, momentum), lambda leaves: torch.optim.SGD(leaves, momentum=0.9)
    else:
        ours, make = optim.adam(rate, (momentum, 0.999)), torch.optim.Adam
    params, _ = run(ours, make_params(), STEPS)
    expected = run_torch(
        make,
        make_params(),
        STEPS,
        lambda reference: torch.optim.lr_scheduler.OneCycleLR(reference, 0.1, total_steps=STEPS + 1),
    )
    assert_parity(params, expected)


@pytest.mark.parametrize("t0", [0, 20, 1e6])
def test_parameters_to_evaluate_asgd_with_are_torchs_averages(t0):
    kept = []

    def make(leaves):
        kept.append(torch.optim.ASGD(leaves, 0.1, lambd=0.1, t0=t0))
        return kept[0]

    params, state = run(optim.asgd(0.1, lambd=0.1, t0=t0), make_params(), STEPS)
    names = list(run_torch(make, make_params(), STEPS))
    averages = [slot["ax"] for slot in kept[0].state.values()]
    assert_parity(optim.evaluation_params(state, params), dict(zip(names, averages, strict=True)))
    assert all(map(torch.equal, trees.leaves(params), trees.leaves(state[-1].ax))) == (t0 > STEPS)


def test_before_its_first_update_asgd_is_evaluated_at_its_parameters():
    params = make_params()
    averages = optim.evaluation_params(optim.asgd().init(params), params)
    assert all(map(torch.equal, averages.values(), params.values()))


def test_lion_equals_algorithm_2_of_its_paper():
    lr, beta1, beta2, weight_decay = 0.01, 0.8, 0.95, 0.3
    expected = make_params()
    momentum = {name: torch.zeros_like(leaf) for name, leaf in expected.items()}
    for count in range(STEPS):
        for name, grad in gradients(expected, count).items():
            step = torch.sign(beta1 * momentum[name] + (1 - beta1) * grad) + weight_decay * expected[name]
            momentum[name] = beta2 * momentum[name] + (1 - beta2) * grad
            expected[name] = expected[name] - lr * step
    params, _ = run(optim.lion(lr, betas=(beta1, beta2), weight_decay=weight_decay), make_params(), STEPS)
    assert_parity(params, expected)


def test_lamb_equals_algorithm_2_of_its_paper():
    lr, (beta1, beta2), eps, weight_decay = 0.05, (0.8, 0.95), 1e-6, 0.1
    expected = make_params()
    m = {name: torch.zeros_like(leaf) for name, leaf in expected.items()}
    v = {name: torch.zeros_like(leaf) for name, leaf in expected.items()}
    for count in range(STEPS):
        for name, grad in gradients(expected, count).items():
            m[name] = beta1 * m[name] + (1 - beta1) * grad
            v[name] = beta2 * v[name] + (1 - beta2) * grad**2
            m_hat, v_hat = m[name] / (1 - beta1 ** (count + 1)), v[name] / (1 - beta2 ** (count + 1))
            step = m_hat / (v_hat.sqrt() + eps) + weight_decay * expected[name]
            if step.numel():
                step = expected[name].norm() / step.norm() * step
            expected[name] = expected[name] - lr * step
    params, _ = run(optim.lamb(lr, (beta1, beta2), eps, weight_decay), make_params(), STEPS)
    assert_parity(params, expected)


@pytest.mark.parametrize("adaptive", [False, True])
def test_schedule_free_optimizers_equal_the_three_sequences_of_their_paper(adaptive):
    """With x kept, where the code derives it: equations 3 to 5, weights and warmup as in section 4.3."""
    lr, beta, beta2, eps, decay, warmup, r, power = 0.1, 0.8, 0.95, 1e-8, 0.1, 7, 0.5, 2.0
    x, z = make_params(), make_params()
    v = {name: torch.zeros_like(leaf) for name, leaf in x.items()}
    weight_sum = 0.0
    for count in range(STEPS):
        y = {name: (1 - beta) * z[name] + beta * x[name] for name in x}
        step = lr * min(1.0, (count + 1) / warmup)
        weight = (count + 1) ** r * step**power
        weight_sum += weight
        for name, grad in gradients(y, count).items():
            direction = grad
            if adaptive:
                v[name] = beta2 * v[name] + (1 - beta2) * grad**2
                direction = grad / ((v[name] / (1 - beta2 ** (count + 1))).sqrt() + eps)
            z[name] = z[name] - step * (direction + decay * y[name])
            x[name] = x[name] + weight / weight_sum * (z[name] - x[name])
    options = {"weight_decay": decay, "warmup_steps": warmup, "r": r, "weight_lr_power": power}
    if adaptive:
        optimizer = optim.schedule_free_adamw(lr, (beta, beta2), eps, **options)
    else:
        optimizer = optim.schedule_free_sgd(lr, beta, **options)
    params, state = run(optimizer, make_params(), STEPS)
    assert_parity(params, {name: (1 - beta) * z[name] + beta * x[name] for name in x})
    assert_parity(optim.evaluation_params(state, params), x)
