"""Steps that fit into memory: batches taken in parts, smaller ones after a step ran out of memory.

By the accumulation law the update of a batch is that of its parts, so a step that did not fit is done again from
the same state, in more parts, and training is the same up to the order of summation.
"""

import dataclasses
import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from functrain.data import pad_batch
from functrain.distributed import World
from functrain.foundation.errors import OutOfMemoryError
from functrain.foundation.keys import fold_in
from functrain.foundation.numbers import is_integer
from functrain.foundation.trees import flatten, leaves, unflatten
from functrain.objectives.examples import count_examples, length_of, map_examples, require_examples, takes_lists
from functrain.objectives.supervised import Objective, takes_weight
from functrain.step.execution import Core, Runner
from functrain.step.state import DonatedState, TrainState, consume, empty_accumulator
from functrain.step.train import ACCUMULATE, UPDATE

# What allocators and libraries say in a plain RuntimeError: the CPU's (on Linux, on Windows), CUDA's libraries'.
_MESSAGES = (
    "DefaultCPUAllocator: can't allocate memory",
    "DefaultCPUAllocator: not enough memory",
    "CUDA out of memory",
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
)


def is_out_of_memory(error: BaseException | None) -> bool:
    """Whether an error, or one that it came from, says that memory was not enough.

    Example:
        >>> (
        ...     is_out_of_memory(torch.OutOfMemoryError("...")),
        ...     is_out_of_memory(MemoryError()),
        ...     is_out_of_memory(KeyError()),
        ... )
        (True, True, False)
    """
    seen: list[BaseException] = []
    while error is not None and error not in seen:
        if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
            return True
        if isinstance(error, RuntimeError) and any(text in str(error) for text in _MESSAGES):
            return True
        seen.append(error)
        error = error.__cause__ or error.__context__
    return False


def check_micro_batch(micro_batch: Any, world: World) -> None:
    """Refuse what `fit` does not take as micro_batch."""
    if micro_batch is None:
        return
    if micro_batch == "auto":
        if world.size > 1:
            raise ValueError(
                "micro_batch='auto' is for one process: of several, one that runs out of memory would leave the others "
                "waiting for its sums. Find the number with one process, and give it, such as micro_batch=16"
            )
        return
    if not is_integer(micro_batch, 1):
        raise ValueError(
            f"micro_batch must be a number of examples, 1 or more, or 'auto', or None; got {micro_batch!r}"
        )


