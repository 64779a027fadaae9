"""What a configuration can name; the contract tests run over it."""

from collections.abc import Callable, Mapping

from functrain.optim.adafactor import adafactor
from functrain.optim.adagrad import adadelta, adagrad
from functrain.optim.adam import adam, adamw
from functrain.optim.adamax import adamax
from functrain.optim.asgd import asgd
from functrain.optim.base import Optimizer
from functrain.optim.lamb import lamb
from functrain.optim.lion import lion
from functrain.optim.muon import muon
from functrain.optim.nadam import nadam
from functrain.optim.radam import radam
from functrain.optim.rmsprop import rmsprop
from functrain.optim.rprop import rprop
from functrain.optim.schedule_free import schedule_free_adamw, schedule_free_sgd
from functrain.optim.sgd import sgd

REGISTRY: Mapping[str, Callable[..., Optimizer]] = {
    "sgd": sgd,
    "adam": adam,
    "adamw": adamw,
    "nadam": nadam,
    "radam": radam,
    "adamax": adamax,
    "adagrad": adagrad,
    "asgd": asgd,
    "adadelta": adadelta,
    "rmsprop": rmsprop,
    "rprop": rprop,
    "lion": lion,
    "lamb": lamb,
    "adafactor": adafactor,
    "muon": muon,
    "schedule_free_sgd": schedule_free_sgd,
    "schedule_free_adamw": schedule_free_adamw,
}
