"""What a run on many processes takes, from one process: memory, operations, messages and the time of an update."""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor

from functrain.compiler.sizes import fake_mode
from functrain.data import to_device
from functrain.diagnostics.fake_ranks import Message, Messages
from functrain.diagnostics.flops import TERA, flop_counter
from functrain.diagnostics.model_summary import StateMemory, memory_facts, state_memory
from functrain.diagnostics.without_values import LiveMemory
from functrain.foundation.torch_internals import rehearsing
from functrain.foundation.trees import Tree, nbytes, tensors, tree_map
from functrain.foundation.units import operations, seconds, size
from functrain.step import TrainState, train_step

GIGA, MICRO = 1e9, 1e-6


@dataclass(frozen=True)
class Rates:
    """What a machine does in a second.

    Attributes:
        device_tflops: 10^12 operations of matrix products, as they run in training.
        link_gbytes: 10^9 bytes that a process sends to another one, while it receives as many.
        latency_us: microseconds that a message takes from one process to the next, beside its bytes.
    """

    device_tflops: float = 400.0
    link_gbytes: float = 50.0
    latency_us: float = 10.0


@dataclass(frozen=True)
class Sent:
    """The messages of one kind in an update.

    Attributes:
        kind: as of a `Message`.
        messages: how many.
        nbytes: that each process sends in all of them.
        steps: from a process to the next, of all of them: one less than there are processes in a ring.
    """

    kind: str
    messages: int
    nbytes: int
    steps: int


@dataclass(frozen=True)
class Plan:
    """What each process of a run takes.

    Attributes:
        world: the number of processes.
        examples: of an update, on all processes.
        micro_batches: of an update, on this process.
        whole: bytes of the whole state.
        memory: what this process keeps of it between updates, and in `step` the most that is alive in an eager
            update: that state, a micro-batch, gathered parameters, activations, gradients, messages, the next state.
            The memory of the process itself, of kernels' own workspaces, and what an allocator adds are not in it.
        flops: of an update's matrix products, convolutions and attention on this process.
        sent: by kind.
        rates: that the times are computed with.
    """

    world: int
    examples: int
    micro_batches: int
    whole: int
    memory: StateMemory
    flops: int
    sent: tuple[Sent, ...]
    rates: Rates

    @property
    def compute_s(self) -> float:
        """Seconds of an update's operations."""
        return self.flops / (self.rates.device_tflops * TERA)

    @property
    def messages_s(self) -> float:
        """Seconds of an update's messages: each goes around the ring of its processes."""
        steps = sum(each.steps for each in self.sent)
        return steps * self.rates.latency_us * MICRO + sum(each.nbytes for each in self.sent) / (
            self.rates.link_gbytes * GIGA
        )

    @property
    def update_s(self) -> float:
        """Seconds of an update: messages are sent before and after its operations, not beside them."""
        return self.compute_s + self.messages_s

    def facts(self) -> dict[str, str]:
        """It in words."""
        rates = self.rates
        passes = f"{self.micro_batches:,} micro-batch{'' if self.micro_batches == 1 else 'es'}"
        found = {
            "processes": f"{self.world:,}, each with {passes} an update; {self.examples:,} examples for all together",
            "state": f"{size(self.memory.state)} of {size(self.whole)} on a process "
            f"({self.memory.state / max(self.whole, 1):.3f})",
            "parts": memory_facts(self.memory)["state"].partition(": ")[2],
            "peak": f"{size(self.memory.step or 0)} in an eager update, with activations, gradients and messages",
            "operations": f"{operations(self.flops)} an update and process",
        }
        for each in self.sent:
            plural = "s" if each.messages > 1 else ""
            found[each.kind] = f"{each.messages} message{plural}, a process sends {size(each.nbytes)}"
        share = self.messages_s / self.update_s if self.update_s else 0.0
        found["time"] = (
            f"{seconds(self.update_s)} an update: operations {seconds(self.compute_s)}, messages "
            f"{seconds(self.messages_s)} ({share:.0%})"
        )
        found["assumed"] = (
            f"{rates.device_tflops:g} TFLOP/s, {rates.link_gbytes:g} GB/s and {rates.latency_us:g} us a message to the "
            "next process, no overlap"
        )
        return found

    def to_json(self) -> dict[str, Any]:
        """All of it, as JSON can hold it."""
        values = asdict(self)
        values["memory"]["state"] = self.memory.state
        times = {"compute_s": self.compute_s, "messages_s": self.messages_s, "update_s": self.update_s}
        return {**values, **times}


def plan(
    whole: TrainState,
    shared: Callable[[TrainState], TrainState],
    batch_of: Callable[[TrainState], tuple[Any, int]],
    *,
    world: int,
    rates: Rates | None = None,
) -> Plan:
    """What each process takes of a run on so many. Nothing is computed; this process is rank 0 of a `fake_world`.

    Args:
        whole: the state before the first step.
        shared: gives the state as a process keeps it.
        batch_of: gives the process's first micro-batch for that state, and how many examples all processes have in it.
        world: the number of processes.
        rates: of the machine.

    Example:
        >>> import torch, functrain as ft
        >>> from functrain.diagnostics.fake_ranks import fake_world
        >>> state = ft.init_state(torch.nn.Linear(8, 4), ft.regression(), ft.optim.adam(0.1))
        >>> with fake_world(4):
        ...     batch = torch.ones(16, 8), torch.zeros(16, 4)
        ...     found = plan(state, lambda s: ft.shard(s, strategy="zero1"), lambda s: (batch, 16), world=4)
        >>> found.memory.optimizer, found.flops, sorted(each.kind for each in found.sent)
        (104, 2048, ['all-gather', 'all-reduce', 'all-to-all'])
    """
    mode = fake_mode(symbols=False)

    def like(tree: Tree) -> Tree:
        return tree_map(lambda leaf: mode.from_tensor(leaf) if isinstance(leaf, Tensor) else leaf, tree)

    state = like(whole)
    with mode, Messages(world):
        state = shared(state)
    batch, examples = batch_of(state)
    with mode, Messages(world) as messages:
        given = to_device(like(batch), state.device)
        memory, count = state_memory(state), micro_batches_of(state)
        flops, peak = _update(state, given, count)
    return Plan(
        world,
        examples * state.recipe.accumulate,
        count,
        nbytes(whole),
        StateMemory(**{**asdict(memory), "step": peak}),
        flops,
        tuple(by_kind(messages.sent)),
        rates or Rates(),
    )


def micro_batches_of(state: TrainState) -> int:
    """The micro-batches of a window that this process computes."""
    exchange, accumulate = state.recipe.exchange, state.recipe.accumulate
    return accumulate if exchange is None else exchange.share(accumulate).number


def _update(state: TrainState, batch: Any, count: int) -> tuple[int, int]:
    """Operations of an update, and the most memory that is alive in it."""
    memory = LiveMemory()
    memory.count(tensors((state, batch)))
    with rehearsing(), flop_counter() as counter, memory:
        for number in range(count):
            state, _ = train_step(state, batch, end_window=number == count - 1)
    found: int = counter.get_total_flops()
    return found, memory.peak


def by_kind(messages: list[Message]) -> Iterator[Sent]:
    """Messages added up by their kind.

    Example:
        >>> list(by_kind([Message("all-gather", 3, 2), Message("all-gather", 4, 8)]))
        [Sent(kind='all-gather', messages=2, nbytes=7, steps=8)]
    """
    for kind in dict.fromkeys(each.kind for each in messages):
        own = [each for each in messages if each.kind == kind]
        yield Sent(kind, len(own), sum(each.nbytes for each in own), sum(each.ranks - 1 for each in own))
