"""What a rank leaves for its launcher: that it has joined the others, and why it ended.

A rank that fails takes the others with it, since their collectives fail. So ranks report, and the launcher tells the
cause once. This imports the standard library only.
"""

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

FOLDER = "FUNCTRAIN_LAUNCHER"  # the variable with the folder that launcher and ranks share
RANK = "RANK"

# Parts of the messages with which gloo, NCCL and torch's stores say that a peer has gone or does not answer.
_OF_PEERS = (
    "/gloo/",
    "Connection closed by peer",
    "Application timeout caused pair closure",
    "Connect timeout",
    "NCCL error",
    "ncclRemoteError",
    "ncclSystemError",
    "wait timeout after",
)


class Report(NamedTuple):
    """Why a rank ended.

    Attributes:
        rank: which.
        text: the message, or the traceback.
        is_traceback: which of the two.
        of_peers: a collective failed: the cause is another rank, or the connection to it.
    """

    rank: int
    text: str
    is_traceback: bool = False
    of_peers: bool = False


def is_launched() -> bool:
    """Whether a launcher of functrain started this process."""
    return FOLDER in os.environ


def reported(text: str, error: BaseException, *, is_traceback: bool = False) -> bool:
    """Leave the error of this rank to the launcher, which tells it.

    Args:
        text: what there is to say.
        error: the error.
        is_traceback: the text is a traceback.

    Returns:
        False if no launcher started this process, so that the caller must tell it.
    """
    if not is_launched():
        return False
    rank = int(os.environ[RANK])
    report = Report(rank, text, is_traceback, is_of_peers(error))
    path = _path(Path(os.environ[FOLDER]), rank)
    try:
        path.with_suffix(".part").write_text(json.dumps(report._asdict()), encoding="utf-8")
        path.with_suffix(".part").replace(path)
    except OSError:  # no space, or the launcher has gone
        print(text, file=sys.stderr)
    return True


def is_of_peers(error: BaseException) -> bool:
    """Whether an error came of a collective that failed.

    Example:
        >>> (
        ...     is_of_peers(RuntimeError("[/gloo/transport/tcp/pair.cc:553] Connection closed by peer")),
        ...     is_of_peers(ValueError("x")),
        ... )
        (True, False)
    """
    return any(
        type(each).__name__.startswith("Dist") or any(part in str(each) for part in _OF_PEERS)
        for each in _chain(error)
        if isinstance(each, RuntimeError)
    )


def _chain(error: BaseException) -> Iterator[BaseException]:
    """An error and those that it came of."""
    seen: set[int] = set()
    while id(error) not in seen:
        seen.add(id(error))
        yield error
        before = error.__cause__ or error.__context__
        if before is None:
            return
        error = before


def read_report(folder: Path, rank: int) -> Report | None:
    """The report of a rank; None if it has left none."""
    try:
        values: dict[str, Any] = json.loads(_path(folder, rank).read_text(encoding="utf-8"))
        return Report(**values)
    except (OSError, ValueError, TypeError):
        return None


def say_joined() -> None:
    """Tell the launcher, if there is one, that this rank has joined the others."""
    if is_launched():
        _joined(Path(os.environ[FOLDER]), int(os.environ[RANK])).touch()


def has_joined(folder: Path, rank: int) -> bool:
    """Whether a rank has joined the others."""
    return _joined(folder, rank).exists()


def _path(folder: Path, rank: int) -> Path:
    return folder / f"rank-{rank}.json"


def _joined(folder: Path, rank: int) -> Path:
    return folder / f"rank-{rank}.joined"
