"""What somebody may have meant by a name that does not exist."""

import difflib
from collections.abc import Iterable, Mapping, Sequence

from functrain.app.config.catalogue import entries
from functrain.app.config.former import moves

# What other trainers call things, and where they are here.
OTHER_NAMES: Mapping[str, str] = {
    "learning_rate": "optimizer.lr",
    "scheduler": "optimizer.schedule",
    "lr_scheduler": "optimizer.schedule",
    "loss": "objective",
    "criterion": "objective",
    "dataset": "data",
    "network": "model",
    "max_epochs": "training.epochs",
    "num_epochs": "training.epochs",
    "max_steps": "training.steps",
    "workers": "data.num_workers",
    "use_amp": "training.precision",
    "amp_dtype": "training.precision",
    "dtype": "training.precision",
    "clip_grad_norm": "training.clip_norm",
    "max_grad_norm": "training.clip_norm",
    "gradient_clip_val": "training.clip_norm",
    "gradient_accumulation_steps": "training.accumulate",
    "accumulate_grad_batches": "training.accumulate",
    "keep_last_n_checkpoints": "checkpoint.keep",
    "save_total_limit": "checkpoint.keep",
    "save_steps": "checkpoint.save_every",
    "validation_frequency": "evaluation.eval_every",
    "monitor": "evaluation.watch",
    "metric_for_best_model": "evaluation.watch",
    "logging_steps": "logging.log_every",
    "torch_compile": "compile.enabled",
    "pretrained": "init_from.path",
}


# What is an option of `functrain train` and no setting of a configuration.
OPTIONS: Mapping[str, str] = {
    "run_dir": "--run-dir",
    "output_dir": "--run-dir",
    "out_dir": "--run-dir",
    "resume": "--resume",
    "resume_from_checkpoint": "--resume",
    "strict_resume": "--strict-resume",
    "max_time": "--max-time",
    "progress": "--no-progress",
    "trust": "--trust",
    "debug": "--debug",
}


def did_you_mean(given: str, known: Iterable[str]) -> str:
    """'; did you mean ...?' if a known name is near, else ';'. Upper case and dashes make no difference.

    Example:
        >>> did_you_mean("epoch", ["epochs", "steps"]), did_you_mean("xyz", ["epochs"])
        ("; did you mean 'epochs'?", ';')
        >>> did_you_mean("adamW", ["adam", "adamw"])
        "; did you mean 'adamw'?"
    """
    names = {_plain(name): name for name in known}
    close = _nearest(given, names)
    return ";" if close is None else f"; did you mean {names[close]!r}?"


def meant(key: str, allowed: Sequence[str]) -> str:
    """What may have been meant by a key that its section does not have, as `did_you_mean` words it.

    Args:
        key: as given.
        allowed: the keys of the section.

    Example:
        >>> meant("epoch", ["epochs", "accumulate"]), meant("log_evry", ["epochs", "ema_every"])
        ("; did you mean 'epochs'?", "; did you mean 'logging.log_every'?")
        >>> meant("max_time", ["epochs"])
        '; give the option --max-time on the command line;'
    """
    if key in OPTIONS:
        return f"; give the option {OPTIONS[key]} on the command line;"
    names, homes = {_plain(name): name for name in allowed}, _homes()
    inside, elsewhere = _nearest(key, names), _nearest(key, homes, cutoff=0.75)
    if inside is not None and (elsewhere is None or _likeness(key, inside) >= _likeness(key, elsewhere)):
        return f"; did you mean {names[inside]!r}?"
    return ";" if elsewhere is None else f"; did you mean {homes[elsewhere]!r}?"


def home_of(key: str) -> str | None:
    """The dotted path of a setting that bears this name, or nearly this name, somewhere in a configuration.

    Example:
        >>> home_of("num-workers"), home_of("learning_rate"), home_of("keep"), home_of("xyz")
        ('data.num_workers', 'optimizer.lr', 'checkpoint.keep', None)
    """
    homes = _homes()
    close = _nearest(key, homes, cutoff=0.75)
    return None if close is None else homes[close]


def _homes() -> dict[str, str]:
    """The places of keys by their names, and by the names that other trainers have for them."""
    homes: dict[str, str] = {"seed": "seed", "name": "name", "extends": "extends"}
    for entry in entries():
        if len(entry.path) == 2 and entry.path[0] in ("data", "optimizer", "training") and entry.path[1] != "name":
            homes[entry.path[1]] = entry.dotted
    homes |= {str(move.old[1]): ".".join(map(str, move.new)) for move in moves()}
    return homes | dict(OTHER_NAMES)


def _nearest(given: str, names: Iterable[str], cutoff: float = 0.6) -> str | None:
    """The name that is most like the given one; None if none is."""
    close = difflib.get_close_matches(_plain(given), names, n=1, cutoff=cutoff)
    return close[0] if close else None


def _likeness(given: str, name: str) -> float:
    return difflib.SequenceMatcher(None, name, _plain(given)).ratio()


def _plain(name: str) -> str:
    return name.lower().replace("-", "_")
