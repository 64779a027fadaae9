"""A core that is run for one state and batch after batch."""

import contextlib
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn

import torch

from functrain.foundation.containers import register_containers
from functrain.step.execution import Core, Runner


@dataclass(eq=False)
class Pass:
    """Runs a core that carries no state, several batches at a time where that takes less time.

    Attributes:
        run: runs cores; any other callable than a `Runner` is called for each batch.
        core: what is run.
        state: its first argument, the same for all batches.
        key: as of a `Runner`, the same for all batches.
        device: where is computed.
        explain: raises an error that a batch has led to, or a better one in its place.
    """

    run: Runner | Callable[..., Any]
    core: Core
    state: Any
    key: Callable[[], int]
    device: torch.device
    explain: Callable[[Exception, Any], NoReturn]
    _began: bool = field(default=False, init=False)
    _singly: bool = field(default=False, init=False)

    def __call__(self, batch: Any) -> Any:
        """The core's result for a batch."""
        register_containers(batch)
        try:
            return self.run(self.core, self.state, batch, key=self.key, device=self.device)
        except Exception as error:
            self.explain(error, batch)

    def each(self, batches: Sequence[Any], go_on: Callable[[], bool] = lambda: True) -> list[Any]:
        """The result for each batch, with the bits of single calls.

        Args:
            batches: some, all of which are in memory.
            go_on: asked before each batch; the results end before the first one for which it says no.
        """
        count = len(batches) if self._began else 1  # the first alone, which shows whether the model draws
        self._began = True
        found = self._together(batches[:count], go_on)
        rest = batches[count:]
        return found + self._together(rest, go_on) if rest and len(found) == count else found

    def _together(self, batches: Sequence[Any], go_on: Callable[[], bool]) -> list[Any]:
        if isinstance(self.run, Runner) and not self._singly:
            given = map(_registered, itertools.takewhile(lambda _: go_on(), batches))
            with contextlib.suppress(Exception):  # in single calls it shows which batch fails
                found = self.run.each(self.core, self.state, given, key=self.key, device=self.device)
                self._singly = found.drew
                if not found.drew or len(batches) == 1:
                    return found.results
        return [self(batch) for batch in itertools.takewhile(lambda _: go_on(), batches)]


def _registered(batch: Any) -> Any:
    register_containers(batch)
    return batch