class InParts(Runner):
    """A runner whose training steps take a batch in parts, through another runner.

    Each part but the last is a micro-batch that does not end its window, so the update is that of the whole batch.
    Its random numbers are the part's own.

    Attributes:
        rows: examples in a part, at most; None: the whole batch. Parts of a batch are of one size: a batch of 50 with
            32 rows becomes 2 x 25. What is missing is padded with examples of weight 0, if the objective takes weights.
        adapts: whether a step that runs out of memory is done again with half as many rows, which are then kept.
    """

    def __init__(
        self,
        run: Runner,
        micro_batch: int | str | None,
        objective: Objective,
        *,
        found: int | None = None,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        """Take parts of `micro_batch` examples; for "auto" begin with `found`, the size that an earlier start found."""
        self.run = run
        self.adapts = micro_batch == "auto"
        self.rows = micro_batch if isinstance(micro_batch, int) else found
        self.donate = run.donate
        self._lists = takes_lists(objective)
        self._pads = takes_weight(objective) and not self._lists
        self._count = count_examples(objective)
        self._say = say
        self._fitted: set[Any] = set()  # kinds of steps that have been done once

    def __call__(self, core: Core, state: Any, batch: Any, *, key: Callable[[], int], device: torch.device) -> Any:
        """Run a core; a training step in parts, again in smaller ones if need be."""
        if core is not UPDATE and core is not ACCUMULATE:
            return self.run(core, state, batch, key=key, device=device)
        if not self.adapts:
            return self._in_parts(core, state, batch, key, device)
        while True:
            kind = (core, self.rows, tuple(leaf.shape for leaf in leaves(batch) if isinstance(leaf, Tensor)))
            backup = _Backup(state) if self.donate and kind not in self._fitted else None
            try:
                result = self._in_parts(core, state, batch, key, device)
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                failure = _plain(error)
            else:
                self._fitted.add(kind)
                return result
            # Only now, when the traceback is gone, are the step's tensors free.
            release(device)
            state = self._whole(state, backup, failure)
            self.rows = self._smaller(self._count(batch), failure)

    def _in_parts(self, core: Core, state: TrainState, batch: Any, key: Callable[[], int], device: torch.device) -> Any:
        parts = split_batch(batch, self.rows, pads=self._pads, lists=self._lists)
        if len(parts) == 1:
            return self.run(core, state, batch, key=key, device=device)
        lends = state.accumulator is None  # a window for the time of this step
        current = state.replace(accumulator=_window(state) if lends else state.accumulator)
        metrics: Any = {}
        for number, part in enumerate(parts):
            last, given = number == len(parts) - 1, current

            def part_key(number: int = number) -> int:
                return fold_in(key(), "part", number)

            try:
                current, metrics = self.run(core if last else ACCUMULATE, given, part, key=part_key, device=device)
            finally:
                # A step that does not update writes into its window only.
                if type(given) is DonatedState and (last or not lends):
                    consume(state)
        return (current.replace(accumulator=None) if lends else current), metrics

    def _whole(self, state: Any, backup: "_Backup | None", failure: Exception) -> Any:
        """The state before the step that failed."""
        if type(state) is not DonatedState:
            return state
        if backup is None:
            raise OutOfMemoryError(
                "a step like others before it ran out of memory, and its state was donated, so it cannot be repeated. "
                "The last checkpoint is whole: start again to go on from it, with a smaller micro_batch (a number), or "
                "with donate=False, which takes more memory and lets each step be repeated"
            ) from failure
        return backup.restored()

    def _smaller(self, length: int, failure: Exception) -> int:
        """Half as many rows as the step had that failed."""
        count = -(-length // min(self.rows or length, length))
        before, after = -(-length // count), -(-length // (2 * count))
        if before == 1:
            raise OutOfMemoryError(
                "a step with a single example does not fit into memory, so no smaller micro_batch can help. Use a "
                "smaller model or input, precision='bf16', activation checkpointing, an optimizer with less state, or "
                "a device with more memory"
            ) from failure
        self._say(f"out of memory with {before} examples at a time: going on with {after}, with the same updates")
        return after


class _Backup:
    """What a donated state was before a step of a new kind, in the host's memory.

    A donating step writes into the state while it runs, so one that dies halfway may have spoilt it. Steps that have
    been done once find the same memory again, so only first ones are backed up.
    """

    def __init__(self, state: TrainState) -> None:
        self._leaves, self._spec = flatten(state)
        self._saved = [leaf.to("cpu", copy=True) if isinstance(leaf, Tensor) else leaf for leaf in self._leaves]

    def restored(self) -> Any:
        """The state, in its old storage."""
        for leaf, saved in zip(self._leaves, self._saved):
            if isinstance(leaf, Tensor):
                leaf.copy_(saved)
        return unflatten(self._spec, self._leaves)


def split_batch(batch: Any, rows: int | None, *, pads: bool, lists: bool = False) -> list[Any]:
    """Parts of a batch, as few as can be with at most `rows` examples each, and of one size.

    Args:
        batch: what has a row for each example is cut; all else goes to every part.
        rows: None: no part.
        pads: fill the last part up with examples of weight 0; else it may be smaller.
        lists: as `takes_lists` says of the objective.

    Raises:
        TypeError: the batch cannot be cut into examples.

    Example:
        >>> [part[0].tolist() for part in split_batch((torch.arange(5), torch.arange(5)), 2, pads=True)]
        [[0, 1], [2, 3], [4, 0]]
    """
    length = length_of(batch, lists=lists)
    if rows is None or rows >= length:
        return [batch]
    require_examples(batch, "micro_batch", lists=lists)
    count = -(-length // rows)
    size = -(-length // count)
    if pads and size * count != length:
        batch, length = pad_batch(batch, size * count), size * count

    def part(start: int) -> Any:
        def cut(examples: Any) -> Any:
            chosen = examples[start : start + size]
            # A tensor of its own is aligned as any is: kernels may round by alignment.
            return chosen.clone() if isinstance(chosen, Tensor) else chosen

        return map_examples(cut, batch, length, lists=lists)

    return [part(start) for start in range(0, length, size)]


@contextmanager
def explained(batch_size: Callable[[], int]) -> Iterator[None]:
    """Say what to set when memory was not enough.

    Raises:
        OutOfMemoryError: in place of the allocator's error.
    """
    try:
        yield
    except OutOfMemoryError:
        raise
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        size = batch_size()
        examples = f"with batches of {size} examples" if size else "with these batches"
        raise OutOfMemoryError(
            f"training ran out of memory {examples}. Set micro_batch='auto' (or a number of examples that fits): "
            "batches are taken in parts, with the same updates. Or give a smaller batch_size and a larger accumulate, "
            "half the one and twice the other for the same effective batch; precision='bf16' halves the activations. "
            f"It said: {(str(error) or type(error).__name__).splitlines()[0]}"
        ) from error


def _window(state: TrainState) -> Any:
    window = empty_accumulator({name: state.params[name] for name in state.recipe.network.trainable}, state.buffers)
    if state.epoch_metrics is None:
        return window
    return dataclasses.replace(window, metrics=state.epoch_metrics.emptied())


def _plain(error: Exception) -> Exception:
    """The error without the frames, which hold the tensors of the step that failed."""
    error.__traceback__ = error.__cause__ = error.__context__ = None
    return error


def release(device: torch.device) -> None:
    """Give back what a step that failed had taken; its traceback must be gone."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
