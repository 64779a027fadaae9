"""The sections `fp16` and `bf16`, and other ways to say a precision."""

from collections.abc import Mapping
from typing import Any

from functrain.app.deepspeed.translation import Translation

OURS = "training.precision"
_OF_FP16 = {
    "auto_cast": "operations cast their inputs themselves here",
    "hysteresis": "the scale falls at each overflow here, as with hysteresis 1",
    "consecutive_hysteresis": "the scale falls at each overflow here, as with hysteresis 1",
    "min_loss_scale": "the scale has no least value here",
}
_OF_BF16 = {
    "immediate_grad_update": "it says when gradients are copied",
    "check_grad_overflow": "an update that is not finite is skipped here in any case",
    "check_overflow": "an update that is not finite is skipped here in any case",
}
_MASTER = {
    "fp16_master_weights_and_grads": "parameters are float32 here",
    "bf16_master_weights_and_grads": "parameters are float32 here",
    "bf16_optimizer_states": "the optimizer's state is float32 here",
}


def precision(values: Mapping[str, Any], found: Translation) -> None:
    """Read them."""
    at = found.at()
    chosen: list[str] = []
    for name in ("fp16", "bf16", "bfloat16"):
        section = at.section(values, name)
        if section is None:
            continue
        of = found.at(name)
        enabled = of.switch(section, "enabled", OURS)
        if enabled is False:
            at.note(name, "it is not enabled")
        elif enabled:
            chosen.append(name)
            found.put(OURS, "fp16" if name == "fp16" else "bf16", of.path("enabled"))
        if enabled is not False:
            _masters(section, name, found)
            if name == "fp16":
                _scale(section, found, is_used=bool(enabled))
            unknown = f"DeepSpeed's section {name} has no such key that functrain knows"
            of.rest(section, _OF_FP16 if name == "fp16" else _OF_BF16, unknown)
    if len(chosen) > 1:
        at.refuse(chosen[1], f"{chosen[0]} and {chosen[1]} are both enabled: enable one")
    _autocast(values, found, is_free=not chosen)


def _masters(section: Mapping[str, Any], name: str, found: Translation) -> None:
    of = found.at(name)
    for key in section:
        if key in _MASTER and of.switch(section, key, OURS) is not None:
            if section[key]:
                of.refuse(key, f"{_MASTER[key]}: leave it out")
            else:
                of.note(key, _MASTER[key])


def _scale(section: Mapping[str, Any], found: Translation, *, is_used: bool) -> None:
    """How the loss is scaled."""
    of = found.at("fp16")
    constant = of.number(section, "loss_scale", "training.loss_scale")
    power = of.number(section, "initial_scale_power", "training.loss_scaling.init_scale", integer=True)
    window = of.number(section, "loss_scale_window", "training.loss_scaling.growth_interval", integer=True, above=1)
    power = None if power is None else int(power)
    if power is not None and power > 120:
        of.refuse("initial_scale_power", f"it must be at most 120, got {power}")
    if not is_used:
        for key in ("loss_scale", "initial_scale_power", "loss_scale_window"):
            if key in section and of.path(key) not in found.notes | found.problems:
                of.note(key, "fp16 is yours to choose: set training.loss_scale or training.loss_scaling with it")
    elif constant:
        found.put("training.loss_scale", float(constant), of.path("loss_scale"))
        for key in ("initial_scale_power", "loss_scale_window"):
            if key in section and of.path(key) not in found.problems:
                of.note(key, "the scale is constant (loss_scale)")
    else:
        if "loss_scale" in section and of.path("loss_scale") not in found.notes | found.problems:
            of.note("loss_scale", "0 asks for a scale that adapts itself, as fp16's does here")
        scaling = "training.loss_scaling"
        if power is not None and power <= 120:
            path = of.path("initial_scale_power")
            found.put(f"{scaling}.init_scale", 2.0**power, path, origin=f"{path}: 2^{power}")
        origin = of.path("loss_scale_window") + ("" if window is not None else ": 1000, DeepSpeed's default")
        given = [of.path("loss_scale_window")] if window is not None else []
        found.put(f"{scaling}.growth_interval", int(window or 1000), *given, origin=origin)


def _autocast(values: Mapping[str, Any], found: Translation, *, is_free: bool) -> None:
    """The section `torch_autocast`, which is what `training.precision` is here, and `amp`, which is not."""
    at, of = found.at(), found.at("torch_autocast")
    section = at.section(values, "torch_autocast")
    if section is not None:
        enabled = of.switch(section, "enabled", OURS)
        if enabled is False:
            at.note("torch_autocast", "it is not enabled")
        elif enabled and not is_free:
            at.refuse("torch_autocast", "fp16 or bf16 is enabled, too: enable one")
        else:
            names = {"bfloat16": "bf16", "float16": "fp16"}
            dtype = section.get("dtype", "bfloat16")
            if dtype not in names:
                of.refuse("dtype", f"it must be bfloat16 or float16, got {dtype!r}")
            elif enabled:
                given = [of.path("dtype")] if "dtype" in section else []
                found.put(OURS, names[dtype], of.path("enabled"), *given)
            elif "dtype" in section:
                of.note("dtype", f"set {OURS} in your own configuration")
            known = {"lower_precision_safe_modules": "gradients and parameters are sent in float32 here"}
            of.rest(section, known, "DeepSpeed's section torch_autocast has no such key that functrain knows")
    amp = at.section(values, "amp")
    if amp is not None:
        if found.at("amp").switch(amp, "enabled", OURS) is False:
            at.note("amp", "it is not enabled")
        else:
            at.refuse("amp", f"Apex is not used: set fp16 or bf16 in its place, or {OURS}")
