"""Compiled steps. Imports foundation, step and torch."""

import functools
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from functrain.compiler import backends, fingerprint
from functrain.compiler.layout import Layout
from functrain.compiler.recording import record
from functrain.compiler.trace import trace
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

    def __call__(self, tensors: list[Tensor], key: Callable[[], int], device: torch.device) -> list[Tensor]:
        if not self.random:
            return self.run(tensors)
        with torch_seed(key(), device):
            return self.run(tensors)


@dataclass(frozen=True, eq=False)
class _Form:
    """The structure of a state and how its tensors lie in memory: what a program is compiled for."""

    layout: Layout
    memory: tuple[Any, ...]
    runner: "CompilingRunner"


@dataclass(frozen=True)
class _Known:
    """What a runner knows of a state that it made, and need not find out again: at a small network's step that
    would cost as much as the step. `replace` drops it, as it must.
    """

    tensors: list[Tensor]
    form: _Form
    separate: bool  # no two of the tensors share storage


@dataclass
class CompilingRunner:
    """Runs cores compiled, one program for each kind of core, structure and shapes.

    Attributes:
        donate: write a carried state's successor into its storage.
        compilations: how many programs of each kind of core there are, by its name; programs that a store had
            count too.
        on_compile: called with the core's name when a compilation starts.
    """

    donate: bool = False
    mode: str = "default"
    backend: str = "inductor"
    compilations: Counter[str] = field(default_factory=Counter)
    on_compile: Callable[[str], None] | None = None
    _forms: dict[Any, _Form] = field(default_factory=dict)
    _programs: dict[Any, _Program] = field(default_factory=dict)

    def __call__(self, core: Core, state: Any, batch: Any, *, key: Callable[[], int], device: torch.device) -> Any:
        """Run `core`, compiling it first if it is new."""
        donates = self.donate and core.carries_state
        known: _Known | None = getattr(state, "_known", None)
        fresh = False
        if known is None or known.form.runner is not self or (donates and not known.separate):
            fresh, known = True, self._examine(state, separate=donates)
        batch_leaves, batch_spec = flatten(batch)
        batch_tensors = [leaf for leaf in batch_leaves if isinstance(leaf, Tensor)]
        signature = (core, known.form, batch_spec, _memory(batch_leaves))
        inputs = known.tensors + batch_tensors
        program = self._programs.get(signature)
        if program is None:
            program = self._compile(core, known.form.layout, Layout.of(batch_leaves, batch_spec), inputs, key)
            self._programs[signature] = program
            self.compilations[core.name] += 1
        if not donates:
            return self._run(program, core, state, inputs, known, key, device)
        successor = _with_tensors(state, known) if fresh else _twin(state)
        consume(state)  # before the run: one that is broken off has overwritten part of it
        results = program(inputs, key, device)
        successor.__dict__["_known"] = known
        return successor, program.out.fill(results)

    def _run(
        self, program: _Program, core: Core, state: Any, inputs: list[Tensor], known: _Known, key: Any, device: Any
    ) -> Any:
        results = program(inputs, key, device)
        if not core.carries_state:
            return program.out.fill(results)
        n_state = len(known.tensors)
        known = _Known(results[:n_state], known.form, separate=False)
        successor = _with_tensors(state, known)
        successor.__dict__["_known"] = known
        return successor, program.out.fill(results[n_state:])

    def _examine(self, state: Any, *, separate: bool) -> _Known:
        state_leaves, spec = flatten(state)
        layout = Layout.of(state_leaves, spec)
        tensors = [_dense(t) for t in layout.tensors(state_leaves)]
        if separate:
            tensors = _without_aliases(tensors)
        memory = _memory(tensors)
        form = self._forms.setdefault((spec, memory), _Form(layout, memory, self))
        return _Known(tensors, form, separate)

    def _compile(
        self, core: Core, state: Layout, batch: Layout, inputs: list[Tensor], key: Callable[[], int]
    ) -> _Program:
        """The program of a core for arguments like these: from the store, or traced and compiled."""
        donates = self.donate and core.carries_state
        stores = self.backend == "inductor"
        recording = record(core, state, batch, inputs, key=key) if stores else None
        if recording is not None:
            program_key = fingerprint.program_key(recording.digest, inputs, self.mode, donate=donates)
            if program := backends.kept(program_key, inputs[0].device):
                return _Program(program, recording.out, recording.random)
        graph = trace(core, state, batch, inputs, donate=donates)
        if recording is None and stores:
            digest = fingerprint.graph_digest(graph.module)
            program_key = fingerprint.program_key(digest, inputs, self.mode, donate=donates)
            if program := backends.kept(program_key, inputs[0].device):
                return _Program(program, graph.out, graph.random)
        if self.on_compile is not None:
            self.on_compile(core.name)
        program = backends.build(
            graph.module, inputs, backend=self.backend, mode=self.mode, key=program_key if stores else ""
        )
        return _Program(program, graph.out, graph.random)


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


def _with_tensors(state: Any, known: _Known) -> Any:
    """A tree like `state`, its host values included, with other tensors."""
    return known.form.layout.fill(known.tensors, flatten(state)[0])


def _twin(state: Any) -> Any:
    """Another object with the same contents; what is inside is not copied."""
    twin = object.__new__(type(state))
    twin.__dict__.update(state.__dict__)
    return twin


def _memory(leaf_list: list[Any]) -> tuple[Any, ...]:
    """What a program is compiled for. Strides too: a program reads transposed inputs as if they were not."""
    return tuple([(t.shape, t.stride(), t.dtype, t.device) if isinstance(t, Tensor) else None for t in leaf_list])


def _dense(tensor: Tensor) -> Tensor:
    """The tensor, or a copy if it was expanded or cut out of another: not every program can write to such."""
    if tensor.is_contiguous() or torch.empty_like(tensor, device="meta").stride() == tensor.stride():
        return tensor
    return tensor.clone(memory_format=torch.contiguous_format)


def consume(state: Any) -> None:
    """Mark a training state whose storage was taken over: any use of it raises from now on."""
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
