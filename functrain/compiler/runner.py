"""Compiled steps."""

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from functrain.compiler import cuda_graphs, engines, fingerprint, releases
from functrain.compiler.layout import Layout
from functrain.compiler.request import MADE, Program, Request
from functrain.compiler.shapes import LIMIT, Shapes
from functrain.foundation.keys import one_thread_draws, torch_seed
from functrain.foundation.trees import flatten
from functrain.step.execution import Core, Results, Runner
from functrain.step.state import TrainState, consume


@dataclass
class _Program:
    """A compiled core for tensors of given shapes.

    Attributes:
        symbols: whether sizes in it depend on the values of tensors.
        group: what it has in common with programs for other shapes of the batch.
        last_use: the runner's count of calls at its last one.
    """

    run: Program
    out: Layout
    random: bool
    symbols: bool = False
    group: Any = None
    last_use: int = 0

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
class CompilingRunner(Runner):
    """Runs cores compiled, one program for each kind of core, structure and shapes.

    Attributes:
        donate: write a carried state's successor into its storage.
        compilations: how many programs of each kind of core there are, by its name; programs that a store had
            count too.
        on_compile: called with the core's name when a compilation starts.
        engine: what compiles, as in `compile`.
        on_program: called for each program with what it is for (the core's name comes first) and a digest of what it
            computes; and with the core's name, `MADE` and how it was compiled.
    """

    makes_graphs: ClassVar[bool] = True
    makes_series: ClassVar[bool] = True

    donate: bool = False
    mode: str = "default"
    backend: str = "inductor"
    engine: str = "package"
    compilations: Counter[str] = field(default_factory=Counter)
    on_compile: Callable[[str], None] | None = None
    on_program: Callable[[str, str], None] | None = None
    _forms: dict[Any, _Form] = field(default_factory=dict)
    _programs: dict[Any, _Program] = field(default_factory=dict)
    _shapes: Shapes = field(default_factory=Shapes)
    _calls: int = 0

    def __call__(self, core: Core, state: Any, batch: Any, *, key: Callable[[], int], device: torch.device) -> Any:
        """Run `core`, compiling it first if it is new."""
        if core.carries_state:
            series = CompiledSeries(self, state)
            out = series(core, batch, key=key, device=device)
            return series.end(), out
        [result] = self.each(core, state, [batch], key=key, device=device).results
        return result

    def each(
        self, core: Core, state: Any, batches: Iterable[Any], *, key: Callable[[], int], device: torch.device
    ) -> Results:
        """Run `core`, which carries no state, for each batch; the program is looked up where the form changes."""
        known, new = self._known_of(state, separate=False)
        if new and isinstance(state, TrainState):
            state.__dict__["_known"] = known  # an evaluation gives the same state with each batch
        results, last, program = [], None, None
        for batch in batches:
            memory = _plain_memory(batch)
            if program is None or memory is None or memory != last:
                last, (program, inputs) = memory, self._program_for(core, known, batch, key)
            else:
                inputs = [*known.tensors, *batch]
            results.append(program.out.fill(program(inputs, key, device)))
        return Results(results)

    def series(self, state: Any) -> "CompiledSeries":
        """Cores one after another, beginning with `state`."""
        return CompiledSeries(self, state)

    def _known_of(self, state: Any, *, separate: bool) -> tuple[_Known, bool]:
        """What there is to know of a state, and whether it had to be found out."""
        known: _Known | None = getattr(state, "_known", None)
        if known is None or known.form.runner is not self or (separate and not known.separate):
            return self._examine(state, separate=separate), True
        return known, False

    def _program_for(
        self, core: Core, known: _Known, batch: Any, key: Callable[[], int]
    ) -> tuple[_Program, list[Tensor]]:
        """The program for a core and its arguments, and its inputs."""
        memory = _plain_memory(batch)
        if memory is None:
            batch_leaves, batch_spec = flatten(batch)
            memory = (batch_spec, _memory(batch_leaves))
            inputs = known.tensors + [leaf for leaf in batch_leaves if isinstance(leaf, Tensor)]
        else:
            inputs = [*known.tensors, *batch]
        signature = (core, known.form, memory)
        program = self._programs.get(signature)
        if program is None:
            # Tracing and inductor change settings of the process, and a recording draws. One lock for all of it, or a
            # step within a step and a compilation in another thread could each wait for the other's.
            with one_thread_draws():
                program = self._programs.get(signature)
                if program is None:
                    batch_leaves, batch_spec = flatten(batch)
                    program = self._compile(core, known.form.layout, Layout.of(batch_leaves, batch_spec), inputs, key)
                    program = self._recorded(program, core, known.tensors)
                    program.group = self._shapes.add(core.name, (known.form, batch_spec), batch_leaves)
                    self._make_room(program.group)
                    self._programs[signature] = program
                    self.compilations[core.name] += 1
        self._calls += 1
        program.last_use = self._calls
        return program, inputs

    def _make_room(self, group: Any) -> None:
        """Drop the program for batches of one kind that was unused for longest, if there are too many of them."""
        alike = [signature for signature, program in self._programs.items() if program.group == group]
        if len(alike) >= LIMIT:
            del self._programs[min(alike, key=lambda signature: self._programs[signature].last_use)]

    def _examine(self, state: Any, *, separate: bool) -> _Known:
        state_leaves, spec = flatten(state)
        layout = Layout.of(state_leaves, spec)
        tensors = [_dense(t) for t in layout.tensors(state_leaves)]
        if separate:
            tensors = _without_aliases(tensors)
        memory = _memory(tensors)
        form = self._forms.setdefault((spec, memory), _Form(layout, memory, self))
        return _Known(tensors, form, separate)

    def _recorded(self, program: _Program, core: Core, state: list[Tensor]) -> _Program:
        """The program as a CUDA graph, if the mode and the device want that. (Evaluation has no state that stays.)"""
        if not core.carries_state or not cuda_graphs.wanted(self.mode, state[0].device):
            return program
        cuda_graphs.check(self.mode, donates=self.donate, random=program.random, symbols=program.symbols)
        return dataclasses.replace(program, run=cuda_graphs.Recorded(program.run, len(state)))

    def _compile(
        self, core: Core, state: Layout, batch: Layout, inputs: list[Tensor], key: Callable[[], int]
    ) -> _Program:
        """The program of a core for arguments like these: from the store, or traced and compiled."""
        releases.warn_if_untested()
        request = Request(
            core=core,
            state=state,
            batch=batch,
            inputs=inputs,
            key=key,
            donate=self.donate and core.carries_state,
            backend=self.backend,
            mode=self.mode,
            on_compile=self.on_compile,
            on_program=self.on_program,
        )
        made = engines.make(self.engine, request)
        if self.on_program is not None:
            self.on_program(fingerprint.form(f"{core.name} {MADE}", inputs), made.how)
        return _Program(made.run, made.out, made.random, made.symbols)


