"""`functrain verify`: compare a run's checkpoints with their checksums."""

from pathlib import Path

from rich.console import Console

from functrain.app.commands.command import FOUND
from functrain.app.runs.directory import runs_beside
from functrain.app.tables import print_lines, print_table
from functrain.checkpoint import DamagedCheckpointError, verify_checkpoint, verify_checkpoints
from functrain.foundation.errors import ConfigError
from functrain.loop.output.progress_line import counted


def verify(path: str | Path, console: Console) -> int:
    """The command: read every checkpoint of a run, or one, and compare it with its checksums.

    Args:
        path: a run's directory, its folder of checkpoints, or a checkpoint's.
        console: what to print on.

    Returns:
        The exit code: 1 if one is damaged or cannot be read.
    """
    path = Path(path)
    if path.is_dir() and path.resolve().name.startswith("step-"):
        return _verify_one(path, console)
    folder = path if path.name == "checkpoints" and path.is_dir() else path / "checkpoints"
    if not folder.is_dir():
        raise ConfigError(f"{path} is no run directory with checkpoints: there is no {folder}{runs_beside(path)}")
    report = verify_checkpoints(folder)
    if not report.checkpoints:
        print_lines(console, [f"{path}: no checkpoint yet"])
    else:
        rows = [[verdict.name, verdict.status, verdict.reason] for verdict in report.checkpoints]
        print_table(console, ["checkpoint", "", "reason"], rows, left=3)
    if report.set_aside:
        print_lines(console, [f"found damaged earlier, and not used: {', '.join(report.set_aside)}"])
    bad = sum(verdict.status != "good" for verdict in report.checkpoints)
    if report.checkpoints and not bad:
        print_lines(console, [f"{counted(len(report.checkpoints), 'checkpoint')}, every byte as written"])
    elif bad:
        resumes = f"a resumed run goes on from {report.newest_good}" if report.newest_good else "none can be resumed"
        print_lines(console, [f"{bad} of {counted(len(report.checkpoints), 'checkpoint')} not good; {resumes}"])
    return FOUND if bad else 0


def _verify_one(path: Path, console: Console) -> int:
    try:
        info = verify_checkpoint(path)
    except DamagedCheckpointError as error:
        print_lines(console, [f"damaged: {error.reason}"])
        return FOUND
    print_lines(console, [f"{info.name}: every byte as written"])
    return 0
