"""How a step is run: the runner for it, and a step that is compiled."""

import functools
from collections.abc import Callable
from typing import Any

from functrain.compiler.request import check
from functrain.compiler.runner import CompilingRunner
from functrain.step.execution import Runner, eager


def runner_for(
    compile: bool,
    *,
    donate: bool = False,
    backend: str = "inductor",
    mode: str = "default",
    engine: str = "package",
) -> Runner:
    """What runs steps: compiled, or operation by operation.

    Args:
        compile: whether they are compiled. The other arguments are for that, as of `functrain.compile`.
        donate, backend, mode, engine: see there.

    Raises:
        ValueError: for an unknown mode, backend or engine.

    Example:
        >>> runner_for(False), runner_for(True, donate=True).donate
        (eager, True)
    """
    if not compile:
        return eager
    check(backend, mode, engine)
    return CompilingRunner(donate=donate, mode=mode, backend=backend, engine=engine)


def compile(
    step: Callable[..., Any],
    *,
    donate: bool = False,
    mode: str = "default",
    backend: str = "inductor",
    engine: str = "package",
) -> Callable[..., Any]:
    """Compile a step: forward, backward and update become one graph.

    Tracing freezes Python values, as in JAX; what depends on a tensor's value must be written with
    `torch.where`. A new shape of the batch is a new compilation; a new value of anything is not. At the third shape a
    `ShapeWarning` says so. Of the programs for more than 64 shapes, the one unused for longest is dropped.

    Args:
        step: `train_step`, `eval_step`, or a function of your own that takes a keyword `run` and hands it on
            to them: `def my_step(states, batch, *, run=eager): ...`.
        donate: the new state takes over the old one's storage. The old state cannot be used any more:
            to try is a `DonatedStateError`. Tensors that you took out of it, or share with it through
            `replace`, are overwritten: clone what you want to keep.
        mode: inductor's: "default", "max-autotune-no-cudagraphs", or "reduce-overhead" and "max-autotune", with which
            donated steps on CUDA devices become CUDA graphs.
        backend: "inductor", "aot_eager", "eager" (runs the traced graph as it is), or another that
            torch lists.
        engine: "package", whose programs are kept for the next start, or "torch", which is `torch.compile` alone.

    Returns:
        A function with the same arguments and results. Its attribute `runner.compilations` counts.

    Raises:
        TypeError: if the step takes no `run`.
        ValueError: for an unknown mode, backend or engine.

    Example:
        >>> import torch, functrain as ft
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
    check(backend, mode, engine)
    runner = CompilingRunner(donate=donate, mode=mode, backend=backend, engine=engine)
    compiled = functools.partial(step, run=runner)
    functools.update_wrapper(compiled, step)
    compiled.runner = runner  # type: ignore[attr-defined]
    return compiled
