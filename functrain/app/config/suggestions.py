"""What somebody may have meant by a name that does not exist."""

import difflib
from collections.abc import Iterable, Mapping, Sequence

from functrain.app.config.catalogue import declared, entries
from functrain.app.config.former import moves

# What other trainers call things, and what that is here: a key, or a key with the value that does the same.
OTHER_NAMES: Mapping[str, str] = {
    "epochs": "training.epochs",
    "batch_size": "data.batch_size",
    "num_workers": "data.num_workers",
    "lr": "optimizer.lr",
    "precision": "training.precision",
    "device": "training.device",
    "early_stopping": "training.early_stopping",
    "learning_rate": "optimizer.lr",
    "base_lr": "optimizer.lr",
    "weight_decay": "optimizer.weight_decay",
    "momentum": "optimizer.momentum",
    "scheduler": "optimizer.schedule",
    "lr_scheduler": "optimizer.schedule",
    "lr_scheduler_type": "optimizer.schedule.name",
    "warmup_steps": "optimizer.schedule.warmup_steps",
    "warmup_ratio": "optimizer.schedule.warmup_fraction",
    "loss": "objective",
    "criterion": "objective",
    "loss_function": "objective",
    "label_smoothing": "objective.label_smoothing",
    "class_weights": "objective.class_weights",
    "dataset": "data",
    "network": "model",
    "max_epochs": "training.epochs",
    "num_epochs": "training.epochs",
    "num_train_epochs": "training.epochs",
    "max_steps": "training.steps",
    "train_batch_size": "data.batch_size",
    "per_device_train_batch_size": "data.batch_size",
    "val_batch_size": "data.eval_batch_size",
    "workers": "data.num_workers",
    "dataloader_num_workers": "data.num_workers",
    "use_amp": "training.precision: bf16",
    "amp": "training.precision: bf16",
    "mixed_precision": "training.precision: bf16",
    "bf16": "training.precision: bf16",
    "fp16": "training.precision: fp16",
    "amp_dtype": "training.precision",
    "dtype": "training.precision",
    "clip_grad_norm": "training.clip_norm",
    "max_grad_norm": "training.clip_norm",
    "grad_clip": "training.clip_norm",
    "gradient_clip_val": "training.clip_norm",
    "gradient_clipping": "training.clip_norm",
    "gradient_accumulation_steps": "training.accumulate",
    "accumulation_steps": "training.accumulate",
    "accumulate_grad_batches": "training.accumulate",
    "use_ema": "training.ema_decay: 0.999",
    "gradient_checkpointing": "training.activation_checkpointing",
    "patience": "training.early_stopping.patience",
    "early_stopping_patience": "training.early_stopping.patience",
    "min_delta": "training.early_stopping.min_delta",
    "early_stopping_min_delta": "training.early_stopping.min_delta",
    "save_every_n_epochs": "checkpoint.save_every",
    "save_steps": "checkpoint.save_every",
    "keep_last_n_checkpoints": "checkpoint.keep",
    "save_total_limit": "checkpoint.keep",
    "max_to_keep": "checkpoint.keep",
    "save_top_k": "checkpoint.keep_best",
    "validation_frequency": "evaluation.eval_every",
    "check_val_every_n_epoch": "evaluation.eval_every",
    "limit_train_batches": "training.limit_batches",
    "limit_val_batches": "evaluation.eval_limit_batches",
    "monitor": "evaluation.watch",
    "metric_for_best_model": "evaluation.watch",
    "early_stopping_metric": "evaluation.watch",
    "monitor_mode": "evaluation.watch_mode",
    "early_stopping_mode": "evaluation.watch_mode",
    "greater_is_better": "evaluation.watch_mode: max",
    "logging_steps": "logging.log_every",
    "log_interval": "logging.log_every",
    "log_every_n_steps": "logging.log_every",
    "use_tensorboard": "logging.tensorboard",
    "use_wandb": "logging.wandb",
    "use_mlflow": "logging.mlflow",
    "torch_compile": "compile.enabled",
    "use_compile": "compile.enabled",
    "compile_mode": "compile.mode",
    "pretrained": "init_from.path",
    "pretrained_path": "init_from.path",
    "load_from": "init_from.path",
    "random_seed": "seed",
    "run_name": "name",
    "experiment_name": "name",
    "defaults": "extends",
    "_base_": "extends",
    "inherits": "extends",
}

