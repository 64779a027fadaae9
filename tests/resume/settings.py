"""What a killed run may be made of, and the settings that are killed for the table."""

import functools
from collections.abc import Mapping

from covering import covering
from moments import FIRST, LAST, WHILE_TRAINING

Factors = Mapping[str, Mapping[str, dict[str, object]]]

_ANY: Factors = {
    "loader": {
        "DataLoader, 0 workers": {"loader": "plain", "workers": 0},
        "DataLoader, 2 workers": {"loader": "plain", "workers": 2},
        "functrain's, 0 workers": {"loader": "functrain", "workers": 0},
        "functrain's, 2 workers": {"loader": "functrain", "workers": 2},
        "own state_dict": {"loader": "stateful", "workers": 0},
    },
    "rules": {"none": {"rules": False}, "plateau, early stopping": {"rules": True}},
    "saves": {"each epoch": {"save_every": 0}, "every 4 updates": {"save_every": 4}},
}
NOT_COMPILED: Factors = {
    "run": {"eager": {"run": "eager"}, "traced, donated": {"run": "traced donated"}},
    "precision": {
        "fp32": {"precision": "fp32"},
        "bf16": {"precision": "bf16"},
        "fp16 with overflows": {"precision": "fp16"},
    },
    "window": {
        f"{size}, {tail}": {"accumulate": size, "tail": tail} for size in (1, 3) for tail in ("extend", "short", "drop")
    },
    "optimizer": {
        "AdamW, cosine": {"optimizer": "adamw"},
        "schedule-free AdamW": {"optimizer": "schedule-free"},
    },
    "EMA": {"no": {"ema": False}, "EMA": {"ema": True}},
    "BatchNorm": {"no": {"batchnorm": False}, "BatchNorm": {"batchnorm": True}},
    "dropout": {"no": {"dropout": False}, "dropout": {"dropout": True}},
    "sums": {
        "no": {},
        "2 threads": {"threads": 2},
        "indexed tables on 2 threads": {"network": "tables", "threads": 2},
    },
    **_ANY,
}
# By inductor, for three networks only: each other one would be compiled for longer than it is killed.
COMPILED: Factors = {
    "run": {"compiled": {"run": "compiled"}, "compiled, donated": {"run": "compiled donated"}},
    "network": {
        "fp32, AdamW, EMA, BatchNorm, dropout; windows of 1": {},
        "fp16 with overflows, schedule-free AdamW, dropout; windows of 3": {
            "precision": "fp16", "optimizer": "schedule-free", "ema": False, "batchnorm": False, "accumulate": 3,
        },
        "fp32, AdamW, EMA, indexed tables on 2 threads; windows of 1": {
            "network": "tables", "threads": 2, "batchnorm": False, "dropout": False,
        },
    },
    "tail": {tail: {"tail": tail} for tail in ("extend", "short", "drop")},
    **_ANY,
}  # fmt: skip
# Each setting in fresh interpreters, which import while they train: only what that may touch.
FRESH: Factors = {
    "run": {
        "eager": {"run": "eager"},
        "traced, donated": {"run": "traced donated"},
        "compiled, donated": {"run": "compiled donated"},
    },
    "augmentation": {
        "torch": {"draws": "torch"},
        "NumPy": {"draws": "numpy"},
        "Python's random": {"draws": "python"},
    },
    **_ANY,
}
FACTORS = {
    factor: {**NOT_COMPILED.get(factor, {}), **COMPILED.get(factor, {}), **FRESH.get(factor, {})}
    for factor in NOT_COMPILED | COMPILED | FRESH
}


@functools.cache
def settings(seed: int = 1) -> list[dict[str, str]]:
    """The table's: of each of the two groups of factors, each two levels of different factors meet in one at least."""
    groups = [{factor: list(levels) for factor, levels in group.items()} for group in (COMPILED, NOT_COMPILED)]
    return [row for group in groups for row in covering(group, seed)]


@functools.cache
def fresh_settings(seed: int = 1) -> list[dict[str, str]]:
    """Those for fresh interpreters: each of the generators in each loader, in the process and in workers."""
    return covering({factor: list(levels) for factor, levels in FRESH.items()}, seed)


def options_of(setting: Mapping[str, str]) -> dict[str, object]:
    """What the training process is told."""
    options: dict[str, object] = {}
    for factor, level in setting.items():
        options |= FACTORS[factor][level]
    return options


def name_of(setting: Mapping[str, str]) -> str:
    """A setting in a line; levels that are an absence are left out."""
    return "; ".join(level for level in setting.values() if level not in ("no", "none"))


def moments_of(options: Mapping[str, object], among: Mapping[str, int] = FIRST | WHILE_TRAINING | LAST) -> list[str]:
    """Those of some moments that such a run comes to."""
    run = str(options.get("run", "eager"))
    never = {"in a step, its program run"} if run == "eager" else {"in a step, its forward pass"}
    if not run.startswith("traced"):
        never.add("compiling")  # the store has what inductor makes; with an empty one see kill_table.py
    if options.get("accumulate", 1) == 1:
        never.add("inside an accumulation window")
    return [moment for moment in among if moment not in never]
