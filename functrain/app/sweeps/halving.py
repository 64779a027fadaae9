"""Successive halving: train all members for a few epochs, the better part of them for longer, and so on.

Rungs are synchronous: the members that go on are chosen when all have reached a rung. So the choice is a function of
the recorded metrics, whichever member ends first and however often the sweep was killed.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from functrain.app.sweeps.plan import Member
from functrain.app.sweeps.results import Result, ranked
from functrain.foundation.errors import ConfigError


class Halving(NamedTuple):
    """How members are pruned.

    Attributes:
        min_epochs: epochs of the first rung.
        factor: of the members of a rung, one in so many goes on, and trains for so many times as long.
    """

    min_epochs: int
    factor: int

    def rungs(self, epochs: int) -> list[int]:
        """The epochs after which members are pruned, in a run of so many epochs.

        Example:
            >>> Halving(1, 3).rungs(20)
            [1, 3, 9]
        """
        found, rung = [], self.min_epochs
        while rung < epochs:
            found.append(rung)
            rung *= self.factor
        return found

    def survivors(self, members: Sequence[Member], results: Mapping[str, Result]) -> list[Member]:
        """The members that go on, in their order: at least one, if any has a metric.

        Args:
            members: that have reached the rung, or failed before.
            results: up to the rung, by name.
        """
        alive = [member for member in ranked(members, results) if results[member.name].best is not None]
        best = {member.name for member in alive[: max(len(alive) // self.factor, 1)]}
        return [member for member in members if member.name in best]


def length(members: Sequence[Member]) -> int:
    """The epochs that all members have.

    Raises:
        ConfigError: they are not counted in epochs, or differ.
    """
    lengths = {member.epochs for member in members}
    epochs = lengths.pop() if len(lengths) == 1 else None
    if epochs is None or any(member.last["training"]["steps"] is not None for member in members):
        raise ConfigError(
            "--asha compares members after so many epochs: give all of them the same training.epochs, and no "
            "training.steps"
        )
    return epochs
