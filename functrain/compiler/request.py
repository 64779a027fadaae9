"""What is asked of an engine, which compiles cores, and what it gives."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from functrain.compiler.layout import Layout
from functrain.step.execution import Core

Program = Callable[[list[Tensor]], list[Tensor]]

ENGINES = ("package", "torch")
BACKENDS = ("inductor", "aot_eager", "eager")  # those that the tests run
MADE = "made"  # in a name that `on_program` gets: how a program was compiled
MODES = ("default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs")


@dataclass(frozen=True, kw_only=True)
class Request:
    """A core, and the arguments for which it is to be compiled.

    Attributes:
        core: the function.
        state, batch: layouts of its arguments.
        inputs: their tensors, the state's first; none is changed.
        key: makes what seeds the random generators.
        donate: write the new state into the old one's tensors.
        backend, mode: as in `functrain.compile`.
        on_compile: called with the core's name when a compilation starts.
        on_program: called with what a program is for and a digest of what it computes, before it is compiled; and with
            what it is for and how it was compiled, afterwards.
    """

    core: Core
    state: Layout
    batch: Layout
    inputs: list[Tensor]
    key: Callable[[], int]
    donate: bool
    backend: str
    mode: str
    on_compile: Callable[[str], None] | None = None
    on_program: Callable[[str, str], None] | None = None

    @property
    def device(self) -> torch.device:
        """Where the core computes."""
        return self.inputs[0].device


@dataclass(frozen=True)
class Made:
    """A compiled core.

    Attributes:
        run: takes the inputs' tensors and gives the new state's (unless donated), then those of the other results.
        out: layout of the results besides the carried state.
        random: whether it draws random numbers.
        how: the engine, and what else the program's bits depend on and the request does not say.
        symbols: whether sizes in it depend on the values of tensors.
    """

    run: Program
    out: Layout
    random: bool
    how: str
    symbols: bool = False


def recorded(backend: str, mode: str, engine: str) -> str:
    """How steps are compiled, as a checkpoint records it.

    Example:
        >>> recorded("inductor", "default", "package"), recorded("inductor", "default", "torch")
        ('inductor/default', 'inductor/default/torch')
    """
    return f"{backend}/{mode}" + ("" if engine == "package" else f"/{engine}")


def check(backend: str, mode: str, engine: str = "package") -> None:
    """Refuse what cannot be compiled for, before anything is traced.

    Raises:
        ValueError: naming what there is.
    """
    if engine not in ENGINES:
        raise ValueError(f"engine must be one of {', '.join(ENGINES)}; got {engine!r}")
    if mode not in MODES:
        raise ValueError(f"mode must be one of {', '.join(MODES)}; got {mode!r}")
    if mode != "default" and backend != "inductor":
        raise ValueError(f"mode={mode!r} is a mode of backend='inductor'; got backend={backend!r}")
    if mode != "default" and engine != "package":
        raise ValueError(f"mode={mode!r} is a mode of engine='package'; got engine={engine!r}")
    if backend in BACKENDS:  # listing torch's takes a second, with all that it imports
        return
    others = [name for name in torch.compiler.list_backends(exclude_tags=()) if name not in BACKENDS]
    if backend not in others:
        raise ValueError(
            f"backend must be one of {', '.join(BACKENDS)}; got {backend!r}. (Names that torch lists are taken too, "
            f"and are not tested: {', '.join(others)})"
        )
