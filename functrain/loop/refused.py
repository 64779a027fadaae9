"""No folder is left behind by a run that was refused before it began."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

LARGEST = 10_000_000  # bytes of a file that a start writes: a patch is the largest
WRITTEN = (
    "config.yaml",
    "environment.json",
    "uncommitted-*.patch",
    "status.json",
    "ancestry.json",
    "start",
    "metrics.csv",
    "metrics.jsonl",
    "timing.csv",
    "events",
    "wandb",  # the folder that Weights & Biases writes
    "wandb.json",
    "mlflow.json",
    "checkpoints",
)


@contextmanager
def nothing_left_if_refused(run_dir: Path | None) -> Iterator[None]:
    """Remove a run directory that was made within, if an error ends it before anything was trained or saved.

    Args:
        run_dir: the run's; None for none.
    """
    if run_dir is None or run_dir.exists():
        yield
        return
    made = [run_dir, *(folder for folder in run_dir.parents if not folder.exists())]
    try:
        yield
    except Exception:
        with suppress(OSError):
            if run_dir.is_dir() and _holds_nothing(run_dir):
                shutil.rmtree(run_dir)
                for folder in made[1:]:
                    folder.rmdir()  # only an empty one
        raise


def _holds_nothing(run_dir: Path) -> bool:
    """Whether there is no checkpoint, no record in the log, and nothing that a start does not write.

    A lock file is another run's: this run has removed its own.
    """
    log = run_dir / "metrics.jsonl"
    if log.is_file() and log.stat().st_size:
        return False
    checkpoints = run_dir / "checkpoints"
    if checkpoints.is_dir() and any(checkpoints.iterdir()):
        return False
    inside = list(run_dir.iterdir())
    return all(any(map(path.match, WRITTEN)) for path in inside) and all(
        path.stat().st_size <= LARGEST for path in inside if path.is_file()
    )
