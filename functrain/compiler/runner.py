"""Compiled steps. Imports foundation, step and torch."""

import functools
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import optree
import torch
from torch import Tensor

from functrain.compiler import backends
from functrain.compiler.trace import Layout, trace
from functrain.foundation.keys import torch_seed
from functrain.foundation.trees import flatten
from functrain.step.execution import Core
from functrain.step.state import DonatedState, TrainState


@dataclass(frozen=True)
class _Program:
    """A compiled core for tensors of given shapes."""

    run: backends.Program
    out: Layout
    random: bool

    def __call__(self, tensors: list[Tensor], key: int, device: torch.device) -> list[Tensor]:
        if not self.random:
            return list(self.run(*tensors))
        with torch_seed(key, device):
            return list(self.run(*tensors))


@dataclass
class CompilingRunner:
    """Runs cores compiled, one program for each kind of core, structure and shapes.

    Attributes:
        donate: write a carried state's successor into its storage.
        compilations: how often each kind of core was compiled, by its name.
        on_compile: called with the core's name when a compilation starts.
    """

    donate: bool = False
    mode: str = "default"
    backend: str = "inductor"
    compilations: Counter[str] = field(default_factory=Counter)
    on_compile: Callable[[str], None] | None = None
    _layouts: dict[optree.PyTreeSpec, Layout] = field(default_factory=dict)
    _programs: dict[Any, _Program] = field(default_factory=dict)

    def __call__(self, core: Core, state: Any, batch: Any, *, key: int, device: torch.device) -> Any:
        """Run `core`, compiling it first if it is new."""
        state_leaves, state_spec = flatten(state)
        batch_leaves, batch_spec = flatten(batch)
        state_layout = self._layout(state_leaves, state_spec)
        batch_layout = Layout.of(batch_leaves, batch_spec)
        donates = self.donate and core.carries_state
        tensors = state_layout.tensors(state_leaves)
        memory = getattr(state, "_memory", None)
        if memory is None:
            tensors = [_dense(t) for t in tensors]
            memory = _memory(tensors)
        if donates and not getattr(state, "_exclusive", False):
            tensors = _without_aliases(tensors)
        batch_tensors = batch_layout.tensors(batch_leaves)
        signature = (core, state_spec, batch_layout, memory, _memory(batch_tensors))
        program = self._programs.get(signature)
        if program is None:
            program = self._compile(core, state_layout, batch_layout, tensors + batch_tensors)
            self._programs[signature] = program
        if donates:
            _consume(state)  # before the run: one that is broken off has overwritten part of it
        results = program(tensors + batch_tensors, key, device)
        if not core.carries_state:
            return program.out.fill(results)
        if not donates:
            tensors, results = results[: len(tensors)], results[len(tensors) :]
        new_state = state_layout.fill(tensors, state_leaves)
        # What is known of a state that a step made, and need not be asked at the next: how its tensors lie in
        # memory (0.4 us for each of them), and that no two share storage. `replace` drops it, as it must.
        new_state.__dict__.update(_memory=memory, _exclusive=donates)
        return new_state, program.out.fill(results)

    def _layout(self, leaf_list: list[Any], spec: optree.PyTreeSpec) -> Layout:
        layout = self._layouts.get(spec)
        if layout is None:
            layout = self._layouts[spec] = Layout.of(leaf_list, spec)
        return layout

    def _compile(self, core: Core, state: Layout, batch: Layout, tensors: list[Tensor]) -> _Program:
        if self.on_compile is not None:
            self.on_compile(core.name)
        graph = trace(core, state, batch, tensors, donate=self.donate and core.carries_state)
        run = backends.build(graph.module, tensors, backend=self.backend, mode=self.mode)
        self.compilations[core.name] += 1
        return _Program(run, graph.out, graph.random)


def compile(
    step: Callable[..., Any], *, donate: bool = False, mode: str = "default", backend: str = "inductor"
) -> Callable[..., Any]:
    """Compile a step: forward, backward and update become one graph.

    Tracing freezes Python values, as in JAX; what depends on a tensor's value must be written with
    `torch.where`. A new shape of the batch is a new compilation; a new value of anything is not.

    Args:
        step: `train_step`, `eval_step`, or a function of your own that takes a keyword `run` and hands it on
            to them: `def my_step(states, batch, *, run=eager): ...`.
        donate: the new state takes over the old one's storage. The old state cannot be used any more:
            to try is a `DonatedStateError`. Tensors that you took out of it, or share with it through
            `replace`, are overwritten: clone what you want to keep.
        mode: inductor's: "default", "reduce-overhead" (CUDA graphs), "max-autotune" or
            "max-autotune-no-cudagraphs".
        backend: "inductor", "aot_eager", "eager" (runs the traced graph as it is), or another that
            torch lists.

    Returns:
        A function with the same arguments and results. Its attribute `runner.compilations` counts.

    Raises:
        TypeError: if the step takes no `run`.
        ValueError: for an unknown mode or backend.

    Example:
        >>> import functrain as ft
        >>> state = ft.init_state(torch.nn.Linear(2, 1), ft.regression(), ft.optim.sgd(0.1))
        >>> step = ft.compile(ft.train_step, backend="aot_eager")
        >>> state, metrics = step(state, (torch.ones(4, 2), torch.zeros(4, 1)))
        >>> state.step, dict(step.runner.compilations)
        (1, {'update': 1})
    """
    import inspect

    if not callable(step) or "run" not in inspect.signature(step).parameters:
        raise TypeError(
            "compile takes train_step, eval_step or a step with a keyword argument `run` that it hands on to "
            f"them; got {getattr(step, '__name__', step)!r}"
        )
    backends.check(backend, mode)
    runner = CompilingRunner(donate=donate, mode=mode, backend=backend)
    compiled = functools.partial(step, run=runner)
    functools.update_wrapper(compiled, step)
    compiled.runner = runner  # type: ignore[attr-defined]
    return compiled


def _memory(tensors: list[Tensor]) -> tuple[Any, ...]:
    """What a program is compiled for. Strides too: a program reads transposed inputs as if they were not."""
    return tuple([(t.shape, t.stride(), t.dtype, t.device) for t in tensors])


def _dense(tensor: Tensor) -> Tensor:
    """The tensor, or a copy if it was expanded or cut out of another: not every program can write to such."""
    if tensor.is_contiguous() or torch.empty_like(tensor, device="meta").stride() == tensor.stride():
        return tensor
    return tensor.clone(memory_format=torch.contiguous_format)


def _consume(state: Any) -> None:
    if isinstance(state, TrainState):
        object.__setattr__(state, "__class__", DonatedState)


def _without_aliases(tensors: list[Tensor]) -> list[Tensor]:
    """Copies of those tensors that share storage with an earlier one: each leaf will be written to."""
    seen: set[int] = set()
    separate = []
    for tensor in tensors:
        address = tensor.untyped_storage().data_ptr()
        separate.append(tensor.clone() if address in seen else tensor)
        if tensor.numel():
            seen.add(address)
    return separate
