"""The settings of a run, each declared once: type, default, what is allowed, documentation, and its effect on bits.

`fit` takes them as keyword arguments; its signature and the `Args` of its docstring are made from this declaration. So
are the keys of a configuration (functrain/app/config/run_sections.py) and the page docs/settings.md.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from functrain.data import Portion
from functrain.loop.batches import TAILS
from functrain.loop.decisions import Decisions
from functrain.loop.declaring import Declared, declarations, setting
from functrain.loop.events import Callback
from functrain.loop.kinds import (
    ANY,
    CHECKPOINT,
    COUNT_OR_AUTO,
    DICTIONARY,
    DIRECTORY,
    FLAG,
    FLAG_OR_AUTO,
    FLAG_OR_NONE,
    METRIC,
    PART,
    PROGRESS,
    TRACKER,
    duration,
    one_of,
    whole_number,
)
from functrain.loop.output.mlflow import MLFLOW
from functrain.loop.output.progress_moving import Display
from functrain.loop.output.sinks import Tracker
from functrain.loop.output.wandb import WANDB
from functrain.loop.watched_names import check_watch
from functrain.optim import EarlyStopping, Plateau
from functrain.step.state import TrainState, require_state

TRACKERS = (WANDB, MLFLOW)


@dataclass(frozen=True, kw_only=True)
class Length:
    """How long a run trains."""

    epochs: int | None = setting(None, whole_number(), "end after so many epochs, counted from the run's beginning.")
    steps: int | None = setting(None, whole_number(), "end after so many updates, counted from the run's beginning.")
    max_time: float | None = setting(
        None,
        duration("seconds"),
        "seconds, from this call on, after which the run ends as after a signal.",
        bits=False,
        key=None,
    )


@dataclass(frozen=True, kw_only=True)
class Evaluating:
    """What is measured."""

    eval_loader: Any = setting(
        None, ANY, "evaluated after every `eval_every` epochs, and at the end.", bits=False, key=None
    )
    metrics: Any = setting(
        (),
        ANY,  # functrain.metrics.measures checks it
        'what is measured beside the objective\'s own metrics: names, such as "f1", names with arguments, such as '
        '`{"name": "recall_at_fpr", "fpr": 0.05}`, or metrics of your own; see docs/metrics.md. They are recorded as '
        "`train_...` and `eval_...`. A metric that needs all scores at once, such as AUROC, is measured in evaluations "
        "alone. Default: what `init_state` was asked for.",
        key=None,
    )
    eval_every: int = setting(1, whole_number(), "epochs between two evaluations.")
    eval_limit_batches: int | float | None = setting(
        None,
        PART,
        "evaluate on so many of the first batches, or on this fraction of them. Default: `limit_batches`; 1.0 means "
        "all of them.",
    )
    watch: str | None = setting(
        None,
        METRIC,
        "the record whose best value marks the best checkpoint. Default: `eval_loss`, or `train_loss` without an "
        "eval_loader. Before training, the objective runs once on the first batch to see whether there is such a "
        "metric.",
    )
    watch_mode: Literal["min", "max"] = setting("min", one_of("min", "max"), 'whether "min" or "max" is better.')


@dataclass(frozen=True, kw_only=True)
class Deciding:
    """What follows from the watched record."""

    plateau: Plateau | None = setting(
        None,
        ANY,
        "a rule `optim.plateau(...)`, which reduces the learning rate when the watched record stops improving. It "
        "is applied after each epoch that has such a record.",
    )
    early_stopping: EarlyStopping | None = setting(
        None,
        ANY,
        "a rule `optim.early_stopping(...)`, which ends training when the watched record stops improving. With "
        "`restore_best` (needs a `run_dir`) the result is the state of the best checkpoint. A stopped state stays "
        "stopped; `state.replace(stopper=rule.init())` lets it train on.",
    )


@dataclass(frozen=True, kw_only=True)
class Stepping:
    """How updates are made."""

    micro_batch: int | str | None = setting(
        None,
        ANY,  # functrain.loop.memory checks it: what it may be depends on the ranks
        "the most examples in one forward and backward pass. Larger batches are split, and the updates stay the "
        'same (but for BatchNorm, which sees the parts, and for the draws of dropout). "auto" begins with the '
        "whole batch. When a step runs out of memory, it is repeated with half as many examples at a time. The "
        'number found is kept, also over a resume. While a donating step is new, "auto" keeps a copy of the state '
        "in the host's memory.",
    )
    tail: str = setting(
        "extend",
        one_of(*TAILS),
        'what happens if an epoch\'s batches do not fill the last accumulation window: "extend" fills it from the '
        'start of the epoch\'s order, "short" makes a shorter one (rightly weighted), and "drop" leaves it out.',
    )
    limit_batches: int | float | None = setting(
        None,
        PART,
        "train on so many of an epoch's first micro-batches, or on this fraction of them (rounded up; the integer 1 "
        "is one batch, 1.0 all of them). It holds for evaluations during training, too, unless `eval_limit_batches` "
        "says otherwise.",
    )
    overfit_batches: int | None = setting(
        None,
        whole_number(),
        "train on the same so many batches in every epoch, the first ones of the data in their own order, not "
        "shuffled, and evaluate on them instead of on the eval_loader. A model and a step that are right reach a "
        "loss near 0. The batches are kept in memory.",
    )
    callbacks: Sequence[Callback] = setting((), ANY, "functions marked with `functrain.on`.", key=None)
    deterministic: bool = setting(
        False,
        FLAG,
        "use only torch's deterministic algorithms. Also seed the global generators of torch (CPU), NumPy and "
        "Python before each micro-batch, for callbacks that draw from them. Some CUDA kernels become slower, and "
        "those without a deterministic form raise an error. On the CPU a run is bit for bit without it.",
    )
    tf32: bool | None = setting(
        None,
        FLAG_OR_NONE,
        "whether a CUDA device computes float32 products and convolutions in TF32. None leaves torch's flags as "
        "they are (for convolutions torch's own default is True). The flags are restored at the end.",
    )


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


@dataclass(frozen=True, kw_only=True)
class Guards:
    """When a run ends or goes on in spite of something."""

    on_nonfinite: str = setting(
        "stop",
        one_of("stop", "skip"),
        'what to do when a loss or gradient is not finite: "stop" ends the run with a `NonFiniteError`, and '
        '"skip" leaves the update out. (Overflows of fp16\'s adapting loss scale are always skipped.)',
    )
    max_consecutive_skips: int | None = setting(
        100,
        whole_number(),
        'with "skip", so many refused updates in a row end the run with a `NonFiniteError`, which names the first '
        "leaf that is not finite. None never ends it.",
        optional=True,
    )
    on_signal: str = setting(
        "auto",
        one_of("auto", "exit", "return"),
        "what happens after SIGINT, SIGTERM, SIGUSR1 or SIGHUP (a closed terminal; ignored under `nohup`), and "
        'after `max_time`. The INTERRUPTED snapshot is always saved. Then "exit" raises `Interrupted`, a '
        'SystemExit with code 128 + signal (75 for the time), and "return" returns. "auto" returns after SIGINT '
        "and `max_time` where Python has a prompt (a notebook, IPython, `python`), since the trained state is in "
        "this process; else it exits.",
        bits=False,
        key=None,
    )


# The groups, each with the section of a configuration that its keys stand in.
SECTIONS: Mapping[type, str] = {
    Length: "training",
    Evaluating: "evaluation",
    Deciding: "training",
    Stepping: "training",
    Compiling: "compile",
    Saving: "checkpoint",
    Logging: "logging",
    Guards: "training",
}


@dataclass(frozen=True, kw_only=True)
class Settings(Guards, Logging, Saving, Compiling, Stepping, Deciding, Evaluating, Length):
    """All settings of a run.

    Example:
        >>> settings = Settings(epochs=2, save_every=10)
        >>> settings.keep, settings.saves_at(20, seconds=0.0), settings.saves_at(21, seconds=0.0)
        (3, True, False)
    """

    @property
    def decisions(self) -> Decisions:
        """What the watched metric decides."""
        return Decisions(self.plateau, self.early_stopping)

    @property
    def portion(self) -> Portion:
        """Which of the training batches are used."""
        return Portion(self.limit_batches, self.overfit_batches)

    @property
    def eval_limit(self) -> int | float | None:
        """How many of the batches of evaluation are used, or which fraction of them."""
        return self.limit_batches if self.eval_limit_batches is None else self.eval_limit_batches

    def limits(self) -> dict[str, Any]:
        """The settings that choose batches."""
        return {**self.portion._asdict(), "eval_limit_batches": self.eval_limit_batches}

    def trackers(self) -> list[tuple[Tracker, Any]]:
        """The trackers that are asked for, each with its options.

        Raises:
            ValueError, TypeError: for options that are not allowed.
            ModuleNotFoundError: one is not installed.
        """
        found = [(tracker, tracker.asked(getattr(self, tracker.name))) for tracker in TRACKERS]
        return [(tracker, options) for tracker, options in found if options is not None]

    def compiler_settings(self) -> str:
        """The settings that choose how steps are compiled, as far as they are not the defaults, as one writes them.

        Example:
            >>> Settings(mode="reduce-overhead").compiler_settings()
            "mode='reduce-overhead'"
        """
        given = {name: getattr(self, name) for name in ("backend", "mode", "engine")}
        return ", ".join(f"{name}={value!r}" for name, value in given.items() if value != getattr(Compiling, name))

    def steps_are_done(self, state: TrainState) -> bool:
        """Whether as many updates are done as `steps` says."""
        return self.steps is not None and state.step >= self.steps

    def is_done(self, state: TrainState) -> bool:
        """Whether nothing is left to train; asked between epochs."""
        return self.steps_are_done(state) or (self.epochs is not None and state.epoch >= self.epochs)

    def saves_at(self, step: int, seconds: float) -> bool:
        """Whether to save after an update, so many seconds after the last save."""
        every, minutes = self.save_every, self.save_every_minutes
        return (every is not None and step % every == 0) or (minutes is not None and seconds >= 60 * minutes)

    def check(self, state: Any) -> None:
        """Refuse what is not allowed, before anything is done.

        Raises:
            ValueError, TypeError: for what is not allowed.
        """
        require_state("fit", state)
        if self.epochs is None and self.steps is None:
            raise ValueError("fit needs to know how long to train: give epochs, steps, or both")
        for each in declared():
            value = getattr(self, each.name)
            if value is not None or not each.optional:
                each.kind.check(each.name, value)
        check_watch(self.watch, self.eval_loader is not None, state.ema is not None)
        self.decisions.check(state, self.watch_mode, self.run_dir)
        if self.overfit_batches is not None and (self.limit_batches, self.eval_limit_batches) != (None, None):
            raise ValueError(
                "overfit_batches chooses the batches of training and evaluation: leave out limit_batches and "
                "eval_limit_batches"
            )
        if self.tensorboard and self.run_dir is None:
            raise ValueError("tensorboard=True writes to run_dir/events: give fit a run_dir")
        for tracker, _ in self.trackers():
            if self.run_dir is None:
                raise ValueError(f"{tracker.name} needs a run_dir, which remembers what the tracker has: give fit one")


def declared() -> Iterator[Declared]:
    """Each setting, in the order of the groups."""
    return declarations(SECTIONS)
