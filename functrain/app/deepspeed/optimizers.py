"""The section `optimizer`."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from functrain.app.config.catalogue import functions
from functrain.app.config.wording import shown
from functrain.app.deepspeed.translation import AUTO, At, Translation


class Counterpart(NamedTuple):
    """An optimizer here that makes the same updates.

    Attributes:
        name: of it.
        lr: the rate that DeepSpeed or torch has by default.
        defaults: of parameters, where they are other ones than here.
    """

    name: str
    lr: float
    defaults: Mapping[str, Any] = {}


OPTIMIZERS: Mapping[str, Counterpart] = {
    "adamw": Counterpart("adamw", 1e-3, {"weight_decay": 0.0}),
    "lion": Counterpart("lion", 1e-3),
    # torch's, which DeepSpeed calls by their names
    "adagrad": Counterpart("adagrad", 1e-2),
    "sgd": Counterpart("sgd", 1e-3),
    "rmsprop": Counterpart("rmsprop", 1e-2),
    "nadam": Counterpart("nadam", 2e-3),
    "radam": Counterpart("radam", 1e-3),
    "adamax": Counterpart("adamax", 2e-3),
    "asgd": Counterpart("asgd", 1e-2),
    "adadelta": Counterpart("adadelta", 1.0),
    "rprop": Counterpart("rprop", 1e-2),
}
REFUSED: Mapping[str, str] = {
    "lamb": "DeepSpeed bounds LAMB's trust ratio, and functrain does not: choose optimizer.name: lamb yourself",
    "muon": "DeepSpeed chooses Muon's parameters and rates in its own way: choose optimizer.name: muon yourself",
    "onebitadam": "it compresses what is sent, which is not there; the nearest is Adam",
    "zerooneadam": "it compresses what is sent, which is not there; the nearest is Adam",
    "onebitlamb": "it compresses what is sent, which is not there; the nearest is optimizer.name: lamb",
    "muadam": "mu-parametrization is not there; the nearest is Adam",
    "muadamw": "mu-parametrization is not there; the nearest is AdamW",
    "musgd": "mu-parametrization is not there; the nearest is SGD",
}
_SPEED = "it changes how fast an update is computed, and functrain chooses itself"
_HINTS = dict.fromkeys(
    ("fused", "foreach", "capturable", "differentiable", "set_grad_none", "fp32_optimizer_states"), _SPEED
)
_NUMBERS = ("weight_decay", "eps")


def optimizer(values: Mapping[str, Any], found: Translation) -> None:
    """Read it; what it sets is what the schedule, read later, may replace."""
    at, of = found.at(), found.at("optimizer")
    section = at.section(values, "optimizer")
    if section is None:
        return
    name = section.get("type")
    if name == AUTO:
        of.auto("type", "optimizer.name")
    elif not isinstance(name, str):
        of.refuse("type", f"it must be the name of an optimizer, got {shown(name)}")
    elif name.lower() not in OPTIMIZERS and name.lower() != "adam":
        known = ", ".join(["Adam", *OPTIMIZERS])
        of.refuse("type", REFUSED.get(name.lower(), f"{shown(name)} is none that functrain can name; it can: {known}"))
    parameters = of.section(section, "params") or {}
    if of.path("type") in found.problems or name == AUTO:
        for key in parameters:
            found.at("optimizer", "params").note(key, "it is of an optimizer that is not translated")
    else:
        _parameters(str(name).lower(), parameters, found)
    of.rest(section, {"legacy_fusion": _SPEED}, "DeepSpeed's section optimizer has no such key that functrain knows")


def _parameters(name: str, given: Mapping[str, Any], found: Translation) -> None:
    of = found.at("optimizer", "params")
    defaults: dict[str, Any] = {}
    if name in ("adam", "adamw"):
        chosen, defaults = _adam(name, given, of)
    else:
        chosen = OPTIMIZERS[name]
    found.put("optimizer.name", chosen.name, "optimizer.type")
    lr = of.number(given, "lr", "optimizer.lr")
    if lr is not None:
        found.put("optimizer.lr", float(lr), of.path("lr"))
    elif "lr" not in given:
        found.put("optimizer.lr", chosen.lr, origin="the default of DeepSpeed's optimizer.params.lr")
    taken = functions("optimizer")[chosen.name].parameters
    for key, default in {**chosen.defaults, **defaults}.items():
        if key not in given:
            found.put(f"optimizer.{key}", default, origin=f"the default of DeepSpeed's optimizer.params.{key}")
    for key, value in given.items():
        if key in taken and not found.is_done(of.path(key)):
            _parameter(key, value, given, of)
    if given.get("max_grad_norm") is not None:
        of.refuse("max_grad_norm", "DeepSpeed refuses it, too: set gradient_clipping")
    of.rest(given, _HINTS, f"{chosen.name} has no such parameter here; it has {', '.join(taken)}")


def _parameter(key: str, value: Any, given: Mapping[str, Any], of: At) -> None:
    """A parameter that the optimizer has here, too."""
    ours = f"optimizer.{key}"
    if value == AUTO:
        of.auto(key, ours)
    elif value is None:
        of.note(key, "it is null")
    elif key in _NUMBERS:
        number = of.number(given, key, ours)
        if number is not None:
            of.translation.put(ours, float(number), of.path(key))
    elif key == "betas" and isinstance(value, list) and AUTO in value:
        of.auto(key, ours)
    elif isinstance(value, Mapping | str):
        of.refuse(key, f"it must be a number, true or false, or a list of numbers, got {shown(value)}")
    else:
        of.translation.put(ours, value, of.path(key))


def _adam(name: str, given: Mapping[str, Any], of: At) -> tuple[Counterpart, dict[str, Any]]:
    """Which of the two it is: `Adam` has decoupled weight decay unless `adam_w_mode` is false."""
    decoupled = of.switch(given, "adam_w_mode", "optimizer.name", default=True)
    by_torch = of.switch(given, "torch_adam", "optimizer.name")
    bias = of.switch(given, "bias_correction", "optimizer.name", default=True)
    translation = of.translation
    if "adam_w_mode" in given and decoupled is not None:
        translation.used.add(of.path("adam_w_mode"))
    if "torch_adam" in given and by_torch is not None:
        of.note("torch_adam", _SPEED)
    if bias is False:
        of.refuse("bias_correction", "Adam's moments are corrected here: leave it out")
    elif "bias_correction" in given and bias:
        of.note("bias_correction", "Adam's moments are corrected here")
    if name == "adam" and decoupled is False:
        return Counterpart("adam", 1e-3), {}
    return OPTIMIZERS["adamw"], {"weight_decay": 0.01} if by_torch else {}