# What is an option of `functrain train` and no setting of a configuration.
OPTIONS: Mapping[str, str] = {
    "run_dir": "--run-dir",
    "output_dir": "--run-dir",
    "out_dir": "--run-dir",
    "save_dir": "--run-dir",
    "log_dir": "--run-dir",
    "checkpoint_dir": "--run-dir",
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
    close = nearest(given, known)
    return ";" if close is None else f"; did you mean {close!r}?"


def meant(key: str, allowed: Sequence[str]) -> str:
    """What may have been meant by a key that its section does not have, as `did_you_mean` words it.

    Args:
        key: as given.
        allowed: the keys of the section.

    Example:
        >>> meant("epoch", ["epochs", "accumulate"]), meant("log_evry", ["epochs", "ema_every"])
        ("; did you mean 'epochs'?", "; did you mean 'logging.log_every'?")
        >>> meant("max_time", ["epochs"]), meant("use_amp", ["epochs"])
        ('; give the option --max-time on the command line;', '; `use_amp` is `training.precision: bf16` here;')
    """
    plain = _plain(key)
    if plain in OPTIONS:
        return f"; give the option {OPTIONS[plain]} on the command line;"
    if tuple(key.split(".")) in declared():
        return f"; in a file {key} is written as sections: {key.replace('.', ': {')}: ...{'}' * key.count('.')};"
    homes, own = _homes(), {_plain(name) for name in allowed}
    if plain in OTHER_NAMES and plain not in own:
        return f"; `{key}` is `{OTHER_NAMES[plain]}` here;"
    inside, elsewhere = nearest(key, allowed), nearest(key, homes, elsewhere=True)
    if inside is not None and (elsewhere is None or _distance(key, inside) <= _distance(key, elsewhere)):
        return f"; did you mean {inside!r}?"
    return ";" if elsewhere is None else f"; did you mean {homes[elsewhere]!r}?"


def home_of(key: str) -> str | None:
    """The dotted path of a setting that bears this name, or nearly this name, somewhere in a configuration.

    Example:
        >>> home_of("num-workers"), home_of("learning_rate"), home_of("keep"), home_of("xyz")
        ('data.num_workers', 'optimizer.lr', 'checkpoint.keep', None)
    """
    if tuple(key.split(".")) in declared():
        return key
    homes = _homes()
    close = nearest(key, homes, elsewhere=True)
    return None if close is None else homes[close]


def _homes() -> dict[str, str]:
    """The places of keys by their names, and by the names that other trainers have for them."""
    homes = {name: home.partition(":")[0] for name, home in OTHER_NAMES.items()}
    homes |= {"seed": "seed", "name": "name", "extends": "extends"}
    for entry in entries():
        if len(entry.path) == 2 and entry.path[0] in ("data", "optimizer", "training") and entry.path[1] != "name":
            homes[entry.path[1]] = entry.dotted
    return homes | {str(move.old[1]): ".".join(map(str, move.new)) for move in moves()}


def nearest(given: str, names: Iterable[str], *, elsewhere: bool = False) -> str | None:
    """The name that was most likely meant; None if none is near.

    Args:
        given: what was written.
        names: what could have been meant.
        elsewhere: they are not of the place where it was written, so they must be nearer.
    """
    plain, known = _plain(given), {_plain(name): name for name in names}
    likely = [
        (distance, -_likeness(plain, name), known[name])
        for name in known
        if abs(len(name) - len(plain)) <= 2
        for distance in [_distance(plain, name)]
        if distance <= 1 or (distance == 2 and (len(name) > 3 or (not elsewhere and set(name) & set(plain))))
    ]
    if likely:
        return min(likely)[2]
    close = difflib.get_close_matches(plain, known, n=1, cutoff=0.75 if elsewhere else 0.6)
    return known[close[0]] if close else None


def _distance(given: str, name: str) -> int:
    """How many letters are added, left out, replaced, or swapped with the next one.

    Example:
        >>> _distance("epocsh", "epochs"), _distance("lr", "l-r")
        (1, 1)
    """
    given, name = _plain(given), _plain(name)
    before: list[int] = []
    row = list(range(len(name) + 1))
    for i, letter in enumerate(given, 1):
        last, before, row = before, row, [i]
        for j, other in enumerate(name, 1):
            best = min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (letter != other))
            if last and j > 1 and letter == name[j - 2] and other == given[i - 2]:
                best = min(best, last[j - 2] + 1)
            row.append(best)
    return row[-1]


def _likeness(given: str, name: str) -> float:
    return difflib.SequenceMatcher(None, name, given).ratio()


def _plain(name: str) -> str:
    return name.lower().replace("-", "_")
