"""`functrain export`: write a checkpoint's model to a file that other libraries read."""

import inspect
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

import torch
from rich.console import Console
from torch import nn

from functrain.app.config.build import build_state
from functrain.app.config.schema import Config
from functrain.app.runs.directory import position
from functrain.app.runs.export_archive import write_run_archive
from functrain.app.runs.from_checkpoint import checkpoint_at, config_of
from functrain.app.tables import print_facts, print_lines
from functrain.checkpoint import CheckpointInfo, read_checkpoint, save_safetensors, save_torch
from functrain.foundation.errors import ConfigError
from functrain.foundation.units import size
from functrain.loop.output.progress_line import counted
from functrain.loop.resume.metadata import metadata_of
from functrain.optim import learning_rate, no_decay_1d
from functrain.step import TrainState, to_module

TORCH_SUFFIXES, SAFETENSORS, ARCHIVE = (".pt", ".pth"), ".safetensors", ".zip"
OPTIMIZERS: Mapping[str, Callable[..., torch.optim.Optimizer]] = {
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "sgd": torch.optim.SGD,
}


def export(path: str | Path, out: str | Path, ema: bool, optimizer: bool, trust: bool, console: Console) -> None:
    """The command.

    Args:
        path: a checkpoint's directory, or a run's, meaning its last checkpoint.
        out: the file, in the format of its suffix.
        ema: write the averaged parameters.
        optimizer: write the optimizer's state, too.
        trust: the user vouches for a checkpoint that somebody else wrote.
        console: what to print on.

    Raises:
        ConfigError: if it is neither, carries no configuration, or what is asked for is not in it.
        CheckpointError: if it cannot be read, or the file cannot be written.
    """
    out = Path(out)
    _check_suffix(out, optimizer)
    info, config = config_of(checkpoint_at(Path(path)), trust)
    config = config.model_copy(update={"training": config.training.model_copy(update={"device": "cpu"})})
    if ema and config.training.ema_decay is None:
        raise ConfigError(f"--ema: the run of {info.path} keeps no averages (training.ema_decay is not set)")
    kind = _torch_kind(config) if optimizer else None
    # The optimizer's state in any case: some evaluate at other parameters than they train.
    groups = ["params", "buffers", "opt_state", "counts", "step", "epoch", *(["ema"] if ema else [])]
    state: TrainState = read_checkpoint(info.path, build_state(config, length=None), groups=groups).tree
    if out.suffix == ARCHIVE:
        written = write_run_archive(info, config, state, out, ema=ema)
        print_facts(
            console,
            f"{out}: {'averaged ' if ema else ''}parameters of {info.path} ({position(info)}), {_size(out)}",
            [("files", ", ".join(_listed(written.members))), ("program", written.program)],
        )
        return
    if out.suffix == SAFETENSORS:
        save_safetensors(state, out, ema=ema, metadata=_header(info, ema))
    else:
        template = None if kind is None else _template(kind, config, state)
        save_torch(state, out, ema=ema, optimizer=template)
    parts = ["averaged parameters" if ema else "parameters", *(["optimizer state"] if optimizer else [])]
    print_lines(console, [f"{out}: {' and '.join(parts)} of {info.path} ({position(info)}), {_size(out)}"])


def _listed(members: Sequence[str]) -> Iterator[str]:
    """The names of files, and how many there are in a folder."""
    folders = Counter(name.partition("/")[0] for name in members if "/" in name)
    yield from (name for name in members if "/" not in name)
    yield from (f"{folder}/ ({counted(count, 'file')})" for folder, count in folders.items())


def _size(out: Path) -> str:
    return size(out.stat().st_size)


def _check_suffix(out: Path, optimizer: bool) -> None:
    if out.suffix not in (*TORCH_SUFFIXES, SAFETENSORS, ARCHIVE):
        raise ConfigError(
            f"{out}: the suffix says the format; use {', '.join(TORCH_SUFFIXES)} (torch.save), {SAFETENSORS} or "
            f"{ARCHIVE} (an archive)"
        )
    if optimizer and out.suffix not in TORCH_SUFFIXES:
        raise ConfigError(f"--optimizer: a {out.suffix} file holds the model's tensors alone; use .pt")


def _header(info: CheckpointInfo, ema: bool) -> dict[str, str]:
    """What a safetensors file says besides its tensors."""
    which, epoch = ("averaged" if ema else "trained"), metadata_of(info).epoch
    return {
        "functrain": version("functrain"),
        "step": str(info.step),
        "epoch": "" if epoch is None else str(epoch),
        "parameters": which,
    }


def _torch_kind(config: Config) -> Callable[..., torch.optim.Optimizer]:
    kind = OPTIMIZERS.get(config.optimizer.name)
    if kind is None:
        raise ConfigError(
            f"--optimizer: the run's optimizer is {config.optimizer.name}; torch.optim has the states of "
            f"{', '.join(OPTIMIZERS)}. Leave --optimizer out"
        )
    return kind


def _template(kind: Callable[..., torch.optim.Optimizer], config: Config, state: TrainState) -> torch.optim.Optimizer:
    """A torch optimizer with the run's hyperparameters, which have torch's names, and its last learning rate."""
    named = [(name, p) for name, p in to_module(state).named_parameters() if p.requires_grad]
    known = inspect.signature(kind).parameters
    given = config.optimizer.parameters
    strangers = [name for name in given if name not in known]
    if strangers:
        raise ConfigError(f"--optimizer: torch's {config.optimizer.name} has no {', '.join(strangers)}")
    rate = learning_rate(state.opt_state)
    lr = config.optimizer.lr if rate is None else rate.item()
    return kind(_groups(named, config), lr=lr, **given)


def _groups(named: list[tuple[str, nn.Parameter]], config: Config) -> list[dict[str, object]]:
    """Groups of named parameters, with and without weight decay; their order is not the module's."""
    if config.optimizer.weight_decay_mask == "all":
        return [{"params": named}]
    decaying = [no_decay_1d(name, parameter) for name, parameter in named]
    parts = [[pair for pair, decays in zip(named, decaying) if decays is chosen] for chosen in (True, False)]
    return [{"params": part, **extra} for part, extra in zip(parts, ({}, {"weight_decay": 0.0})) if part]
