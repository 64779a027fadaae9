"""What every optimizer of the registry refuses, and what it says then."""

import pytest
import torch
from optim_helpers import accepts

from functrain import optim
from functrain.optim import schedules

REFUSED = [
    ({"lr": -0.1}, ValueError, r"lr must be a finite number >= 0, got -0.1"),
    ({"lr": float("nan")}, ValueError, "lr must be a finite number"),
    ({"lr": "fast"}, TypeError, "lr must be a number.* got 'fast'"),
    ({"lr": torch.tensor(0.1)}, TypeError, "lr must be a number"),
    ({"lr": True}, TypeError, "lr must be a number"),
    ({"weight_decay": -1.0}, ValueError, "weight_decay must be a finite number >= 0"),
    ({"betas": (0.9, 1.0)}, ValueError, r"betas\[1\] must be in \[0, 1\), got 1.0"),
    ({"betas": 0.9}, ValueError, r"betas must be a pair of numbers in \[0, 1\), got 0.9"),
    ({"betas": ("a", 0.9)}, TypeError, r"betas\[0\] must be a number, got 'a'"),
    ({"momentum": -0.5}, ValueError, "momentum must be"),
    ({"dampening": -0.5}, ValueError, "dampening must be a finite number >= 0"),
    ({"nesterov": True, "dampening": 0.0}, ValueError, "nesterov=True needs momentum > 0 .* got momentum=0.0"),
    ({"etas": (1.2, 0.5)}, ValueError, "etas must be a factor below 1 and one above"),
    ({"step_sizes": (1.0, 0.5)}, ValueError, "step_sizes must be the smallest and the largest"),
    ({"etas": (0.5, 1.2), "lr": schedules.constant(1.0)}, TypeError, "rprop finds its own"),
    ({"etas": 0.5}, ValueError, "etas must be a factor below 1 and one above 1, got 0.5"),
    ({"step_sizes": (1.0,)}, ValueError, r"step_sizes must be the smallest and the largest step, got \(1.0,\)"),
    ({"d": 1.0, "eps": 1e-8}, ValueError, "eps must be a pair of numbers >= 0, .* got 1e-08"),
    ({"d": 1.0, "eps": (None, None)}, TypeError, r"eps\[1\] must be a number, got None"),
    ({"beta2_decay": "-0.8"}, TypeError, "beta2_decay must be a number, got '-0.8'"),
    ({"beta2_decay": 0.5}, ValueError, "beta2_decay must be <= 0"),
    ({"d": 0.0}, ValueError, "d must be a finite number > 0"),
    ({"rho": 1.0}, ValueError, r"rho must be in \[0, 1\)"),
    ({"alpha": 1.0, "centered": False}, ValueError, r"alpha must be in \[0, 1\)"),
    ({"alpha": -1.0, "lambd": 0.0}, ValueError, "alpha must be a finite number >= 0"),
    ({"lambd": -1.0}, ValueError, "lambd must be a finite number >= 0"),
    ({"t0": -1.0}, ValueError, "t0 must be a finite number >= 0"),
    ({"lr_decay": -1.0}, ValueError, "lr_decay must be a finite number >= 0"),
    ({"ns_steps": 0}, ValueError, "ns_steps must be >= 1"),
    ({"ns_coefficients": (1.0,)}, ValueError, "ns_coefficients must be three numbers"),
    ({"ns_coefficients": 3.0}, ValueError, "ns_coefficients must be three numbers, got 3.0"),
    ({"ns_coefficients": (1, 2, "a")}, TypeError, r"ns_coefficients\[2\] must be a number, got 'a'"),
    ({"adjust_lr_fn": "mine"}, ValueError, "adjust_lr_fn must be one of 'original', 'match_rms_adamw'"),
    ({"warmup_steps": -1}, ValueError, "warmup_steps must be >= 0"),
]


@pytest.mark.parametrize(
    ("name", "kwargs", "error", "message"),
    [(name, *refused) for name in optim.REGISTRY for refused in REFUSED if all(accepts(name, k) for k in refused[0])],
)
def test_bad_arguments_are_refused_by_name(name, kwargs, error, message):
    with pytest.raises(error, match=message):
        optim.REGISTRY[name](**kwargs)


@pytest.mark.parametrize("name", [name for name in optim.REGISTRY if accepts(name, "eps")])
def test_a_negative_eps_is_refused(name):
    eps = (-1e-8, 1e-3) if name == "adafactor" else -1e-8
    with pytest.raises(ValueError, match=r"eps.* must be a finite number >= 0"):
        optim.REGISTRY[name](eps=eps)
