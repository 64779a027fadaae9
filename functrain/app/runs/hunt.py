"""`functrain hunt`: train again from a checkpoint until a value is not finite, and name it."""

from pathlib import Path

from rich.console import Console

from functrain.app.commands.command import FOUND
from functrain.app.runs.from_checkpoint import checkpoint_at, rebuilt_run
from functrain.app.tables import print_lines
from functrain.checkpoint import Checkpointer
from functrain.diagnostics import find_nonfinite
from functrain.loop.output.progress_line import counted


def hunt(path: str | Path, checkpoint: str | None, steps: int, trust: bool, console: Console) -> int:
    """The command: train again eagerly until a value is not finite, and print where.

    Args:
        path: a run's directory.
        checkpoint: the name of the one to begin with; None: the newest of status NONFINITE, or else the newest.
        steps: give up after so many updates.
        trust: the user vouches for a run that somebody else wrote.
        console: what to print on.

    Returns:
        The exit code: 1 if something was found.
    """
    folder = checkpoint_at(Path(path)).resolve().parent
    if checkpoint is None:
        infos = Checkpointer(folder, read_only=True).infos()
        stopped = [info.name for info in infos if info.status == "NONFINITE"]
        checkpoint = (stopped or [info.name for info in infos])[-1]
    run = rebuilt_run(checkpoint_at(folder / checkpoint, whole_runs=False), trust)
    found = find_nonfinite(run.state, run.loader, checkpoint=run.info.path, steps=steps)
    if found is None:
        print_lines(console, [f"all is finite in {counted(steps, 'step')} from {checkpoint}"])
        return 0
    print_lines(console, [f"from {checkpoint}, trained again eagerly, the first that is not finite:", f"  {found}"])
    return FOUND
