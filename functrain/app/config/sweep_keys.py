"""The keys of the section `sweep`; `functrain.app.config.sweep_section` has the rules between them."""

from typing import Annotated, Any, Literal

from pydantic import WithJsonSchema

from functrain.app.config.keys import Section, key

Axes = Annotated[
    dict[str, Any],
    WithJsonSchema(
        {"type": "object", "additionalProperties": {"anyOf": [{"type": "array", "minItems": 1}, {"type": "string"}]}}
    ),
]
Members = Annotated[list[dict[str, Any]], WithJsonSchema({"type": "array", "items": {"type": "object"}})]


class AshaConfig(Section):
    """Successive halving, as `--asha` asks for it. `asha: true` asks for it with the defaults."""

    min_epochs: int = key(1, "epochs of all members.", bits=False, ge=1)
    factor: int = key(
        3, "one member in so many goes on, for so many times as long: the reduction factor.", bits=False, ge=2
    )


class SweepConfig(Section):
    """What `functrain sweep` searches, and how: its arguments, which win over the section. docs/sweeps.md has more.

    No other command uses it, and a run does not record it.
    """

    axes: Axes = key(
        {},
        "the keys that are searched, such as `optimizer.lr`, each with a list of its values, or a text as on the "
        "command line: `log(1e-4, 1e-1)`.",
        bits=False,
    )
    members: Members = key(
        [], "the members, each with its own values, such as `{optimizer.lr: 1e-2}`: what `--list` reads.", bits=False
    )
    sampler: Literal["grid", "random", "optuna"] = key(
        "grid",
        "how members are chosen: all combinations, drawn (`--random`), or Optuna's TPE (`--optuna`).",
        bits=False,
    )
    count: int | None = key(None, "how many members a sampler draws.", bits=False, ge=1)
    search_seed: int = key(0, "of the samplers.", bits=False, ge=0)
    jobs: int = key(1, "members to train at once.", bits=False, ge=1)
    metric: str | None = key(
        None,
        "the metric of the log by which members are compared, such as `eval_accuracy`; default: `evaluation.watch`.",
        bits=False,
        min_length=1,
    )
    mode: Literal["min", "max"] | None = key(
        None, "whether the lowest or the highest `metric` is the best.", bits=False
    )
    asha: AshaConfig | None = key(None, "successive halving.", bits=False)
    stage: str | None = key(None, "the stage that members train, if the configuration has stages.", bits=False)
    all_stages: bool = key(False, "let each member train all stages.", bits=False)
    vectorize: bool = key(
        False, "train members that differ in numbers only in one program: docs/sweeps.md has what.", bits=False
    )
    fail_fast: bool = key(False, "end the sweep when a member fails.", bits=False)
