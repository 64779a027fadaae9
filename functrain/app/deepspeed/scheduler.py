"""The section `scheduler`: WarmupLR, WarmupDecayLR and WarmupCosineLR, which are `warmup_decay` here."""

from collections.abc import Mapping
from typing import Any

from functrain.app.config.wording import shown
from functrain.app.deepspeed.translation import AUTO, At, Translation

OURS = "optimizer.schedule"
DECAYS: Mapping[str, str] = {"WarmupLR": "none", "WarmupDecayLR": "linear", "WarmupCosineLR": "cosine"}
REFUSED: Mapping[str, str] = {
    "OneCycle": "the nearest is optimizer.schedule.name: one_cycle, whose parameters are torch's",
    "LRRangeTest": "the command 'functrain find-lr' does it",
}
_WARMUP_STEPS = 1000  # DeepSpeed's default


def scheduler(values: Mapping[str, Any], found: Translation) -> None:
    """Read it, after the optimizer."""
    at, of = found.at(), found.at("scheduler")
    section = at.section(values, "scheduler")
    if section is None:
        return
    name = section.get("type")
    if name == AUTO:
        of.auto("type", f"{OURS}.name")
    elif not isinstance(name, str):
        of.refuse("type", f"it must be the name of a schedule, got {shown(name)}")
    elif name not in DECAYS:
        of.refuse("type", REFUSED.get(name, f"{shown(name)} is none of {', '.join(DECAYS)}"))
    inside = of.section(section, "params") or {}
    if of.path("type") in found.problems or name == AUTO:
        for key in inside:
            found.at("scheduler", "params").note(key, "it is of a schedule that is not translated")
    else:
        _parameters(str(name), inside, found)
    of.rest(section, {}, "DeepSpeed's section scheduler has no such key that functrain knows")


def _parameters(name: str, given: Mapping[str, Any], found: Translation) -> None:
    of = found.at("scheduler", "params")
    decay = DECAYS[name]
    found.put(f"{OURS}.name", "warmup_decay", "scheduler.type")
    found.put(f"{OURS}.decay", decay, "scheduler.type")
    shape = given.get("warmup_type", "log")
    if shape == AUTO:
        of.auto("warmup_type", f"{OURS}.ramp")
    elif shape not in ("log", "linear"):
        of.refuse("warmup_type", f"it must be log or linear, got {shown(shape)}")
    else:
        is_given = "warmup_type" in given
        origin = "" if is_given else "the default of DeepSpeed's scheduler.params.warmup_type"
        found.put(f"{OURS}.ramp", shape, *([of.path("warmup_type")] if is_given else []), origin=origin)
    _length("warmup_num_steps", f"{OURS}.warmup_steps", given, of, _WARMUP_STEPS)
    if decay != "none":
        _length("total_num_steps", f"{OURS}.total_steps", given, of, None)
        if "total_num_steps" not in given:
            of.refuse("total_num_steps", f'{name} needs it: a number of updates, or "auto" for the length of the run')
    _rates(name, given, of)
    of.rest(
        given,
        {"last_batch_iteration": "a run that is resumed goes on where it was"},
        f"DeepSpeed's {name} has no such parameter that functrain knows",
    )


def _length(key: str, ours: str, given: Mapping[str, Any], of: At, default: int | None) -> None:
    """A number of updates; DeepSpeed makes the least warm-up one of two."""
    found = of.number(given, key, ours, integer=True, above=1)
    if found is not None:
        least = 2 if key == "warmup_num_steps" else 1
        of.translation.put(ours, max(int(found), least), of.path(key))
    elif key not in given and default is not None:
        of.translation.put(ours, default, origin=f"the default of DeepSpeed's scheduler.params.{key}")


def _rates(name: str, given: Mapping[str, Any], of: At) -> None:
    """The first, the highest and the last rate."""
    found = of.translation
    lr = found.values.get(("optimizer", "lr"))
    if name == "WarmupCosineLR":
        for key, ours, default in (("warmup_min_ratio", "start", 0.0), ("cos_min_ratio", "end", 1e-4)):
            ratio = of.number(given, key, f"{OURS}.{ours}")
            if ratio is None and key in given:
                continue
            part: float = default if ratio is None else float(ratio)
            if part and lr is None:
                of.note(
                    key,
                    f"it is a part of a rate that is not there: set {OURS}.{ours} to {part:g} x optimizer.lr",
                )
            else:
                of_file = [of.path(key)] if key in given else []
                found.put(f"{OURS}.{ours}", part * (lr or 0.0), *of_file, origin=f"{of.path(key)} {part:g} of the rate")
        return
    for key, ours in (("warmup_min_lr", f"{OURS}.start"), ("warmup_max_lr", "optimizer.lr")):
        rate = of.number(given, key, ours)
        if rate is not None:
            found.put(ours, float(rate), of.path(key))
        elif key == "warmup_max_lr" and key not in given and name != "WarmupLR":
            found.put(ours, 1e-3, origin=f"the default of DeepSpeed's scheduler.params.{key}")
    highest, start = found.values.get(("optimizer", "lr")), found.values.get((*OURS.split("."), "start"))
    if lr is not None and highest != lr and "optimizer.params.lr" in found.used:
        found.used.discard("optimizer.params.lr")
        found.notes["optimizer.params.lr"] = f"the schedule replaces it by {highest:g}, as in DeepSpeed"
    if start is not None and highest is not None and start > highest:
        of.refuse("warmup_min_lr", f"it must be at most the highest rate, {highest:g}, got {start:g}")
