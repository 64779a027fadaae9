"""The kinds of `fit`'s arguments that are not in its plan."""

import os
from collections.abc import Mapping
from typing import Any


def check_kinds(
    *,
    run_dir: Any,
    metadata: Any,
    keep: Any,
    keep_best: Any,
    progress: Any,
    tf32: Any,
    **flags: Any,
) -> None:
    """Refuse arguments of the wrong kind, before anything is done.

    Args:
        run_dir, metadata, keep, keep_best, progress, tf32: as given to `fit`.
        flags: what must be True or False, by name.

    Raises:
        TypeError, ValueError: for what is not allowed.
    """
    if run_dir is not None and (not isinstance(run_dir, str | os.PathLike) or not os.fspath(run_dir)):
        raise TypeError(f"run_dir must be the path of a directory, or None to keep nothing; got {run_dir!r}")
    if metadata is not None and not isinstance(metadata, Mapping):
        raise TypeError(f"metadata must be a dictionary of what JSON can hold, or None; got {metadata!r}")
    for name, value in (("keep", keep), ("keep_best", keep_best)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"{name} must be a whole number of checkpoints, 1 or more; got {value!r}")
    for name, value in flags.items():
        if not isinstance(value, bool):
            raise TypeError(f"{name} must be True or False; got {value!r}")
    if progress is not None and not isinstance(progress, bool) and progress != "curve":
        raise TypeError(f"progress must be True, False, 'curve' or None; got {progress!r}")
    if tf32 is not None and not isinstance(tf32, bool):
        raise TypeError(f"tf32 must be True, False or None; got {tf32!r}")
