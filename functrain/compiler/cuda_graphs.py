"""Donated steps as CUDA graphs: one launch for a whole step.

A CUDA graph repeats what was launched, on the addresses that were used. A donated state keeps its addresses from step
to step, so it is read and written where it is; a batch is copied into buffers that stay; results are copied
out of the graph's own memory, which the next step overwrites. Nothing that a caller keeps is ever overwritten.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from functrain.compiler.request import Program

MODES = ("reduce-overhead", "max-autotune")


def wanted(mode: str, device: torch.device) -> bool:
    """Whether steps on this device become CUDA graphs."""
    return mode in MODES and device.type == "cuda"


def check(mode: str, *, donates: bool, random: bool, symbols: bool = False) -> None:
    """Refuse what a CUDA graph would get wrong.

    Raises:
        ValueError: naming the way out.
    """
    if not donates:
        raise ValueError(
            f"mode={mode!r} makes CUDA graphs, which need a state that stays where it is: give donate=True, or "
            "mode='default'"
        )
    if random:
        raise ValueError(
            f"mode={mode!r} makes CUDA graphs, and this step draws random numbers (dropout, say), which must be other "
            "ones at each step: give mode='default' or 'max-autotune-no-cudagraphs'"
        )
    if symbols:
        raise ValueError(
            f"mode={mode!r} makes CUDA graphs, whose tensors have fixed sizes, but this step has sizes that depend on "
            "values (a mask as index or nonzero()): give mode='default' or 'max-autotune-no-cudagraphs'"
        )


@dataclass
class _Graph:
    """A recorded call.

    Attributes:
        state: the tensors it reads and writes; kept, so that their addresses stay theirs.
        batch: its own buffers for the others.
        results: where it leaves its results.
        replay: does it again.
    """

    state: list[Tensor]
    batch: list[Tensor]
    results: list[Tensor]
    replay: Callable[[], None]


class Recorded:
    """A program that is run once as it is, recorded at its second call, and replayed from then on.

    A state at other addresses (a second run's, say) is recorded anew.

    Args:
        program: writes the new state into the first `n_state` of its inputs.
        n_state: how many of its inputs are the state's.
    """

    def __init__(self, program: Program, n_state: int) -> None:
        self._program = program
        self._n_state = n_state
        self._warm = False
        self._graph: _Graph | None = None

    def __call__(self, inputs: list[Tensor]) -> list[Tensor]:
        """The program's results, in storage of their own."""
        if not self._warm:  # libraries make their handles and workspaces at a first call, which cannot be recorded
            self._warm = True
            return self._program(inputs)
        state, batch = inputs[: self._n_state], inputs[self._n_state :]
        graph = self._graph
        if graph is None or any(now is not then for now, then in zip(state, graph.state, strict=True)):
            self._graph = None  # its memory first
            graph = self._graph = self._record(state, batch)
        for buffer, tensor in zip(graph.batch, batch, strict=True):
            buffer.copy_(tensor, non_blocking=True)
        graph.replay()
        return [result.clone() for result in graph.results]

    def _record(self, state: list[Tensor], batch: list[Tensor]) -> _Graph:
        buffers = [tensor.clone() for tensor in batch]
        results, replay = capture(self._program, [*state, *buffers])
        return _Graph(state, buffers, results, replay)


def capture(program: Program, inputs: list[Tensor]) -> tuple[list[Tensor], Callable[[], None]]:
    """Record a call without executing it: where its results will be, and what executes it."""
    graph = torch.cuda.CUDAGraph()
    # Other threads (one that pins batches, say) may go on calling CUDA meanwhile.
    with torch.cuda.device(inputs[0].device), torch.cuda.graph(graph, capture_error_mode="thread_local"):
        results = program(list(inputs))
    return results, graph.replay
