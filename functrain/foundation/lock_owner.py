"""Who holds the lock of a run's directory."""

from dataclasses import dataclass


@dataclass(frozen=True)
class LockOwner:
    """Who holds a lock.

    Attributes:
        pid: of the process.
        host: the machine's name.
        since: when the lock was taken, ISO 8601 in UTC.
        process_start: when the process began, in the system's own terms: it tells the process from a later
            one with the same pid. "" if the system does not say.
        job: a scheduler's number of the job and of its restart, such as SLURM's; "" outside of one.
    """

    pid: int
    host: str
    since: str
    process_start: str = ""
    job: str = ""

    def __str__(self) -> str:
        """For messages: process 17 on host node3, since 2026-01-31T12:00:00+00:00."""
        return f"process {self.pid} on host {self.host}, since {self.since}"
