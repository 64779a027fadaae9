"""What somebody may have meant by a name that does not exist."""

import difflib
from collections.abc import Iterable, Mapping

from functrain.app.config.schema import section_at

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
    "keep_last_n_checkpoints": "training.keep",
    "save_total_limit": "training.keep",
    "validation_frequency": "training.eval_every",
    "monitor": "training.watch",
    "pretrained": "init_from.path",
    "checkpoint": "init_from.path",
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
    close = _nearest(given, {_plain(name): name for name in known})
    return ";" if close is None else f"; did you mean {close!r}?"


def home_of(key: str) -> str | None:
    """The dotted path of a setting that bears this name, or nearly this name, somewhere in a configuration.

    Example:
        >>> home_of("num-workers"), home_of("learning_rate"), home_of("xyz")
        ('data.num_workers', 'optimizer.lr', None)
    """
    homes: dict[str, str] = {"seed": "seed", "name": "name"}
    for section in ("data", "optimizer", "training"):
        homes |= {name: f"{section}.{name}" for name in section_at((section,)).model_fields if name != "name"}
    homes |= OTHER_NAMES
    return _nearest(key, homes, cutoff=0.75)


def _nearest(given: str, known: Mapping[str, str], cutoff: float = 0.6) -> str | None:
    close = difflib.get_close_matches(_plain(given), known, n=1, cutoff=cutoff)
    return known[close[0]] if close else None


def _plain(name: str) -> str:
    return name.lower().replace("-", "_")
