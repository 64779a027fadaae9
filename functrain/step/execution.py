"""How the pure core of a step is run: at once, or compiled.

A step is a host part (counters, keys) around a *core*: a pure function from trees of tensors to trees
of tensors. A `Runner` runs cores. `eager` runs them as they are; `functrain.compiler` has one that
compiles them. Host integers in a core's arguments pass through a core untouched.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Protocol, TypeVar

import torch
from torch import Tensor

from functrain.foundation.errors import FunctrainError
from functrain.foundation.keys import torch_seed
from functrain.foundation.summation import repeatable_sums
from functrain.foundation.trees import tree_map
from functrain.metrics.ones import are_ones

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Core:
    """A pure function `(state, batch) -> (state, out)`, or `(state, batch) -> out`.

    Attributes:
        fn: the function. Of the state's host integers it reads none.
        name: for messages and the count of compilations.
        carries_state: whether the first result is the first argument's successor, of the same structure,
            so that it may be written into its storage.
        each: `fn` of one state and several batches, in less time; for eager runs of a core that carries no state.
        own_batch: the second argument is functrain's own and used once: no code of a user's can write into it, so an
            eager run takes it as it is.
    """

    fn: Callable[[Any, Any], Any]
    name: str
    carries_state: bool
    each: Callable[[Any, Iterable[Any]], list[Any]] | None = None
    own_batch: bool = False


class _Host:
    """Stands in for a host leaf while a core is traced; a core that computes with one fails loudly."""

    def __repr__(self) -> str:
        return "<a host value, which a compiled step cannot read>"


HOST = _Host()


class Runner(ABC):
    """Runs cores.

    Attributes:
        donate: a carried state's successor is written into its storage, and the state is consumed.
        rows: how many examples of a batch are in a forward and backward pass, at most; None: all.
        makes_graphs: a core is one graph, in which collectives may stand.
        makes_series: it can run cores one after another without a state for each of those in between.
    """

    donate: bool = False
    rows: int | None = None
    makes_graphs: ClassVar[bool] = False
    makes_series: ClassVar[bool] = False

    @abstractmethod
    def __call__(self, core: Core, state: Any, batch: Any, *, key: Callable[[], int], device: torch.device) -> Any:
        """The core's result; global random generators are seeded with `key()` for it, and put back.

        A key takes some microseconds to hash, so a runner that knows that nothing is drawn need not ask for it.
        """

    def each(
        self, core: Core, state: Any, batches: Iterable[Any], *, key: Callable[[], int], device: torch.device
    ) -> "Results":
        """The results for one state and several batches of a core that carries no state."""
        return Results([self(core, state, batch, key=key, device=device) for batch in batches])

    def series(self, state: Any) -> "Series":
        """Cores one after another, beginning with `state`, for a runner that `makes_series`."""
        raise NotImplementedError(f"{self!r} makes a state for each core that it runs")


class Results(NamedTuple):
    """What a core gave for several batches.

    Attributes:
        results: for each batch.
        drew: random numbers were drawn, so that only the first result is that of a single call.
    """

    results: list[Any]
    drew: bool = False


class Series(Protocol):
    """Cores that carry a state, one after another. Making no state for those in between saves time."""

    def __call__(self, core: Core, batch: Any, *, key: Callable[[], int], device: torch.device) -> Any:
        """Run a core on the state at hand; its results beside the state."""

    def end(self) -> Any:
        """The state after all of them."""


class RunAgainError(Exception):
    """Raised by a core that has learnt how it must run; the next run will be right."""


def run_again(fn: Callable[[], T]) -> T:
    """What `fn`, which runs a core, gives; at once or, after `RunAgainError`, the second time."""
    try:
        return fn()
    except RunAgainError:
        return fn()


class Eager(Runner):
    """Runs a core operation by operation, on a copy of the batch: a model may write into its inputs."""

    def __call__(self, core: Core, state: Any, batch: Any, *, key: Callable[[], int], device: torch.device) -> Any:
        """Run it; again if it has learnt how it must run."""

        def run() -> Any:
            with torch_seed(key(), device), repeatable_sums(device):
                return core.fn(state, batch if core.own_batch else _copied(batch))

        return run_again(run)

    def each(
        self, core: Core, state: Any, batches: Iterable[Any], *, key: Callable[[], int], device: torch.device
    ) -> "Results":
        """Run it on all batches with the generators seeded once."""
        if core.each is None:
            return super().each(core, state, batches, key=key, device=device)
        with torch_seed(key(), device) as seeded, repeatable_sums(device):
            return Results(core.each(state, map(_copied, batches)), seeded.drew())

    def __repr__(self) -> str:
        """As it is called in signatures."""
        return "eager"


eager = Eager()


def _copied(batch: Any) -> Any:
    """The batch with tensors of its own, but for weights that functrain made, which nobody is given to write to."""
    return tree_map(lambda leaf: leaf.clone() if isinstance(leaf, Tensor) and not are_ones(leaf) else leaf, batch)


def refuse_inference_mode() -> None:
    """Refuse to train within the caller's `torch.inference_mode`, in which every gradient is 0.

    Raises:
        FunctrainError: if there is one.
    """
    if torch.is_inference_mode_enabled():
        raise FunctrainError(
            "training was called inside torch.inference_mode(), where no gradient can be computed. Call init_state, "
            "train_step and fit outside of it (torch.no_grad() does no harm)"
        )


def refuse_autocast(device: torch.device) -> None:
    """Refuse to run within the caller's `torch.autocast`, which would reach the backward pass but not the forward.

    Raises:
        FunctrainError: if there is one.
    """
    if torch.is_autocast_enabled(device.type):
        raise FunctrainError(
            "a step must be called outside of torch.autocast: the state says in which precision to compute. Give "
            "init_state precision='bf16' (or 'fp16') instead"
        )