class CompiledSeries:
    """Cores that carry a state, run one after another, without a state for each of those in between.

    Making a state for each costs a small network a fifth of its step. The bits are those of single calls.

    Args:
        runner: runs them.
        state: the first one's; donated by the first core that runs, if the runner donates.
    """

    def __init__(self, runner: CompilingRunner, state: Any) -> None:
        self._runner, self._before = runner, state
        self._known, self._fresh = runner._known_of(state, separate=runner.donate)
        self._after: Any = None
        self._broken = False

    def __call__(self, core: Core, batch: Any, *, key: Callable[[], int], device: torch.device) -> Any:
        """Run `core` and give its results beside the state; after an error in compiling it the series is as before."""
        known = self._known
        program, inputs = self._runner._program_for(core, known, batch, key)
        if self._after is None:
            if not self._runner.donate:
                self._after = self._before
            else:
                self._after = _with_tensors(self._before, known) if self._fresh else _twin(self._before)
                consume(self._before)  # before the run: one that is broken off has overwritten part of it
        self._broken = True
        results = program(inputs, key, device)
        self._broken = False
        if self._runner.donate:
            return program.out.fill(results)
        n_state = len(known.tensors)
        self._known = _Known(results[:n_state], known.form, separate=False)
        return program.out.fill(results[n_state:])

    def end(self) -> Any:
        """The state after all that was run; nothing more may be. One that was broken off leaves a donated state."""
        if self._after is None:
            return self._before
        if not self._runner.donate:
            self._after = _with_tensors(self._before, self._known)
        elif self._broken:
            consume(self._after)
            return self._after
        self._after.__dict__["_known"] = self._known
        return self._after


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


def _plain_memory(batch: Any) -> tuple[Any, ...] | None:
    """What a program is compiled for, if the batch is a list or a tuple of dense tensors on the CPU, else None.

    The usual batch of a small network, where it takes half of the time of its leaves, structure, strides and devices.
    """
    kind = type(batch)
    if kind is not list and kind is not tuple:
        return None
    found: list[Any] = [kind]
    for tensor in batch:
        if type(tensor) is not Tensor or not tensor.is_cpu or not tensor.is_contiguous():
            return None
        found += (tensor.shape, tensor.dtype)
    return tuple(found)


def _dense(tensor: Tensor) -> Tensor:
    """The tensor, or a copy if it was expanded or cut out of another: not every program can write to such."""
    if tensor.is_contiguous() or torch.empty_like(tensor, device="meta").stride() == tensor.stride():
        return tensor
    return tensor.clone(memory_format=torch.contiguous_format)


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
