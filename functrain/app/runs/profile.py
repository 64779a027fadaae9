"""`functrain profile`: measure where training time goes."""

import json
import os
from pathlib import Path

from rich.console import Console

from functrain.app.config.build import build_state, build_training_loader, run_length, set_threads
from functrain.app.config.schema import Config
from functrain.app.runs.running import compile_choice
from functrain.app.tables import print_facts, print_lines, print_table
from functrain.diagnostics.profiling import Profile
from functrain.diagnostics.profiling import profile as measure
from functrain.distributed import World
from functrain.foundation.errors import ConfigError
from functrain.foundation.units import size

PROFILES = Path("profiles")


def profile(config: Config, steps: int, out: Path | None, console: Console) -> None:
    """The command.

    Args:
        config: the configuration.
        steps: updates to measure.
        out: where the files go; default: `profiles/<name>`.
        console: what to print on.

    Raises:
        FunctrainError: for everything that a user can put right.
    """
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # or libkineto writes lines of its own to stderr
    folder = out if out is not None else PROFILES / config.name
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"--out {folder} is a file; name a directory")
    training, compiling = config.training, config.compile
    set_threads(config)
    loader = build_training_loader(config)
    state = build_state(config, run_length(config, loader))
    found = measure(
        state,
        loader,
        steps=steps,
        out=folder,
        compile=compile_choice(config, state, loader, World()).compile,
        backend=compiling.backend,
        mode=compiling.mode,
        engine=compiling.engine,
        donate=compiling.donate,
        tail=training.tail,
        micro_batch=training.micro_batch,
        tf32=training.tf32,
    )
    file = folder / "profile.json"
    file.write_text(json.dumps(found.as_dict(), indent=2) + "\n")
    environment = found.environment
    print_facts(
        console,
        f"profile of {config.name}: {steps} updates on {environment['device']}, {environment['compile']}, "
        f"{environment['precision']}",
        _facts(found),
    )
    _print_phases(found, console)
    print_lines(console, [f"{file}", f"{found.trace} (open it at https://ui.perfetto.dev)"])


def _facts(found: Profile) -> list[tuple[str, str]]:
    mfu = "not stated: the peak of this device is not known" if found.mfu is None else f"{found.mfu:.1%} of the peak"
    return [
        ("throughput", f"{found.samples_per_second:,.0f} samples/s, {found.samples_per_update:g} an update"),
        ("first step", f"{found.first_step:.2f} s, with compiling or loading"),
        ("operations", f"{found.flops_per_update:.3g} FLOP an update, {found.flops_per_second:.3g} FLOP/s in the step"),
        ("MFU", mfu),
        ("state", size(found.state_bytes)),
        ("peak memory", "not known" if found.peak_bytes is None else size(found.peak_bytes)),
    ]


def _print_phases(found: Profile, console: Console) -> None:
    update = found.phases["data"].median + found.phases["step"].median
    rows = [
        [
            name,
            f"{phase.median * 1e3:.3f}",
            f"{phase.minimum * 1e3:.3f}",
            f"{phase.median / update:.1%}" if name in ("data", "step") else "",
        ]
        for name, phase in found.phases.items()
    ]
    print_table(console, ["phase, in ms", "median", "min", "share of an update"], rows)
