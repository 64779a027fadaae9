"""What a core computes, found out by running it once.

A compiled program is kept under a key of what it computes. Tracing would tell, but on a quiet machine the tracer takes
a second and a half to import and run, ten times as long as all else that a second start does. So the key is
made by running the core once, eagerly, and hashing each operation with its arguments: everything that a trace
would hold. Code that reads a tensor's value is found out in the same way, and is left to the tracer to refuse.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from functrain.compiler.layout import Layout
from functrain.compiler.refusals import chooses
from functrain.compiler.session import run_model
from functrain.foundation.errors import TracingError
from functrain.foundation.keys import torch_seed
from functrain.foundation.torch_internals import TraceableDispatchMode
from functrain.foundation.trees import flatten
from functrain.step.execution import Core

LARGEST_STATE = 256 << 20  # bytes; an eager step takes a few times as much memory, which a compiled one may not need


@dataclass(frozen=True)
class Recording:
    """A core's run.

    Attributes:
        digest: of its operations; equal digests, equal computations.
        out: layout of the results besides the carried state.
        random: whether it draws random numbers.
        fixed: whether the digest is the same for all values; else sizes depend on them, as of `x[mask]`.
    """

    digest: str
    out: Layout
    random: bool
    fixed: bool


def record(
    core: Core, state: Layout, batch: Layout, inputs: list[Tensor], *, key: Callable[[], int]
) -> Recording | None:
    """Run a core and record it; None if it reads the values of tensors, or is too large to try.

    Args:
        core: the function.
        state, batch: layouts of its arguments.
        inputs: their tensors, the state's first; none is changed.
        key: makes what seeds the random generators, as for a `Runner`.
    """
    if sum(t.numel() * t.element_size() for t in inputs) > LARGEST_STATE:
        return None
    n_state = sum(state.is_tensor)

    def run() -> tuple["_Recorder", Any]:
        recorder = _Recorder(inputs)
        with torch_seed(key(), inputs[0].device), recorder:
            result = core.fn(state.fill(inputs[:n_state]), batch.fill(inputs[n_state:]))
        if recorder.reads:
            raise TracingError("a Python value depends on the values of tensors")
        if not recorder.fixed:
            not_fixed.append((recorder, result))
            raise TracingError("a size depends on the values of tensors")
        return recorder, result

    not_fixed: list[tuple[_Recorder, Any]] = []
    try:
        recorder, result = run_model(run)
    except Exception:
        if not not_fixed:
            return None  # the tracer will meet the same error, and say what there is to say
        recorder, result = not_fixed[0]
    carried, result = result if core.carries_state else ((), result)
    result_leaves, spec = flatten(result)
    carried_tensors = [leaf for leaf in flatten(carried)[0] if isinstance(leaf, Tensor)]
    recorder.add(core.name, carried_tensors, result_leaves, str(spec))
    return Recording(recorder.digest.hexdigest(), Layout.of(result_leaves, spec), recorder.random, recorder.fixed)


class _Recorder(TraceableDispatchMode):
    """Hashes the operations that run within it.

    Attributes:
        digest: so far.
        fixed: no result of an operation had a size that depends on the tensors' values.
        reads: some operation gave a Python value that depends on them, or drew from a generator of its own.
        random: some operation drew random numbers.
    """

    def __init__(self, inputs: list[Tensor]) -> None:
        super().__init__()
        self.digest = hashlib.sha256()
        self.fixed = True
        self.reads = False
        self.random = False
        self._numbers = WeakTensorKeyDictionary()
        self._next = 0
        self._number(inputs)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run `func` and hash it."""
        kwargs = kwargs or {}
        self.add(str(func), args, sorted(kwargs.items()))
        own_generator = any(isinstance(value, torch.Generator) for value in (*args, *kwargs.values()))
        self.fixed = self.fixed and not chooses(func, args)
        self.reads = self.reads or own_generator or torch.Tag.data_dependent_output in func.tags
        self.random = self.random or torch.Tag.nondeterministic_seeded in func.tags
        result = func(*args, **kwargs)
        self._number(result)
        self.add(result)
        return result

    def add(self, *values: Any) -> None:
        """Hash values in which tensors may occur."""
        self.digest.update("\n".join(map(self._describe, values)).encode())

    def _number(self, value: Any) -> None:
        """Number the tensors that are new."""
        if isinstance(value, (list, tuple)):
            for item in value:
                self._number(item)
        elif isinstance(value, Tensor) and value not in self._numbers:
            self._numbers[value] = self._next
            self._next += 1

    def _describe(self, value: Any) -> str:
        if isinstance(value, (list, tuple)):
            return f"[{','.join(map(self._describe, value))}]"
        if not isinstance(value, Tensor):
            return repr(value)
        form = f"{list(value.shape)}{value.stride()}{value.dtype}{value.device}"
        number = self._numbers.get(value)
        if number is not None:
            return f"%{number}{form}"
        # Neither an argument nor computed: a constant of the code's, which is part of the program.
        content = value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes()
        return f"{form}{hashlib.sha256(content).hexdigest()}"
