"""Settings that decide what a run computes: its length, its updates, what it measures and what follows from that."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from functrain.loop.batches import TAILS
from functrain.loop.declaring import setting
from functrain.loop.events import Callback
from functrain.loop.kinds import ANY, FLAG, FLAG_OR_NONE, METRIC, PART, duration, one_of, whole_number
from functrain.optim import EarlyStopping, Plateau


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
