"""Settings of how a run goes about it: how its steps are compiled, and what it saves, logs and shows."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from functrain.loop.declaring import setting
from functrain.loop.kinds import (
    ANY,
    CHECKPOINT,
    COUNT_OR_AUTO,
    DICTIONARY,
    DIRECTORY,
    FLAG,
    FLAG_OR_AUTO,
    PROGRESS,
    TRACKER,
    duration,
    one_of,
    whole_number,
)
from functrain.loop.output.progress_moving import Display


@dataclass(frozen=True, kw_only=True)
class Compiling:
    """How steps are compiled."""

    compile: bool | Literal["auto"] = setting(
        "auto",
        FLAG_OR_AUTO,
        'run steps as compiled graphs. "auto" compiles where that saves more time than it takes. It decides when a run '
        "begins, from what is counted: the updates to do, the operations of a step, and the elements that they write. "
        "The run keeps the choice for good, also when it is resumed or made longer. What cannot be counted is "
        "compiled. A `backend`, `mode` or `engine` other than the default asks for compiled steps.",
        key="enabled",
    )
    backend: str = setting(
        "inductor",
        ANY,
        'what compiles the traced graph: "inductor", "aot_eager", "eager" (runs the graph as it is), or another '
        "that torch lists.",
    )
    mode: str = setting(
        "default",
        ANY,
        'inductor\'s mode: "default", "max-autotune-no-cudagraphs", "reduce-overhead" or "max-autotune". The last '
        "two turn donated steps on CUDA devices into CUDA graphs.",
    )
    engine: Literal["package", "torch"] = setting(
        "package",
        one_of("package", "torch"),
        'what makes the graph and calls the compiler. "package" is functrain\'s own engine, whose programs are kept '
        'for the next start. "torch" is torch.compile alone. It uses public functions of torch only, and takes longer '
        'for each step. "package" uses it, with a warning, on a release of torch that lacks what it needs.',
    )
    donate: bool = setting(
        True,
        FLAG,
        "let each compiled step write the new state into the storage of the old one, which halves the memory of "
        "the state. Your own `state` is never consumed. A callback of a step's scope that wants to keep a state "
        "must copy it.",
        bits=False,
    )
    steps_per_call: int | str = setting(
        "auto",
        COUNT_OR_AUTO,
        "compiled updates to run back to back, without per-step host work: the same bits, logs and checkpoints. "
        '"auto" takes as many as fit into 0.05 s, at most 64 (with several ranks: one). A call ends early at the '
        "end of the run or of an epoch, at a step of `save_every`, after a refused update, and after a signal "
        "(several ranks stop at the ends of calls). Updates run one by one if they are not compiled, with "
        "accumulation, `micro_batch` or `deterministic`, and if a callback of a step's scope must see each state.",
        bits=False,
    )


@dataclass(frozen=True, kw_only=True)
class Saving:
    """What is kept on disk, and how a run continues."""

    run_dir: str | Path | None = setting(
        None,
        DIRECTORY,
        "where `checkpoints/`, `metrics.csv` and `metrics.jsonl` go; None keeps nothing. `~` is expanded. Only "
        "the command line writes `config.yaml` and `training_curves.png`: a script is its own configuration, and "
        '`functrain.evaluation.figures.training_curves(result.history, "curves.png")` draws the figure.',
        bits=False,
        key=None,
    )
    resume: str = setting(
        "auto",
        CHECKPOINT,
        '"auto" continues from the newest valid checkpoint in `run_dir`, if there is one; "never" starts afresh and '
        "moves an earlier run aside to `run_dir/previous-N`; a path continues from that checkpoint.",
        key=None,
    )
    strict_resume: bool = setting(
        False, FLAG, "refuse a resume that would not be bit for bit, instead of warning.", bits=False, key=None
    )
    save_every: int | None = setting(
        None, whole_number(), "save after every so many updates as well, not only after each epoch.", bits=False
    )
    save_every_minutes: float | None = setting(
        None,
        duration("minutes"),
        "save after an update as well if the last save began so many minutes ago.",
        bits=False,
    )
    keep: int = setting(3, whole_number("checkpoints"), "how many of the newest checkpoints to keep.", bits=False)
    keep_best: int = setting(
        1, whole_number("checkpoints"), "how many of the best checkpoints to keep as well.", bits=False
    )
    metadata: Mapping[str, Any] | None = setting(
        None,
        DICTIONARY,
        "values that JSON can hold, to store in every checkpoint; such as the configuration.",
        bits=False,
        key=None,
    )


@dataclass(frozen=True, kw_only=True)
class Logging:
    """What a run shows and writes while it trains."""

    log_every: int = setting(10, whole_number(), "updates between two step records in the log.")
    digest_every: int | None = setting(
        None,
        whole_number(),
        "updates between two step records that hold a digest of the state, as the record of each epoch does.",
        bits=False,
    )
    tensorboard: bool = setting(
        False,
        FLAG,
        "also write the records to `run_dir/events` for TensorBoard. A resume cuts them back like the other logs.",
        bits=False,
    )
    wandb: bool | Mapping[str, Any] | None = setting(
        None,
        TRACKER,
        "also log to Weights & Biases: True, or a dictionary of `project`, `entity`, `name`, `group`, `tags`, `notes` "
        "and `mode`. Needs a `run_dir`. A resume goes on in the same run there.",
        bits=False,
    )
    mlflow: bool | Mapping[str, Any] | None = setting(
        None,
        TRACKER,
        "also log to MLflow: True, or a dictionary of `tracking_uri`, `experiment`, `name` and `tags`. Needs a "
        "`run_dir`. A resume goes on in the same run there.",
        bits=False,
    )
    progress: bool | str | Display | None = setting(
        None,
        PROGRESS,
        "True or None shows a display, and False shows none. In a notebook the display is one output that is "
        'rewritten in place, and "curve" adds the curve of the loss; elsewhere "curve" is the same as True. A '
        "`functrain.loop.output.progress.Display` of your own is told of each moment instead.",
        bits=False,
        key=None,
    )
