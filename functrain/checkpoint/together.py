"""A checkpoint that several processes write or read: what they tell each other.

Process 0 leads: it names the checkpoint, waits for what the others say of their parts, commits, and tells them how it
ended. So all end alike, whatever happens to one.

    process 0  -> others   the name of the directory that will be renamed when all is in it, or why there is none
    others     -> process 0  the checksums of their rows, or why they could not write them
    process 0  -> others   why it failed, or nothing
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar

from functrain.checkpoint.errors import DamagedCheckpointError, describe
from functrain.foundation.errors import CheckpointError

T = TypeVar("T")
Place = tuple[str, str]  # group and path of a leaf


class Peers(Protocol):
    """The processes, as one of them sees them. What is sent can be pickled."""

    @property
    def rank(self) -> int:
        """The number of this process."""

    @property
    def ranks(self) -> int:
        """How many there are."""

    def send(self, value: Any, rank: int) -> None:
        """Send to a process that receives.

        Raises:
            CheckpointError: it has ended, or does not answer.
        """

    def receive(self, rank: int) -> Any:
        """What a process sends.

        Raises:
            CheckpointError: it has ended, or does not answer.
        """


def agreed(peers: Peers, value: T) -> list[T]:
    """The value of each process, in their order. All must ask.

    Raises:
        CheckpointError: one has ended, or does not answer; the message names it.
    """
    if peers.rank:
        peers.send(value, 0)
        found = peers.receive(0)
    else:
        found = [value]
        for rank in range(1, peers.ranks):
            try:
                found.append(peers.receive(rank))
            except CheckpointError as error:
                found = str(error)
                break
        for rank in range(1, peers.ranks):
            with suppress(CheckpointError):
                peers.send(found, rank)
    if isinstance(found, str):
        raise CheckpointError(found)
    values: list[T] = found
    return values


@dataclass
class Leading:
    """Process 0's side of a save."""

    peers: Peers
    _waiting: list[int] = field(default_factory=list)  # who has not said anything yet
    _told: bool = False

    def begin(self, temporary: Path) -> None:
        """Let the others write."""
        self._tell({"name": temporary.name})
        self._waiting = list(range(1, self.peers.ranks))

    def sums(self) -> dict[int, Mapping[Place, int]]:
        """The checksums of the others' rows, by process, when all have written theirs.

        Raises:
            CheckpointError: one has not; the message names it.
        """
        found: dict[int, Mapping[Place, int]] = {}
        reasons = []
        while self._waiting:
            rank = self._waiting.pop(0)
            try:
                said = self.peers.receive(rank)
            except CheckpointError as error:
                reasons.append(str(error))
                continue
            if "error" in said:
                reasons.append(f"process {rank} could not write its rows: {said['error']}")
            else:
                found[rank] = said["sums"]
        if reasons:
            raise CheckpointError("; ".join(reasons))
        return found

    def end(self, error: BaseException | None) -> None:
        """Tell the others how it ended."""
        if self._told:
            with suppress(CheckpointError):
                self.sums()
        self._tell({"error": None if error is None else _words(error)})

    def _tell(self, value: Mapping[str, Any]) -> None:
        self._told = True
        for rank in range(1, self.peers.ranks):
            with suppress(CheckpointError):  # one that has ended is found out when it is asked
                self.peers.send(value, rank)


@contextmanager
def led(peers: Peers | None) -> Iterator[Leading | None]:
    """A save by process 0: the others hear how it ended, however it does. None: it writes alone."""
    if peers is None:
        yield None
        return
    leading = Leading(peers)
    try:
        yield leading
    except BaseException as error:
        leading.end(error)
        raise
    leading.end(None)


def followed(peers: Peers, write: Callable[[str], Mapping[Place, int]]) -> None:
    """The part of a process other than 0 in a save.

    Args:
        peers: the processes.
        write: writes this process's rows, given the name of the directory that will be renamed; their checksums.

    Raises:
        CheckpointError: nothing was committed; the message says why, and names the process that failed.
    """
    said = peers.receive(0)
    if "name" in said:
        try:
            answer: dict[str, Any] = {"sums": write(said["name"])}
        except BaseException as error:
            answer = {"error": _words(error)}
        peers.send(answer, 0)
        said = peers.receive(0)
    if said["error"] is not None:
        raise CheckpointError(said["error"])


def read_alike(peers: Peers, read: Callable[[], tuple[T, Mapping[Place, int]]]) -> tuple[T, list[Mapping[Place, int]]]:
    """What this process has read, and the checksums of all processes' rows. All succeed, or none does.

    Args:
        peers: the processes.
        read: reads this process's part; its value, and the checksums of its rows.

    Raises:
        DamagedCheckpointError: a process found damage.
        CheckpointError: a process could not read its part; the message names it.
    """
    own: BaseException | None = None
    try:
        value, sums = read()
        said: dict[str, Any] = {"sums": sums}
    except BaseException as error:
        own = error
        where = (error.path, error.reason) if isinstance(error, DamagedCheckpointError) else None
        said = {"error": _words(error), "damage": where}
    every = agreed(peers, said)
    if own is not None:
        raise own
    for rank, other in enumerate(every):
        if other.get("damage"):
            raise DamagedCheckpointError(*other["damage"])
        if "error" in other:
            raise CheckpointError(f"process {rank}: {other['error']}")
    return value, [other["sums"] for other in every]


def told_by_first(peers: Peers, ask: Callable[[], T]) -> T:
    """What process 0 finds, on all of them; an error of its own is raised on all."""
    found, _ = read_alike(peers, lambda: (None if peers.rank else ask(), {}))
    answer = agreed(peers, found)[0]
    assert answer is not None
    return answer


def _words(error: BaseException) -> str:
    return str(error) if isinstance(error, CheckpointError) else describe(error)
