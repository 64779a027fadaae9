"""The digests in the logs of two runs, compared."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from functrain.loop.output.log_files import DIGEST, readable_records


class Moment(NamedTuple):
    """A state in a run: after an update, or after the end of the epoch that this update ends. They are in order.

    Example:
        >>> str(Moment(17, True)), Moment(17, False) < Moment(17, True) < Moment(18, False)
        ('step 17, at the end of the epoch', True)
    """

    step: int
    ends_epoch: bool

    def __str__(self) -> str:
        return f"step {self.step}" + (", at the end of the epoch" if self.ends_epoch else "")


class Parting(NamedTuple):
    """Where two logs part.

    Attributes:
        equal: the last moment with one digest before they part; None if there is none.
        differs: the first moment with two digests; None if there is none.
        compared: moments with one digest.
    """

    equal: Moment | None
    differs: Moment | None
    compared: int


def digests(run: Path) -> dict[Moment, str]:
    """The digests in a run's log."""
    return {
        Moment(record["step"], record["kind"] == "epoch"): str(record[DIGEST])
        for record in readable_records(run).records
        if DIGEST in record
    }


def parting(left: Mapping[Moment, str], right: Mapping[Moment, str]) -> Parting:
    """Where two logs part, by the moments that both have a digest of.

    Example:
        >>> parting({Moment(1, False): "a", Moment(2, True): "b"}, {Moment(1, False): "a", Moment(2, True): "c"})
        Parting(equal=Moment(step=1, ends_epoch=False), differs=Moment(step=2, ends_epoch=True), compared=1)
    """
    equal: Moment | None = None
    count = 0
    for moment in sorted(left.keys() & right.keys()):
        if left[moment] != right[moment]:
            return Parting(equal, moment, count)
        equal, count = moment, count + 1
    return Parting(equal, None, count)
